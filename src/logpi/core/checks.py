"""Tests of a value that a user gave, and the error that names what is wrong with it."""

import math
import numbers
from typing import Any

from logpi.core.errors import LogpiError

# What counts steps has 32 bits.
MOST_STEPS = 4 * 10**9


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number; True and False are not."""
    return not isinstance(value, bool) and isinstance(value, numbers.Integral)


def is_real(value: Any) -> bool:
    """Whether a value is a number other than NaN."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    return not math.isnan(value)


def is_text(value: Any) -> bool:
    """Whether a value is text."""
    return isinstance(value, str)


def require(valid: bool, name: str, expected: str, value: Any) -> None:
    """Refuse a value that is not `valid`.

    **Raises:** `LogpiError` that says what `name` must be and what it is.
    """
    if not valid:
        raise LogpiError(f"{name} must be {expected}, got {value!r}")


def require_seed(value: Any) -> None:
    """Refuse what is no seed.

    **Raises:** `LogpiError`.
    """
    valid = is_whole(value) and 0 <= value < 2**32
    require(valid, "seed", "a whole number in [0, 2^32)", value)


def step_count(value: Any) -> int:
    """Environment steps: a whole number from 1 to 4·10^9. The float 3e6 is one too.

    **Raises:** `LogpiError` for anything else.
    """
    valid = is_whole(value) or (is_real(value) and float(value).is_integer())
    require(valid and 1 <= value <= MOST_STEPS, "steps", "a whole number from 1 to 4e9", value)
    return int(value)


def as_python_value(value: Any) -> Any:
    """A NumPy scalar as a number of Python's own; anything else as it is."""
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        return value.item()
    return value
