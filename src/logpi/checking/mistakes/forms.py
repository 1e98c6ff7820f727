"""A factor of an estimator, with its right forms and its known mistakes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from logpi.checking.expectation import Moments

# An explanation is exact where what it leaves is rounding, of double and of single precision.
EXACT = 1e-6
SINGLE_EXACT = 1e-5

Function = TypeVar("Function", bound=Callable[..., object])


def rounding_of(moments: Sequence[Moments]) -> float:
    """What an explanation may leave, relative to what was found."""
    if any(each.single_precision for each in moments):
        return SINGLE_EXACT
    return EXACT


@dataclass(frozen=True, eq=False)
class Mistake:
    """A known mistake or a deliberate bias: what it is, and what to do about it.

    `vague` says what it is without its parameter, for where that cannot be told.
    """

    name: str
    explanation: str
    remedy: str
    vague: str = ""


@dataclass(frozen=True, eq=False)
class Form(Generic[Function]):
    """One form of a factor, how it is computed, and the mistakes in it: none in a right one.

    `needs` are names without which it cannot be what the estimator does. If `whole`, the weight is
    made of R(τ), which has its γ^t already. `goes_on` says whether it adds the value of the state
    in which the time limit cuts; None where its mistakes are about that.
    """

    mistakes: tuple[Mistake, ...]
    compute: Function
    needs: tuple[str, ...] = ()
    whole: bool = False
    goes_on: bool | None = False

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its mistakes."""
        return tuple(mistake.name for mistake in self.mistakes)


class Factor(Generic[Function]):
    """The forms of a factor, in the order in which they are tried."""

    def __init__(self) -> None:
        self._forms: list[Form[Function]] = []

    def __iter__(self) -> Iterator[Form[Function]]:
        return iter(self._forms)

    @property
    def first(self) -> Form[Function]:
        """The form that is tried first, a right one."""
        return self._forms[0]

    def right(
        self,
        needs: tuple[str, ...] = (),
        whole: bool = False,
        goes_on: bool | None = False,
    ) -> Callable[[Function], Function]:
        """Declare a right form: `@FACTOR.right()` above the function that computes it."""
        return self.form((), needs, whole, goes_on)

    def mistake(
        self,
        name: str,
        explanation: str,
        remedy: str,
        needs: tuple[str, ...] = (),
        whole: bool = False,
        goes_on: bool | None = False,
        vague: str = "",
    ) -> Callable[[Function], Function]:
        """Declare a known mistake or a deliberate bias above the function that computes it."""
        return self.form((Mistake(name, explanation, remedy, vague),), needs, whole, goes_on)

    def form(
        self,
        mistakes: tuple[Mistake, ...],
        needs: tuple[str, ...] = (),
        whole: bool = False,
        goes_on: bool | None = False,
    ) -> Callable[[Function], Function]:
        """Declare a form with these mistakes."""

        def declare(compute: Function) -> Function:
            self._forms.append(Form(mistakes, compute, needs, whole, goes_on))
            return compute

        return declare


@dataclass(frozen=True)
class Cause:
    """A known mistake, and how far its expected gradient is from the one found, relative to that
    one.

    No distance: it shows in something else than the expected gradient. `alone` is the relative bias
    that the mistake makes by itself, after the best factor, the median over the probes, where it is
    one of several. `is_alternative`: it explains as much in the place of what stands before it.
    `is_exact`: it explains all that was found, as far as rounding lets tell; else it is near.
    """

    name: str
    explanation: str
    remedy: str
    distance: float | None = None
    alone: float | None = None
    is_alternative: bool = False
    is_exact: bool = True

    def to_json(self) -> dict[str, object]:
        """The fields under their names."""
        return dict(vars(self))
