"""The exact expected gradients of combinations of parts, in one situation."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from logpi.checking.cases import Cases
from logpi.checking.measuring import Measurement
from logpi.checking.mistakes.aggregations import AGGREGATIONS
from logpi.checking.mistakes.batches import Batches, Weight
from logpi.checking.mistakes.combinations import AnyForm, Combination
from logpi.checking.mistakes.divergences import DIVERGENCES, Penalty
from logpi.theory.exact import log_softmax


def expected_gradients(
    measurement: Measurement, combinations: Sequence[Combination], penalty: Penalty | None
) -> Float[ndarray, "estimator O A"]:
    """Σ_batch p(batch) Σ aggregation × γ^t × (ratio × advantage - penalty) × ∇ log π, of each
    combination; a penalty may be a part of the rewards instead.
    """
    plain = by_weights(measurement, combinations, paid_by(penalty))
    return plain - by_penalty(measurement, combinations, penalty)


def paid_by(penalty: Penalty | None) -> Penalty | None:
    """What is taken off the rewards."""
    if penalty is not None and penalty.of_rewards:
        return penalty
    return None


def by_penalty(
    measurement: Measurement, combinations: Sequence[Combination], penalty: Penalty | None
) -> Float[ndarray, "#estimator O A"]:
    """Σ_batch p(batch) Σ aggregation × γ^t × penalty × ∇ log π, where it is off the weights."""
    probe = measurement.situation.probe
    if penalty is None or penalty.of_rewards:
        return np.zeros((1, *probe.logits.shape))
    log_policy = log_softmax(probe.logits)
    of_factor: Any = 0.0
    factors = {}
    for case in measurement.cases:
        taken = log_policy[case.observation, case.fields["action"]]
        batches = Batches(case.fields, 1.0, taken, rollout=False)
        factors = _factors(case, batches, combinations)
        scores = _scores(measurement, case, list(factors.values()))
        of_factor = of_factor + np.tensordot(penalty.taken_off(batches), scores, axes=3)
    column_of = {beside: column for column, beside in enumerate(factors)}
    return of_factor[[column_of[each.aggregation, each.power] for each in combinations]]


def by_weights(
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
            total[numbers] += _of_one_shape(measurement, case, batches, some)
    return total


def _of_one_shape(
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


def expected_divergences(measurement: Measurement) -> Float[ndarray, "form O A"]:
    """Of each known form of a KL to a reference, summed over the steps."""
    forms = [
        Combination(divergence, AGGREGATIONS.first, None, None, None, divergence.mistakes)
        for divergence in DIVERGENCES
    ]
    return by_weights(measurement, forms, None)
