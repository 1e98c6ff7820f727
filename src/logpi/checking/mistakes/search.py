"""Which known mistakes explain what was found: their exact expected gradients against the
estimator's.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import product
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from logpi.checking.cases import Cases
from logpi.checking.fitting import fit
from logpi.checking.measuring import Measurement
from logpi.checking.mistakes.advantages import ADVANTAGES
from logpi.checking.mistakes.aggregations import AGGREGATIONS, POWERS
from logpi.checking.mistakes.batches import Batches
from logpi.checking.mistakes.divergences import DIVERGENCES
from logpi.checking.mistakes.forms import Cause, Form
from logpi.checking.mistakes.ratios import RATIOS
from logpi.checking.mistakes.scores import SCORES
from logpi.theory.exact import log_softmax

# An explanation is exact where what it leaves is rounding.
EXACT = 1e-7
# It explains where it leaves at most this share of the deviation from the target.
EXPLAINS = 0.35
# Below this share of the target a gradient is taken for rounding.
ROUNDING = 1e-6
# Advantages that people combine with importance ratios and with their own scores.
COMMON = ("whiten-batch", "own-sample-baseline", "grpo-std", "gae-lambda")
# No γ^t: nearly every library does so on purpose, so it explains at half the cost of another
# mistake.
NO_POWER = "gamma-t-missing"

AnyForm: TypeAlias = Form[Callable[..., Any]]


class Combination(NamedTuple):
    """The factors of one estimator, and those of them that are mistakes, the most telling first."""

    advantage: AnyForm
    aggregation: AnyForm
    power: AnyForm | None
    ratio: AnyForm | None
    score: AnyForm | None
    mistakes: tuple[AnyForm, ...]


class Explanation(NamedTuple):
    """A combination, and how well its expected gradients are those that were found."""

    exact: bool
    """Whether what is left is rounding."""
    distance: float
    """What is left, relative to the gradient, where it is left most."""
    unscaled: bool
    """Whether no factor beside it is needed."""
    mistakes: tuple[AnyForm, ...]

    @property
    def cost(self) -> float:
        """How many mistakes it takes."""
        return sum(0.5 if form.name == NO_POWER else 1.0 for form in self.mistakes)

    @property
    def rank(self) -> tuple[bool, float, float, bool]:
        """Exact ones first, then near ones; among equals few mistakes, then no factor."""
        if self.exact:
            return False, 0.0, self.cost, not self.unscaled
        return True, round(self.distance, 3), self.cost, False


def diagnose(
    measurements: Sequence[Measurement], names: tuple[str, ...], target: str, most: int = 5
) -> list[Cause]:
    """Combinations of known mistakes, those that explain most with fewest mistakes first."""
    explanations = sorted(_explanations(measurements, names, target), key=lambda e: e.rank)
    if explanations and explanations[0].exact:
        least = explanations[0].cost
        explanations = [e for e in explanations if e.exact and e.cost <= least]
    causes: dict[str, Cause] = {}
    for explanation in explanations:
        for form in explanation.mistakes:
            cause = Cause(form.name, form.explanation, form.remedy, explanation.distance)
            causes.setdefault(form.name, cause)
    return list(causes.values())[:most]


def _explanations(
    measurements: Sequence[Measurement], names: tuple[str, ...], target: str
) -> Iterator[Explanation]:
    """The combinations that leave little of the deviation from the target."""
    found = [m.moments.mean for m in measurements]
    wanted = [m.targets[target] for m in measurements]
    sizes = [m.size for m in measurements]
    deviation = max(fit(found, wanted, sizes).left)
    floor = [ROUNDING * float(np.linalg.norm(gradient)) for gradient in wanted]
    combinations = list(_combinations(names, _accepted(target)))
    expected = [_expected(measurement, combinations) for measurement in measurements]
    for number, combination in enumerate(combinations):
        fitted = fit(found, [gradients[number] for gradients in expected], sizes, floor)
        distance = float(np.max(fitted.left))  # NaN where an entry is not defined, unlike max
        if np.isfinite(distance) and distance <= EXPLAINS * deviation:
            yield Explanation(
                exact=distance < min(EXACT, 1e-3 * deviation),
                distance=distance,
                unscaled=all(abs(k - 1) < EXACT for k in fitted.factors.values()),
                mistakes=combination.mistakes,
            )


def _accepted(target: str) -> set[str]:
    """What is no mistake for this target."""
    accepted: set[str] = set()
    if target.startswith("conventional") or target == "undiscounted":
        accepted.add(NO_POWER)
    if "continuing" in target:
        accepted.add("trunc-bootstrapped")
    if target == "undiscounted":
        accepted.add("undiscounted-return")
    return accepted


def _combinations(names: tuple[str, ...], accepted: set[str]) -> Iterator[Combination]:
    """Estimators with few mistakes, of those that a function which asks for `names` can be."""
    asks = set(names)
    if "reference_log_prob" in asks and "reward" not in asks:
        for divergence, aggregation in product(DIVERGENCES, AGGREGATIONS):
            mistakes = (divergence, *_mistakes_of((aggregation,), set()))
            yield Combination(divergence, aggregation, None, None, None, mistakes)
        return
    ratios = list(RATIOS) if "old_log_prob" in asks else [RATIOS.first]
    if asks & {"logits", "policy"}:
        scores = list(SCORES)
    else:
        scores = [SCORES.first]
    for advantage, ratio, aggregation, score in product(ADVANTAGES, ratios, AGGREGATIONS, scores):
        if not set(advantage.needs) <= asks:
            continue
        mistakes = _mistakes_of((score, advantage, ratio, aggregation), accepted)
        unusual = advantage.is_mistake and advantage.name not in COMMON
        if len(mistakes) > 2 or (unusual and (ratio.is_mistake or score.is_mistake)):
            continue
        for power in _powers_of(advantage):
            # R(τ) has its power of γ already: another would be the mistake
            if advantage.whole:
                wrong = ()
            else:
                wrong = _mistakes_of((power,), accepted)
            if mistakes or wrong:
                every = (*mistakes, *wrong)
                yield Combination(advantage, aggregation, power, ratio, score, every)


def _mistakes_of(forms: tuple[AnyForm, ...], accepted: set[str]) -> tuple[AnyForm, ...]:
    return tuple(form for form in forms if form.is_mistake and form.name not in accepted)


def _powers_of(advantage: AnyForm) -> list[AnyForm]:
    """The powers of γ that may stand beside an advantage; R(τ) has its own in it."""
    if advantage.whole:
        return [power for power in POWERS if power.name == NO_POWER]
    return list(POWERS)


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
        batches = Batches(case.fields, probe.mdp.discount, taken, rollout)
        with np.errstate(all="ignore"):
            total += _expected_of_one_shape(measurement, case, batches, combinations)
    return total


def _expected_of_one_shape(
    measurement: Measurement,
    case: Cases,
    batches: Batches,
    combinations: Sequence[Combination],
) -> Float[ndarray, "estimator O A"]:
    @cache
    def part(form: AnyForm) -> ndarray:
        return form.compute(batches)

    @cache
    def rated(advantage: AnyForm, ratio: AnyForm | None) -> ndarray:
        if ratio is None:
            return part(advantage)
        return ratio.compute(batches, part(advantage))

    logits = measurement.situation.probe.logits
    share = _share(case, batches)
    weights = np.empty((len(combinations), *batches.mask.shape))
    for number, combination in enumerate(combinations):
        weight = rated(combination.advantage, combination.ratio)
        if combination.power is not None:
            weight = weight * part(combination.power)
        weights[number] = share * (weight * part(combination.aggregation))
    gradients = _by_scores(measurement, case, weights)
    for number, combination in enumerate(combinations):
        score = combination.score
        if score is not None and score.is_mistake:
            by_logits = score.compute(batches, logits[case.observation], weights[number])
            gradients[number] = _onto_observations(case, by_logits, len(logits))
    return gradients


def _share(case: Cases, batches: Batches) -> Float[ndarray, "batch 1 1"]:
    """p(batch), divided by the episodes of a batch or by the rows of a rollout."""
    _, episodes, time = batches.mask.shape
    rows = episodes * time if batches.rollout else episodes
    return case.probability[:, None, None] / rows


def _by_scores(
    measurement: Measurement, case: Cases, weights: ndarray
) -> Float[ndarray, "estimator O A"]:
    """Σ weight × ∇ log π(a|o), which is 1[a] - π(·|o) in row o."""
    probe = measurement.situation.probe
    rows, actions = probe.logits.shape
    place = case.observation * actions + case.fields["action"]
    chosen = np.eye(rows * actions)[place.ravel()]
    tally = (weights.reshape(len(weights), -1) @ chosen).reshape(-1, rows, actions)
    return tally - probe.policy * tally.sum(axis=2, keepdims=True)


def _onto_observations(case: Cases, by_logits: ndarray, rows: int) -> Float[ndarray, "O A"]:
    """Σ over all batches of what falls on the logits of each observation."""
    seen = case.observation.ravel()
    columns = np.moveaxis(by_logits, -1, 0)
    return np.stack([np.bincount(seen, column.ravel(), rows) for column in columns], axis=1)
