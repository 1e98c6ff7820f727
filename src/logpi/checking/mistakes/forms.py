"""A factor of an estimator, with its right forms and its known mistakes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Function = TypeVar("Function", bound=Callable[..., object])


@dataclass(frozen=True, eq=False)
class Form(Generic[Function]):
    """One form of a factor: what it is, what to do about it, and how it is computed.

    `needs` are names without which it cannot be what the estimator does. If `whole`, the weight is
    made of R(τ), which has its γ^t already.
    """

    name: str
    explanation: str
    remedy: str
    compute: Function
    needs: tuple[str, ...] = ()
    whole: bool = False

    @property
    def is_mistake(self) -> bool:
        """Whether there is something to do about it."""
        return self.remedy != ""


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
        self, explanation: str, needs: tuple[str, ...] = (), whole: bool = False
    ) -> Callable[[Function], Function]:
        """Declare a right form: `@FACTOR.right("R_t")` above the function that computes it."""
        return self.mistake("correct", explanation, "", needs, whole)

    def mistake(
        self,
        name: str,
        explanation: str,
        remedy: str,
        needs: tuple[str, ...] = (),
        whole: bool = False,
    ) -> Callable[[Function], Function]:
        """Declare a known mistake or a deliberate bias above the function that computes it."""

        def declare(compute: Function) -> Function:
            self._forms.append(Form(name, explanation, remedy, compute, needs, whole))
            return compute

        return declare


@dataclass(frozen=True)
class Cause:
    """A known mistake, and how far its expected gradient is from the one found, relative to that
    one.

    No distance: it shows in something else than the expected gradient.
    """

    name: str
    explanation: str
    remedy: str
    distance: float | None = None

    def to_json(self) -> dict[str, object]:
        """By these names."""
        return dict(vars(self))
