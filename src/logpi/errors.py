"""The one exception that users meet, and the tests of a value that raise it."""

import math
from typing import Any


class LogpiError(Exception):
    """Something a user can mend: one line that says what was wrong, where, and what to do."""


def whole(value: Any) -> bool:
    """Whether a value is an int; True and False are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def real(value: Any) -> bool:
    """Whether a value is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


def string(value: Any) -> bool:
    """Whether a value is a name."""
    return isinstance(value, str)


def require(valid: bool, name: str, expected: str, value: Any) -> None:
    """**Raises:** `LogpiError` if not `valid`."""
    if not valid:
        raise LogpiError(f"{name} must be {expected}, got {value!r}")
