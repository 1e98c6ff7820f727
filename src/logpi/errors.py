"""The one exception that users meet, and the tests of a value that raise it."""

import dataclasses
import math
import numbers
from typing import Any


class LogpiError(Exception):
    """Something a user can mend: one line that says what was wrong, where, and what to do."""


def whole(value: Any) -> bool:
    """Whether a value is a whole number; True and False are not."""
    return not isinstance(value, bool) and isinstance(value, numbers.Integral)


def real(value: Any) -> bool:
    """Whether a value is a number."""
    return not isinstance(value, bool) and isinstance(value, numbers.Real) and not math.isnan(value)


def string(value: Any) -> bool:
    """Whether a value is a name."""
    return isinstance(value, str)


def require(valid: bool, name: str, expected: str, value: Any) -> None:
    """**Raises:** `LogpiError` if not `valid`."""
    if not valid:
        raise LogpiError(f"{name} must be {expected}, got {value!r}")


def as_python_values(options: Any) -> None:
    """NumPy scalars among the fields of a frozen dataclass become numbers of Python's own."""
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
            object.__setattr__(options, field.name, value.item())
