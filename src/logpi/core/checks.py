"""Tests of a value that a user gave, and the error that names what is wrong with it."""

import math
import numbers
from typing import TypeGuard

from logpi.core.errors import LogpiError

# Exact as a float too, as which metrics write it.
MOST_STEPS = 10**15


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number; True and False are not."""
    return not isinstance(value, bool) and isinstance(value, numbers.Integral)


def is_real(value: object) -> TypeGuard[float]:
    """Whether a value is a number other than NaN, which a float can hold."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    try:
        return not math.isnan(value)
    except OverflowError:
        return False


def is_text(value: object) -> TypeGuard[str]:
    """Whether a value is text."""
    return isinstance(value, str)


def require(valid: bool, name: str, expected: str, value: object) -> None:
    """Refuse a value that is not `valid`.

    **Raises:** `LogpiError` that says what `name` must be and what it is.
    """
    if not valid:
        raise _refusal(name, expected, value)


def _refusal(name: str, expected: str, value: object) -> LogpiError:
    return LogpiError(f"{name} must be {expected}, got {shown(value)}")


def shown(value: object, most: int = 200) -> str:
    """A value in one line of at most so many characters."""
    return " ".join(repr(value)[:most].split())


def require_seed(value: object) -> None:
    """Refuse what is no seed.

    **Raises:** `LogpiError`.
    """
    valid = is_whole(value) and 0 <= value < 2**32
    require(valid, "seed", "a whole number in [0, 2^32)", value)


def step_count(value: object) -> int:
    """Environment steps: a whole number from 1 to 10^15. The float 3e6 is one too.

    **Raises:** `LogpiError` for anything else.
    """
    if is_real(value) and float(value).is_integer() and 1 <= value <= MOST_STEPS:
        return int(value)
    raise _refusal("steps", "a whole number from 1 to 1e15", value)


def as_python_value(value: object) -> object:
    """A NumPy scalar as a number of Python's own; anything else as it is."""
    item = getattr(value, "item", None)
    if item is not None and getattr(value, "shape", None) == ():
        return item()
    return value
