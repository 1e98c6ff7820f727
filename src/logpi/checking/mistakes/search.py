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
from logpi.checking.mistakes.divergences import DIVERGENCES, PENALTIES, Penalty
from logpi.checking.mistakes.forms import EXACT, Cause, Form, Mistake, rounding_of
from logpi.checking.mistakes.groups import GROUPS
from logpi.checking.mistakes.ratios import RATIOS
from logpi.checking.mistakes.scores import SCORES
from logpi.checking.objectives import OF_GROUPS
from logpi.checking.targets import REGULARISED
from logpi.checking.verdict import tolerance_of
from logpi.theory.exact import log_softmax

# What nearly explains leaves at most this share of the gradient, and of its deviation from the
# target.
NEAR = 0.05
NEAR_DEVIATION = 0.35
# Below this share of the target a gradient is taken for rounding.
ROUNDING = 1e-6
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
    measurements: Sequence[Measurement], names: tuple[str, ...], target: str, beta: float
) -> list[Cause]:
    """The mistakes of the combination that explains what was found with the fewest of them, and
    others that explain it as well; where none does, what is nearest. `beta` is what the KL of a
    regularised target is multiplied by.
    """
    asks = {*names, *_known_beside(measurements)}
    penalties: list[Penalty | None] = [None]
    if target in REGULARISED.values() and "reward" in asks:
        combinations = list(_with_rewards(asks, "undiscounted", 1.0))
        penalties = list(_penalties(asks, target, beta))
    else:
        combinations = list(_combinations(asks, target))
    found = _explanations(measurements, combinations, penalties, target)
    explanations = sorted(found, key=lambda each: each.rank)
    if not explanations:
        return []
    first = explanations[0]
    if not first.exact:
        return _causes(first, explanations[:1], {})
    equals = [each for each in explanations if each.exact and each.cost <= first.cost]
    alone = {}
    if len(first.mistakes) > 1:
        alone = _alone(first, measurements, combinations, penalties, target)
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
    penalties: Sequence[Penalty | None],
    target: str,
) -> dict[str, float]:
    """What each of its mistakes leaves by itself of the target, after the best factor: the median
    over the situations in which it leaves something.
    """
    wanted = [m.targets[target] for m in measurements]
    sizes = [m.size for m in measurements]
    simple = [each for each in combinations if len(each.mistakes) <= 1]
    found: dict[str, float] = {}
    for mistake in explanation.mistakes:
        pairs = product(simple, penalties)
        composed = (_with_penalty(each, penalty) for each, penalty in pairs)
        single = next((each for each in composed if each.mistakes == (mistake,)), None)
        if single is not None:
            gradients = [_expected(each, [single], single.penalty)[0] for each in measurements]
            left = np.array(fit(gradients, wanted, sizes).left)
            seen = left[left > EXACT]
            found[mistake.name] = 0.0
            if len(seen):
                found[mistake.name] = float(np.median(seen))
    return found


def _explanations(
    measurements: Sequence[Measurement],
    combinations: list[Combination],
    penalties: Sequence[Penalty | None],
    target: str,
) -> list[Explanation]:
    """The combinations that leave rounding; where none does, those that leave little of the
    gradient and of its deviation from the target.
    """
    if not combinations:
        return []
    measurements = sorted(measurements, key=_tells_little)
    found = [m.moments.mean for m in measurements]
    wanted = [m.targets[target] for m in measurements]
    sizes = [m.size for m in measurements]
    deviation = max(fit(found, wanted, sizes).left)
    floor = [ROUNDING * float(np.linalg.norm(gradient)) for gradient in wanted]
    rounding = rounding_of([m.moments for m in measurements])
    is_single = any(m.moments.single_precision for m in measurements)
    if deviation < tolerance_of(is_single):
        return []  # it is the target but for a factor
    exact = min(rounding, 1e-3 * deviation)
    near = min(NEAR, NEAR_DEVIATION * deviation)

    @cache
    def of_first(paid: Penalty | None) -> Float[ndarray, "combination O A"]:
        return _of_weights(measurements[0], combinations, paid)

    for most in (exact, near):
        explanations = []
        for penalty in penalties:
            gradients = of_first(_paid(penalty)) - _off(measurements[0], combinations, penalty)
            close = _close(measurements, combinations, penalty, gradients, floor, most)
            for number, expected in close:
                combination = _with_penalty(combinations[number], penalty)
                fitted = fit(found, expected, sizes, floor)
                distance = float(np.max(fitted.left))
                if combination.mistakes and distance <= most:
                    explanations.append(
                        Explanation(
                            combination, distance, distance < exact, fitted.factors, rounding
                        )
                    )
        if explanations:
            return explanations
    return []


def _close(
    measurements: Sequence[Measurement],
    combinations: Sequence[Combination],
    penalty: Penalty | None,
    of_first: Float[ndarray, "combination O A"],
    floor: Sequence[float],
    most: float,
) -> Iterator[tuple[int, list[ndarray]]]:
    """The combinations that with this penalty leave at most twice `most` in each situation: their
    numbers, and their expected gradients in all of them.

    Situations are looked at one after another: what leaves too much in one of them is not looked at
    in the next.
    """
    left = list(range(len(combinations)))
    expected: list[ndarray] = []
    for measurement, smallest in zip(measurements, floor, strict=True):
        if expected:
            some = [combinations[number] for number in left]
            gradients = _expected(measurement, some, penalty)
        else:
            gradients = of_first
        alone = left_of_each(measurement.moments.mean, gradients, smallest)
        kept = np.flatnonzero(alone <= 2 * most)  # False for NaN
        left = [left[i] for i in kept]
        if not left:
            return
        expected = [each[kept] for each in (*expected, gradients)]
    for row, number in enumerate(left):
        yield number, [each[row] for each in expected]


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
    if target in WITH_DISCOUNT and "discount" not in asks:
        for each in _with_rewards(asks, target, 1.0):
            if "undiscounted-return" not in each.advantage.names:
                yield each._replace(mistakes=(*each.mistakes, UNDISCOUNTED))


def _penalties(asks: set[str], target: str, beta: float) -> Iterator[Penalty]:
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


def _with_penalty(combination: Combination, penalty: Penalty | None) -> Combination:
    """The same beside what is taken off."""
    if penalty is None:
        return combination
    mistakes = (*combination.mistakes, *penalty.mistakes)
    return combination._replace(mistakes=mistakes, penalty=penalty)


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
    return _of_weights(measurement, forms, None)


def _expected(
    measurement: Measurement, combinations: Sequence[Combination], penalty: Penalty | None
) -> Float[ndarray, "estimator O A"]:
    """Σ_batch p(batch) Σ aggregation × γ^t × (ratio × advantage - penalty) × ∇ log π, of each
    combination; a penalty may be a part of the rewards instead.
    """
    of_weights = _of_weights(measurement, combinations, _paid(penalty))
    return of_weights - _off(measurement, combinations, penalty)


def _paid(penalty: Penalty | None) -> Penalty | None:
    """What is taken off the rewards."""
    if penalty is not None and penalty.of_rewards:
        return penalty
    return None


def _off(
    measurement: Measurement, combinations: Sequence[Combination], penalty: Penalty | None
) -> Float[ndarray, "#estimator O A"]:
    """Σ_batch p(batch) Σ aggregation × γ^t × penalty × ∇ log π, where it is off the weights."""
    probe = measurement.situation.probe
    if penalty is None or penalty.of_rewards:
        return np.zeros((1, *probe.logits.shape))
    log_policy = log_softmax(probe.logits)
    total = np.zeros((len(combinations), *probe.logits.shape))
    for case in measurement.cases:
        taken = log_policy[case.observation, case.fields["action"]]
        batches = Batches(case.fields, 1.0, taken, rollout=False)
        factors = _factors(case, batches, combinations)
        scores = _scores(measurement, case, list(factors.values()))
        of_factor = np.tensordot(penalty.taken_off(batches), scores, axes=3)
        column_of = {beside: column for column, beside in enumerate(factors)}
        total += of_factor[[column_of[each.aggregation, each.power] for each in combinations]]
    return total


def _of_weights(
    measurement: Measurement, combinations: Sequence[Combination], paid: Penalty | None
) -> Float[ndarray, "estimator O A"]:
    """Σ_batch p(batch) Σ aggregation × γ^t × ratio × advantage × ∇ log π, of each combination, with
    `paid` off the rewards.
    """
    probe = measurement.situation.probe
    rollout = measurement.situation.layout == "rollout"
    log_policy = log_softmax(probe.logits)
    alike: dict[float, list[int]] = defaultdict(list)
    for number, each in enumerate(combinations):
        discount = probe.mdp.discount if each.discount is None else each.discount
        alike[discount].append(number)
    total = np.zeros((len(combinations), *probe.logits.shape))
    for case, (discount, numbers) in product(measurement.cases, alike.items()):
        taken = log_policy[case.observation, case.fields["action"]]
        batches = Batches(case.fields, discount, taken, rollout)
        if paid is not None:
            reward = batches.reward - paid.taken_off(batches)
            batches = Batches(case.fields | {"reward": reward}, discount, taken, rollout)
        some = [combinations[number] for number in numbers]
        with np.errstate(all="ignore"):
            total[numbers] += _expected_of_one_shape(measurement, case, batches, some)
    return total


def _expected_of_one_shape(
    measurement: Measurement, case: Cases, batches: Batches, combinations: Sequence[Combination]
) -> Float[ndarray, "estimator O A"]:
    """All factors beside one advantage are applied to it at once, as one matrix product."""
    logits = measurement.situation.probe.logits
    with_advantage: dict[AnyForm, list[int]] = defaultdict(list)
    for number, each in enumerate(combinations):
        with_advantage[each.advantage].append(number)
    factors = _factors(case, batches, combinations)
    scores = _scores(measurement, case, list(factors.values()))
    column_of = {beside: column for column, beside in enumerate(factors)}
    gradients = np.empty((len(combinations), *logits.shape))
    for advantage, numbers in with_advantage.items():
        some = [combinations[number] for number in numbers]
        row_of = {ratio: row for row, ratio in enumerate(dict.fromkeys(e.ratio for e in some))}
        weights = _rated(advantage, list(row_of), batches)
        summed = np.tensordot(weights, scores, axes=3)
        rows = [row_of[each.ratio] for each in some]
        columns = [column_of[each.aggregation, each.power] for each in some]
        gradients[numbers] = summed[rows, columns]
        for number, each in zip(numbers, some, strict=True):
            if each.score is not None and each.score.mistakes:
                weight = factors[each.aggregation, each.power] * weights[row_of[each.ratio]]
                by_logits = each.score.compute(batches, logits[case.observation], weight)
                gradients[number] = _onto_observations(case, by_logits, len(logits))
    return gradients


def _rated(
    advantage: AnyForm, ratios: Sequence[AnyForm | None], batches: Batches
) -> Float[ndarray, "ratio batch episode time"]:
    """Ratio × advantage, by each of the ratios."""
    weight = advantage.compute(batches)
    rated = np.empty((len(ratios), *batches.mask.shape))
    for row, ratio in enumerate(ratios):
        if ratio is None:
            rated[row] = weight
        else:
            rated[row] = ratio.compute(batches, weight)
    return rated


def _factors(
    case: Cases, batches: Batches, combinations: Sequence[Combination]
) -> dict[tuple[AnyForm, AnyForm | None], Weight]:
    """p(batch) × aggregation × γ^t for each pair that occurs, divided by the episodes of a batch or
    by the rows of a rollout.
    """
    _, episodes, time = batches.mask.shape
    rows = episodes * time if batches.rollout else episodes
    share = case.probability[:, None, None] / rows
    factors: dict[tuple[AnyForm, AnyForm | None], Weight] = {}
    for aggregation, power in dict.fromkeys(
        (each.aggregation, each.power) for each in combinations
    ):
        factor = share * aggregation.compute(batches)
        if power is not None:
            factor = factor * power.compute(batches)
        factors[aggregation, power] = factor
    return factors


def _scores(
    measurement: Measurement, case: Cases, factors: Sequence[Weight]
) -> Float[ndarray, "batch episode time factor O A"]:
    """Factor × ∇ log π(a|o) of each step, which is 1[a] - π(·|o) in row o."""
    probe = measurement.situation.probe
    rows, actions = probe.logits.shape
    score = np.zeros((*case.observation.shape, rows, actions))
    taken = np.eye(actions)[case.fields["action"]]
    np.put_along_axis(
        score,
        case.observation[..., None, None],
        (taken - probe.policy[case.observation])[..., None, :],
        axis=-2,
    )
    stacked = np.stack([np.broadcast_to(each, score.shape[:3]) for each in factors], axis=-1)
    return stacked[..., None, None] * score[..., None, :, :]


def _onto_observations(case: Cases, by_logits: ndarray, rows: int) -> Float[ndarray, "O A"]:
    """Σ over all batches of what falls on the logits of each observation."""
    seen = case.observation.ravel()
    columns = np.moveaxis(by_logits, -1, 0)
    return np.stack([np.bincount(seen, column.ravel(), rows) for column in columns], axis=1)
