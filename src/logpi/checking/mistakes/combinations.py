"""Which estimators there are: all combinations of the known parts, right and wrong, that a function
can be.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple, TypeAlias

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


class Combination(NamedTuple):
    """The factors of one estimator, and the mistakes in them, the most telling first."""

    advantage: AnyForm
    aggregation: AnyForm
    power: AnyForm | None
    ratio: AnyForm | None
    score: AnyForm | None
    mistakes: tuple[Mistake, ...]
    discount: float | None = None
    """γ where it is not the probe's."""
    penalty: Penalty | None = None
    """What is taken off for the KL to the reference, if anything is."""

    @property
    def cost(self) -> float:
        """How many mistakes it takes."""
        return sum(0.5 if mistake.name == NO_POWER else 1.0 for mistake in self.mistakes)

    def likeness(self, other: "Combination") -> int:
        """How many factors two combinations share; advantages of whole returns are of one kind."""
        shared = sum(mine is theirs for mine, theirs in zip(self[:5], other[:5], strict=True))
        return shared + (self.advantage.whole == other.advantage.whole)


def combinations_of(asks: set[str], target: str) -> Iterator[Combination]:
    """Estimators with few mistakes, of those that a function which asks for these names can be."""
    if "reference_log_prob" in asks and "reward" not in asks:
        aggregations = [each for each in AGGREGATIONS if set(each.needs) <= asks]
        for divergence, aggregation in product(DIVERGENCES, aggregations):
            mistakes = (*divergence.mistakes, *aggregation.mistakes)
            yield Combination(divergence, aggregation, None, None, None, mistakes)
        return
    discount = None
    if target in PLAIN:
        discount = 1.0
    for each in with_rewards(asks, target, discount):
        if each.mistakes:
            yield each
    if target in PLAIN and "discount" in asks:
        for each in with_rewards(asks, target, None):
            if "undiscounted-return" not in each.advantage.names:
                yield each._replace(mistakes=(*each.mistakes, DISCOUNTED))
    if target in WITH_DISCOUNT and "discount" not in asks:
        for each in with_rewards(asks, target, 1.0):
            if "undiscounted-return" not in each.advantage.names:
                yield each._replace(mistakes=(*each.mistakes, UNDISCOUNTED))


def with_rewards(asks: set[str], target: str, discount: float | None) -> Iterator[Combination]:
    """Those whose weights are made of rewards, with this γ; right ones too."""
    accepted = _accepted(target)
    goes_on = "continuing" in target
    ratios = [RATIOS.first]
    if asks & {"old_log_prob", "sampling_log_prob"}:
        ratios = [each for each in RATIOS if set(each.needs) <= asks]
    scores = [SCORES.first]
    if asks & {"logits", "policy"}:
        scores = list(SCORES)
    powers = list(POWERS)
    if discount == 1.0:
        powers = [POWERS.first]
    aggregations = [each for each in AGGREGATIONS if set(each.needs) <= asks]
    without = [power for power in POWERS if NO_POWER in power.names]
    for advantage in (*ADVANTAGES, *GROUPS):
        if not set(advantage.needs) <= asks:
            continue
        own = _mistakes_of(advantage, accepted)
        is_usual = all(mistake.name in COMMON for mistake in own)
        own += _of_truncation(advantage, goes_on)
        for ratio, aggregation, score in product(ratios, aggregations, scores):
            beside = (ratio.mistakes, score.mistakes, aggregation.mistakes)
            count = sum(map(bool, beside))
            if not is_usual and (count > 1 or ratio.mistakes or score.mistakes):
                continue
            if ratio.mistakes and score.mistakes:
                continue
            mistakes = (*score.mistakes, *own, *ratio.mistakes, *aggregation.mistakes)
            possible = powers
            if advantage.whole:  # R(τ) has its power of γ already: another would be the mistake
                possible = without
            for power in possible:
                wrong: tuple[Mistake, ...] = ()
                if not advantage.whole:
                    wrong = _mistakes_of(power, accepted)
                is_rare = bool(wrong) and NO_POWER not in power.names
                if not (is_rare and mistakes):
                    yield Combination(
                        advantage, aggregation, power, ratio, score, (*mistakes, *wrong), discount
                    )


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


def with_penalty(combination: Combination, penalty: Penalty | None) -> Combination:
    """The same beside what is taken off."""
    if penalty is None:
        return combination
    mistakes = (*combination.mistakes, *penalty.mistakes)
    return combination._replace(mistakes=mistakes, penalty=penalty)
