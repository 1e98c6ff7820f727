"""Which estimators there are: all combinations of the known parts, right and wrong, that a function
can be.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple, TypeAlias

from jaxtyping import Int
from numpy import ndarray

from logpi.checking.mistakes.advantages import ADVANTAGES
from logpi.checking.mistakes.aggregations import AGGREGATIONS, POWERS
from logpi.checking.mistakes.divergences import DIVERGENCES, PENALTIES, Penalty
from logpi.checking.mistakes.forms import Form, Mistake
from logpi.checking.mistakes.groups import GROUPS
from logpi.checking.mistakes.ratios import RATIOS
from logpi.checking.mistakes.scores import SCORES
from logpi.checking.objectives import OF_GROUPS
from logpi.checking.targets import REGULARISED

# Advantages that people combine with importance ratios, aggregations and their own scores.
COMMON = {"whiten-batch", "own-sample-baseline", "group-of-one", "grpo-std", "gae-lambda"}
# No γ^t: nearly every library does so on purpose, so it explains at half the cost of another
# mistake.
NO_POWER = "gamma-t-missing"
# Targets whose rewards are discounted, and whose rewards are not.
WITH_DISCOUNT = ("discounted", "conventional", "continuing", "conventional-continuing")
PLAIN = ("undiscounted", *OF_GROUPS, "objective")
TERMINATION = Mistake(
    "trunc-as-terminal",
    "where the time limit cuts, the episode is taken to have terminated: nothing is added for what"
    " would come after",
    "use terminated, not done, where the next value is added",
)
BOOTSTRAPPED = Mistake(
    "trunc-bootstrapped",
    "a value is added where the time limit cuts, which is right for the task that goes on",
    "choose --target continuing, or leave it out",
)
DISCOUNTED = Mistake(
    "discounted-return",
    "rewards are discounted, while the target is their plain sum",
    "leave γ out, or check against --target discounted",
)
UNDISCOUNTED = Mistake(
    "undiscounted-return",
    "the plain sum of rewards is maximised, while the target discounts them",
    "discount them, or check against --target undiscounted",
)
KL_AHEAD = Mistake(
    "kl-of-later-states",
    "the KL is paid as a reward: an action answers for the KL of the states that it leads to",
    "take the KL of each step into the loss, or check against --target regularised",
)

AnyForm: TypeAlias = Form[Callable[..., Any]]


class Beside(NamedTuple):
    """What every weight is multiplied by, and the mistakes in it."""

    aggregation: AnyForm
    power: AnyForm | None
    mistakes: tuple[Mistake, ...]


class Family(NamedTuple):
    """Estimators of one advantage: with each of these ratios, and each of these factors beside it.

    `own` are the mistakes in the advantage, `about_discount` those in its γ.
    """

    advantage: AnyForm
    own: tuple[Mistake, ...]
    ratios: tuple[AnyForm | None, ...]
    besides: tuple[Beside, ...]
    score: AnyForm | None = None
    discount: float | None = None
    """γ where it is not the probe's."""
    about_discount: tuple[Mistake, ...] = ()

    @property
    def shared(self) -> tuple[Mistake, ...]:
        """Mistakes that all of its estimators have."""
        return (*_mistakes_in(self.score), *self.own, *self.about_discount)

    def some(self, rows: Int[ndarray, " row"], columns: Int[ndarray, " column"]) -> "Family":
        """With these ratios and these factors."""
        return self._replace(
            ratios=tuple(self.ratios[row] for row in rows),
            besides=tuple(self.besides[column] for column in columns),
        )

    def members(self, most: int) -> Iterator["Combination"]:
        """The estimators with at most so many mistakes."""
        for ratio in self.ratios:
            left = most - len(self.shared) - len(_mistakes_in(ratio))
            for beside in self.besides:
                if len(beside.mistakes) <= left:
                    yield Combination(self, ratio, beside)


class Combination(NamedTuple):
    """The factors of one estimator."""

    family: Family
    ratio: AnyForm | None
    beside: Beside
    penalty: Penalty | None = None
    """What is taken off for the KL to the reference, if anything is."""

    @property
    def mistakes(self) -> tuple[Mistake, ...]:
        """All that are in it, the most telling first."""
        taken_off: tuple[Mistake, ...] = ()
        if self.penalty is not None:
            taken_off = self.penalty.mistakes
        return (
            *_mistakes_in(self.family.score),
            *self.family.own,
            *_mistakes_in(self.ratio),
            *self.beside.mistakes,
            *self.family.about_discount,
            *taken_off,
        )

    @property
    def cost(self) -> float:
        """How many mistakes it takes."""
        return sum(0.5 if mistake.name == NO_POWER else 1.0 for mistake in self.mistakes)

    @property
    def alone(self) -> Family:
        """The family that it is the only one of."""
        return self.family._replace(ratios=(self.ratio,), besides=(self.beside,))

    def likeness(self, other: "Combination") -> int:
        """How many factors two combinations share; advantages of whole returns are of one kind."""
        shared = sum(
            mine is theirs for mine, theirs in zip(self._factors, other._factors, strict=True)
        )
        return shared + (self.family.advantage.whole == other.family.advantage.whole)

    @property
    def _factors(self) -> tuple[AnyForm | None, ...]:
        return (
            self.family.advantage,
            self.beside.aggregation,
            self.beside.power,
            self.ratio,
            self.family.score,
        )


def families_of(asks: set[str], target: str) -> Iterator[Family]:
    """Estimators with few mistakes, of those that a function which asks for these names can be."""
    if "reference_log_prob" in asks and "reward" not in asks:
        besides = tuple(
            Beside(aggregation, None, aggregation.mistakes)
            for aggregation in _possible(AGGREGATIONS, asks)
        )
        for divergence in DIVERGENCES:
            yield Family(divergence, divergence.mistakes, (None,), besides)
        return
    discount = None
    if target in PLAIN:
        discount = 1.0
    yield from with_rewards(asks, target, discount)
    if target in PLAIN and "discount" in asks:
        yield from _with_other_discount(asks, target, None, DISCOUNTED)
    if target in WITH_DISCOUNT and "discount" not in asks:
        yield from _with_other_discount(asks, target, 1.0, UNDISCOUNTED)


def _with_other_discount(
    asks: set[str], target: str, discount: float | None, mistake: Mistake
) -> Iterator[Family]:
    """Those whose rewards are discounted otherwise than those of the target."""
    for each in with_rewards(asks, target, discount):
        if "undiscounted-return" not in each.advantage.names:
            yield each._replace(about_discount=(mistake,))


def with_rewards(asks: set[str], target: str, discount: float | None) -> Iterator[Family]:
    """Those whose weights are made of rewards, with this γ; right ones too.

    What few people do is combined with few other mistakes: an advantage with those of the
    aggregation alone, another score with all but those of the ratio, a power of γ with none.
    """
    accepted = _accepted(target)
    goes_on = "continuing" in target
    ratios = (RATIOS.first,)
    if asks & {"old_log_prob", "sampling_log_prob"}:
        ratios = _possible(RATIOS, asks)
    scores = (SCORES.first,)
    if asks & {"logits", "policy"}:
        scores = tuple(SCORES)
    powers = tuple(POWERS)
    if discount == 1.0:
        powers = (POWERS.first,)
    right_ratios = _right(ratios)
    aggregations = _possible(AGGREGATIONS, asks)
    usual_powers = [power for power in powers if {*power.names} <= {NO_POWER}]
    rare_powers = [power for power in powers if power not in usual_powers]
    usual_besides = _besides(aggregations, usual_powers, accepted)
    rare_besides = _besides(_right(aggregations), rare_powers, accepted)
    # R(τ) has its power of γ already: another would be the mistake
    without = [power for power in POWERS if NO_POWER in power.names]
    whole_besides = _besides(aggregations, without, {NO_POWER})
    for advantage in _possible((*ADVANTAGES, *GROUPS), asks):
        own = _mistakes_of(advantage, accepted)
        is_common = all(mistake.name in COMMON for mistake in own)
        own += _of_truncation(advantage, goes_on)
        besides = usual_besides
        if advantage.whole:
            besides = whole_besides
        for score in scores:
            possible = right_ratios
            if is_common and not score.mistakes:
                possible = ratios
            if is_common or not score.mistakes:
                yield Family(advantage, own, possible, besides, score, discount)
            if rare_besides and not (advantage.whole or own or score.mistakes):
                yield Family(advantage, own, right_ratios, rare_besides, score, discount)


def _possible(forms: Iterable[AnyForm], asks: set[str]) -> tuple[AnyForm, ...]:
    """Those that can be computed from what is asked for."""
    return tuple(form for form in forms if set(form.needs) <= asks)


def _right(forms: Iterable[AnyForm]) -> tuple[AnyForm, ...]:
    """Those without a mistake."""
    return tuple(form for form in forms if not form.mistakes)


def _besides(
    aggregations: Iterable[AnyForm], powers: Iterable[AnyForm], accepted: set[str]
) -> tuple[Beside, ...]:
    """Every aggregation with every power of γ."""
    return tuple(
        Beside(aggregation, power, (*aggregation.mistakes, *_mistakes_of(power, accepted)))
        for aggregation, power in product(aggregations, powers)
    )


def _mistakes_in(form: AnyForm | None) -> tuple[Mistake, ...]:
    """Those of a factor that is not always there."""
    if form is None:
        return ()
    return form.mistakes


def _mistakes_of(form: AnyForm, accepted: set[str]) -> tuple[Mistake, ...]:
    return tuple(mistake for mistake in form.mistakes if mistake.name not in accepted)


def _of_truncation(advantage: AnyForm, goes_on: bool) -> tuple[Mistake, ...]:
    """What is wrong in how an advantage takes the time limit; `goes_on`: in the target the task
    goes on after it.
    """
    if advantage.goes_on is None or advantage.goes_on == goes_on:
        return ()
    if goes_on:
        return (TERMINATION,)
    return (BOOTSTRAPPED,)


def _accepted(target: str) -> set[str]:
    """What is no mistake for this target."""
    accepted: set[str] = set()
    if target.startswith("conventional"):
        accepted.add(NO_POWER)
    if target in PLAIN:
        accepted |= {NO_POWER, "undiscounted-return"}
    return accepted


def penalties_of(asks: set[str], target: str, beta: float) -> Iterator[Penalty]:
    """How the KL to the reference may be taken off, with the mistakes in it for this target."""
    is_per_step = target == REGULARISED["reverse-kl-per-step"]
    for penalty in PENALTIES:
        mistakes = penalty.mistakes
        if is_per_step and penalty.is_per_step:
            mistakes = ()
        if is_per_step and penalty.of_rewards and not mistakes:
            mistakes = (KL_AHEAD,)
        if set(penalty.needs) <= asks:
            yield replace(penalty, mistakes=mistakes, beta=beta)
