"""Options of a method: dataclass fields that carry the range of their values.

    clip: Number = option(0.2, LIMIT)

One loop checks every field when the options are made. A field of type bool or Literal needs no
range: its type is one.
"""

import copy
import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import (
    Any,
    Literal,
    Protocol,
    TypeAlias,
    TypeVar,
    get_args,
    get_origin,
    runtime_checkable,
)

from logpi.core.arrays import Number
from logpi.core.checks import as_python_value, is_real, is_text, is_whole, require

T = TypeVar("T")

MOST_LAYERS = 100


@dataclass(frozen=True)
class Range:
    """The values that an option may have: in words, and as a test."""

    expected: str
    contains: Callable[[object], bool]


def _is_positive(value: object) -> bool:
    return is_real(value) and 0 < value < math.inf


def _is_limit(value: object) -> bool:
    return is_real(value) and value > 0


def _is_not_negative(value: object) -> bool:
    return is_real(value) and 0 <= value < math.inf


def _is_fraction(value: object) -> bool:
    return is_real(value) and 0 <= value <= 1


def _is_finite(value: object) -> bool:
    return is_real(value) and math.isfinite(value)


def _is_count(value: object) -> bool:
    return is_whole(value) and 1 <= value < 2**31


def _are_widths(value: object) -> bool:
    if not isinstance(value, tuple) or len(value) > MOST_LAYERS:
        return False
    return all(_is_count(width) for width in value)


def _are_names(value: object) -> bool:
    return isinstance(value, tuple) and all(is_text(name) for name in value)


def _is_file_source(value: object) -> bool:
    return is_text(value) and ".py:" in value


POSITIVE = Range("a positive number", _is_positive)
LIMIT = Range("a positive number", _is_limit)  # infinite for no limit
NOT_NEGATIVE = Range("a number >= 0", _is_not_negative)
FRACTION = Range("a number in [0, 1]", _is_fraction)
FINITE = Range("a finite number", _is_finite)
COUNT = Range("a whole number >= 1", _is_count)
WIDTHS = Range("a list of at most 100 whole numbers >= 1", _are_widths)
NAMES = Range("a list of NAME or NAME=VALUE", _are_names)
FILE_SOURCE = Range("FILE.py:NAME", _is_file_source)
RUN_FOLDER = Range("a run folder", is_text)


@dataclass(frozen=True)
class Between:
    """Numbers that a search may try, evenly on a logarithmic scale."""

    low: float
    high: float


@dataclass(frozen=True)
class OneOf:
    """Values that a search may try."""

    values: tuple[Any, ...]


Search: TypeAlias = Between | OneOf


def option(default: T, values: Range | None = None, search: Search | None = None) -> T:
    """A field with its default and the range of its values; None is always allowed where it is the
    default.

    An option of type `Number` can change over the budget of a run. `search` is what `logpi tune`
    tries, unless it is told otherwise.
    """
    field: Any = dataclasses.field(default=default, metadata={"range": values, "search": search})
    return field


def searched(options: type) -> dict[str, Search]:
    """What `logpi tune` tries of a method's options."""
    fields = dataclasses.fields(options)
    return {f.name: f.metadata["search"] for f in fields if f.metadata.get("search") is not None}


@dataclass(frozen=True, kw_only=True)
class Options:
    """The base of every group of options. A method is a class that joins groups and adds its own.

    **Raises:** `LogpiError` that names the option whose value is out of its range.
    """

    anneal: tuple[str, ...] = option((), NAMES)
    """Options that change linearly over the budget: NAME=VALUE for the last value, NAME for 0."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = as_python_value(getattr(self, field.name))
            if isinstance(value, list):
                value = tuple(value)
            object.__setattr__(self, field.name, value)
            _require_in_range(field, value)
        self._require_annealable()
        self._require_consistent()

    def _require_consistent(self) -> None:
        """Refuse values that do not go together. Methods that have such options say which.

        **Raises:** `LogpiError`.
        """

    def _require_annealable(self) -> None:
        """Refuse an option that cannot change, or a last value out of its range.

        Every value on the way is valid if the last one is, as ranges have no holes.
        """
        fields = {field.name: field for field in dataclasses.fields(self)}
        known = [name for name, field in fields.items() if self._can_change(field)]
        for text in self.anneal:
            name, end = last_value(text)
            expected = f"NAME or NAME=VALUE, NAME one of {', '.join(known)}"
            require(name in known, "anneal", expected, text)
            require(math.isfinite(end), "anneal", "NAME=VALUE with a finite value", text)
            reaches_zero = end == 0 and fields[name].metadata["range"] in (POSITIVE, LIMIT)
            if not reaches_zero:
                _require_in_range(fields[name], end)

    def _can_change(self, field: dataclasses.Field[Any]) -> bool:
        return field.type == Number and math.isfinite(getattr(self, field.name))


@runtime_checkable
class _Annealing(Protocol):
    @property
    def anneal(self) -> tuple[str, ...]: ...


Annealing = TypeVar("Annealing", bound=_Annealing)


def options_at(options: Annealing, progress: Number) -> Annealing:
    """The options at `progress`: x + (x_end - x) · progress for each that is annealed.

    `progress` goes from 0 at the start of a budget to 1 at its end. In a compiled program it is an
    array, and so are the options that change.
    """
    changed: dict[str, object] = {}
    for name, end in map(last_value, options.anneal):
        start = getattr(options, name)
        changed[name] = start + (end - start) * progress
    now = copy.copy(options)
    vars(now).update(changed)
    return now


def last_value(text: str) -> tuple[str, float]:
    """The name and the last value in NAME=VALUE, or in NAME for 0. Text of another form is all
    name.
    """
    name, _, value = text.partition("=")
    try:
        return name, float(value or 0)
    except ValueError:
        return text, 0.0


def _require_in_range(field: dataclasses.Field[Any], value: object) -> None:
    if value is None and field.default is None:
        return
    values: Range | None = field.metadata.get("range")
    if values is not None:
        require(values.contains(value), field.name, values.expected, value)
    elif field.type is bool:
        require(isinstance(value, bool), field.name, "true or false", value)
    elif get_origin(field.type) is Literal:
        words = get_args(field.type)
        require(value in words, field.name, " or ".join(words), value)
