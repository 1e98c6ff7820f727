"""Which known mistakes explain what was found: their exact expected gradients against the
estimator's.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from logpi.checking.cases import Cases
from logpi.checking.fitting import Size, fit, left_of_each
from logpi.checking.measuring import Measurement
from logpi.checking.mistakes.advantages import ADVANTAGES
from logpi.checking.mistakes.aggregations import AGGREGATIONS, POWERS
from logpi.checking.mistakes.batches import Batches, Weight
from logpi.checking.mistakes.divergences import DIVERGENCES
from logpi.checking.mistakes.forms import EXACT, Cause, Form, Mistake, rounding_of
from logpi.checking.mistakes.groups import GROUPS
from logpi.checking.mistakes.ratios import RATIOS
from logpi.checking.mistakes.scores import SCORES
from logpi.checking.objectives import OF_GROUPS
from logpi.theory.exact import log_softmax

# What nearly explains leaves at most this share of the gradient, and of its deviation from the
# target.
NEAR = 0.05
NEAR_DEVIATION = 0.35
# Below this share of the target a gradient is taken for rounding.
ROUNDING = 1e-6
# Combinations whose gradients are held at once.
AT_ONCE = 500
# Advantages that people combine with importance ratios, aggregations and their own scores.
COMMON = {"whiten-batch", "own-sample-baseline", "group-of-one", "grpo-std", "gae-lambda"}
# No γ^t: nearly every library does so on purpose, so it explains at half the cost of another
# mistake.
NO_POWER = "gamma-t-missing"
# Targets whose rewards are not discounted.
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

    @property
    def cost(self) -> float:
        """How many mistakes it takes."""
        return sum(0.5 if mistake.name == NO_POWER else 1.0 for mistake in self.mistakes)


class Explanation(NamedTuple):
    """A combination, and how well its expected gradients are those that were found."""

    combination: Combination
    distance: float
    """What is left, relative to the gradient, where it is left most."""
    exact: bool
    """Whether what is left is rounding."""
    factors: Mapping[Size, float]
    """What it is to be multiplied by, for each size of a batch."""
    rounding: float
    """What counts as that, relative."""

    @property
    def unscaled(self) -> bool:
        """Whether no factor beside it is needed."""
        return all(abs(k - 1) < self.rounding for k in self.factors.values())

    @property
    def cost(self) -> float:
        """How many mistakes it takes; a factor that depends on the size of the batch is one."""
        least, most = min(self.factors.values()), max(self.factors.values())
        varies = most - least > self.rounding * abs(most)
        return self.combination.cost + varies

    @property
    def mistakes(self) -> tuple[Mistake, ...]:
        return self.combination.mistakes

    @property
    def names(self) -> frozenset[str]:
        """Those of its mistakes."""
        return frozenset(mistake.name for mistake in self.mistakes)

    @property
    def rank(self) -> tuple[bool, float, float, bool]:
        """Exact ones first, then near ones; among equals few mistakes, then no factor."""
        if self.exact:
            return False, 0.0, self.cost, not self.unscaled
        return True, round(self.distance, 3), self.cost, False


def diagnose(
    measurements: Sequence[Measurement], names: tuple[str, ...], target: str
) -> list[Cause]:
    """The mistakes of the combination that explains what was found with the fewest of them, and
    others that explain it as well; where none does, what is nearest.
    """
    combinations = list(_combinations({*names, *_known_beside(measurements)}, target))
    explanations = sorted(_explanations(measurements, combinations, target), key=lambda e: e.rank)
    if not explanations:
        return []
    first = explanations[0]
    if not first.exact:
        return _causes(first, explanations[:1], {})
    equals = [each for each in explanations if each.exact and each.cost <= first.cost]
    alone = {}
    if len(first.mistakes) > 1:
        alone = _alone(first, measurements, combinations, target)
    causes = _causes(first, equals, alone)
    told = {first.names}
    for other in equals:
        if other.names not in told and other.unscaled == first.unscaled:
            told.add(other.names)
            causes += [replace(cause, is_alternative=True) for cause in _causes(other, equals, {})]
    return causes


def _causes(
    explanation: Explanation, equals: Sequence[Explanation], alone: Mapping[str, float]
) -> list[Cause]:
    """A cause for each mistake, those that do most by themselves first. What cannot be told from
    others of the same name is said without its parameter.
    """
    alike = [each for each in equals if each.names == explanation.names]
    causes = []
    for mistake in explanation.mistakes:
        said = {
            other.explanation
            for each in alike
            for other in each.mistakes
            if other.name == mistake.name
        }
        words = mistake.explanation
        if len(said) > 1 and mistake.vague:
            words = mistake.vague
        cause = Cause(
            mistake.name,
            words,
            mistake.remedy,
            distance=explanation.distance,
            alone=alone.get(mistake.name),
            is_exact=explanation.exact,
        )
        causes.append(cause)
    return sorted(causes, key=lambda cause: -(cause.alone or 0.0))


def _alone(
    explanation: Explanation,
    measurements: Sequence[Measurement],
    combinations: Sequence[Combination],
    target: str,
) -> dict[str, float]:
    """What each of its mistakes leaves by itself of the target, after the best factor: the median
    over the situations in which it leaves something.
    """
    wanted = [m.targets[target] for m in measurements]
    sizes = [m.size for m in measurements]
    found: dict[str, float] = {}
    for mistake in explanation.mistakes:
        single = next((each for each in combinations if each.mistakes == (mistake,)), None)
        if single is not None:
            gradients = [_expected(measurement, [single])[0] for measurement in measurements]
            left = np.array(fit(gradients, wanted, sizes).left)
            seen = left[left > EXACT]
            found[mistake.name] = 0.0
            if len(seen):
                found[mistake.name] = float(np.median(seen))
    return found


def _explanations(
    measurements: Sequence[Measurement], combinations: list[Combination], target: str
) -> Iterator[Explanation]:
    """The combinations that leave little of the deviation from the target.

    Situations are looked at one after another, those that tell most apart first: what leaves too
    much in one of them is not looked at in the others.
    """
    found = [m.moments.mean for m in measurements]
    wanted = [m.targets[target] for m in measurements]
    sizes = [m.size for m in measurements]
    deviation = max(fit(found, wanted, sizes).left)
    floor = [ROUNDING * float(np.linalg.norm(gradient)) for gradient in wanted]
    most = min(NEAR, NEAR_DEVIATION * deviation)
    rounding = rounding_of([m.moments for m in measurements])
    expected: list[dict[int, ndarray]] = [{} for _ in measurements]
    left = list(range(len(combinations)))
    for place in sorted(range(len(measurements)), key=lambda i: _tells_little(measurements[i])):
        kept = []
        for first in range(0, len(left), AT_ONCE):
            some = left[first : first + AT_ONCE]
            gradients = _expected(measurements[place], [combinations[i] for i in some])
            alone = left_of_each(found[place], gradients, floor[place])
            for i in np.flatnonzero(alone <= 2 * most):  # False for NaN
                kept.append(some[i])
                expected[place][some[i]] = gradients[i]
        left = kept
    for number in left:
        fitted = fit(found, [gradients[number] for gradients in expected], sizes, floor)
        distance = float(np.max(fitted.left))
        if distance <= most:
            yield Explanation(
                combination=combinations[number],
                distance=distance,
                exact=distance < min(rounding, 1e-3 * deviation),
                factors=fitted.factors,
                rounding=rounding,
            )


def _tells_little(measurement: Measurement) -> tuple[bool, bool, bool, int]:
    """By how little a situation tells combinations apart: nothing is told by a gradient that
    vanishes, little by data of the policy itself and by single episodes. Small ones first.
    """
    probe = measurement.situation.probe
    numbers = sum(case.fields["mask"].size for case in measurement.cases)
    vanishes = measurement.moments.second == 0
    return vanishes, probe.behaviour is None, probe.episodes == 1, numbers


def _accepted(target: str) -> set[str]:
    """What is no mistake for this target."""
    accepted: set[str] = set()
    if target.startswith("conventional"):
        accepted.add(NO_POWER)
    if target in PLAIN:
        accepted |= {NO_POWER, "undiscounted-return"}
    return accepted


def _known_beside(measurements: Sequence[Measurement]) -> set[str]:
    """What an estimator may depend on without asking for it: how its batch is divided, and what an
    objective makes of the rewards.
    """
    return {"micro_batch", "plain_reward"} & measurements[0].cases[0].fields.keys()


def _combinations(asks: set[str], target: str) -> Iterator[Combination]:
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
    for each in _with_rewards(asks, target, discount):
        if each.mistakes:
            yield each
    if target in PLAIN and "discount" in asks:
        for each in _with_rewards(asks, target, None):
            if "undiscounted-return" not in each.advantage.names:
                yield each._replace(mistakes=(*each.mistakes, DISCOUNTED))


def _with_rewards(asks: set[str], target: str, discount: float | None) -> Iterator[Combination]:
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


def expected_divergences(measurement: Measurement) -> Float[ndarray, "form O A"]:
    """Of each known form of a KL to a reference, summed over the steps."""
    forms = [
        Combination(divergence, AGGREGATIONS.first, None, None, None, divergence.mistakes)
        for divergence in DIVERGENCES
    ]
    return _expected(measurement, forms)


def _expected(
    measurement: Measurement, combinations: Sequence[Combination]
) -> Float[ndarray, "estimator O A"]:
    """Σ_batch p(batch) Σ aggregation × γ^t × ratio × advantage × ∇ log π, of each combination."""
    probe = measurement.situation.probe
    rollout = measurement.situation.layout == "rollout"
    log_policy = log_softmax(probe.logits)
    total = np.zeros((len(combinations), *probe.logits.shape))
    for case in measurement.cases:
        taken = log_policy[case.observation, case.fields["action"]]
        by_discount = {
            discount: Batches(
                case.fields, probe.mdp.discount if discount is None else discount, taken, rollout
            )
            for discount in {each.discount for each in combinations}
        }
        with np.errstate(all="ignore"):
            total += _expected_of_one_shape(measurement, case, by_discount, combinations)
    return total


def _expected_of_one_shape(
    measurement: Measurement,
    case: Cases,
    by_discount: Mapping[float | None, Batches],
    combinations: Sequence[Combination],
) -> Float[ndarray, "estimator O A"]:
    @cache
    def part(form: AnyForm, discount: float | None) -> ndarray:
        return form.compute(by_discount[discount])

    @cache
    def rated(advantage: AnyForm, ratio: AnyForm | None, discount: float | None) -> ndarray:
        if ratio is None:
            return part(advantage, discount)
        return ratio.compute(by_discount[discount], part(advantage, discount))

    logits = measurement.situation.probe.logits
    batches = next(iter(by_discount.values()))
    share = _share(case, batches)
    gradients = np.empty((len(combinations), *logits.shape))
    for (aggregation, power, discount), numbers in _with_one_factor(combinations).items():
        factor = share * part(aggregation, discount)
        if power is not None:
            factor = factor * part(power, discount)
        weights = np.empty((len(numbers), *batches.mask.shape))
        for row, number in enumerate(numbers):
            each = combinations[number]
            weights[row] = rated(each.advantage, each.ratio, discount)
        gradients[numbers] = _by_scores(measurement, case, weights, factor)
        for number, weight in zip(numbers, weights, strict=True):
            score = combinations[number].score
            if score is not None and score.mistakes:
                own = by_discount[discount]
                by_logits = score.compute(own, logits[case.observation], factor * weight)
                gradients[number] = _onto_observations(case, by_logits, len(logits))
    return gradients


def _with_one_factor(
    combinations: Sequence[Combination],
) -> dict[tuple[AnyForm, AnyForm | None, float | None], list[int]]:
    """Those whose weights are multiplied by the same numbers, which are applied to all at once."""
    found: dict[tuple[AnyForm, AnyForm | None, float | None], list[int]] = defaultdict(list)
    for number, each in enumerate(combinations):
        found[each.aggregation, each.power, each.discount].append(number)
    return found


def _share(case: Cases, batches: Batches) -> Float[ndarray, "batch 1 1"]:
    """p(batch), divided by the episodes of a batch or by the rows of a rollout."""
    _, episodes, time = batches.mask.shape
    rows = episodes * time if batches.rollout else episodes
    return case.probability[:, None, None] / rows


def _by_scores(
    measurement: Measurement, case: Cases, weights: ndarray, factor: Weight
) -> Float[ndarray, "estimator O A"]:
    """Σ factor × weight × ∇ log π(a|o), which is 1[a] - π(·|o) in row o."""
    probe = measurement.situation.probe
    rows, actions = probe.logits.shape
    place = case.observation * actions + case.fields["action"]
    chosen = np.eye(rows * actions)[place.ravel()] * np.broadcast_to(factor, place.shape).reshape(
        -1, 1
    )
    tally = (weights.reshape(len(weights), -1) @ chosen).reshape(-1, rows, actions)
    return tally - probe.policy * tally.sum(axis=2, keepdims=True)


def _onto_observations(case: Cases, by_logits: ndarray, rows: int) -> Float[ndarray, "O A"]:
    """Σ over all batches of what falls on the logits of each observation."""
    seen = case.observation.ravel()
    columns = np.moveaxis(by_logits, -1, 0)
    return np.stack([np.bincount(seen, column.ravel(), rows) for column in columns], axis=1)
