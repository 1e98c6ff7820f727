"""The exact expected gradients of combinations of parts, in one situation."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from logpi.checking.cases import Cases
from logpi.checking.measuring import Measurement
from logpi.checking.mistakes.aggregations import AGGREGATIONS
from logpi.checking.mistakes.batches import Batches, Weight
from logpi.checking.mistakes.combinations import AnyForm, Beside, Family
from logpi.checking.mistakes.divergences import DIVERGENCES, Penalty
from logpi.checking.probes import Probe
from logpi.theory.exact import log_softmax


class ShapeSums:
    """Sums over all batches of one shape, with one discount and one way in which rewards are paid.

    Each step belongs to a cell, its observation and action: ∇ log π is the same for all steps of a
    cell, so that weights are summed over cells before anything is multiplied by it.
    """

    def __init__(self, probe: Probe, case: Cases, batches: Batches):
        self.batches = batches
        self._probe = probe
        self._policy = probe.policy
        self._case = case
        self._factors: dict[Beside, Weight] = {}
        rows, actions = probe.logits.shape
        cell = (case.observation * actions + case.fields["action"]).ravel()
        self._order = np.argsort(cell, kind="stable")
        self._ends = np.searchsorted(cell[self._order], np.arange(rows * actions + 1))

    def factor(self, beside: Beside) -> Weight:
        """p(batch) × aggregation × γ^t, divided by the episodes of a batch or by the rows of a
        rollout.
        """
        if beside not in self._factors:
            _, episodes, time = self.batches.mask.shape
            rows = episodes * time if self.batches.rollout else episodes
            factor = self._case.probability[:, None, None] / rows
            factor = factor * beside.aggregation.compute(self.batches)
            if beside.power is not None:
                factor = factor * beside.power.compute(self.batches)
            self._factors[beside] = np.broadcast_to(factor, self.batches.mask.shape)
        return self._factors[beside]

    def of_weights(
        self, weights: Float[ndarray, "ratio batch episode time"], besides: Sequence[Beside]
    ) -> Float[ndarray, "ratio beside O A"]:
        """Σ factor × weight × ∇ log π(a|o), which is 1[a] - π(·|o) in row o."""
        factors = np.stack([self.factor(beside) for beside in besides])
        factors = np.take(factors.reshape(len(besides), -1), self._order, axis=1)
        ordered = np.take(weights.reshape(len(weights), -1), self._order, axis=1)
        tally = np.zeros((len(weights), len(besides), self._probe.logits.size))
        for cell, (start, end) in enumerate(zip(self._ends, self._ends[1:], strict=False)):
            tally[:, :, cell] = ordered[:, start:end] @ factors[:, start:end].T
        tally = tally.reshape(*tally.shape[:2], *self._probe.logits.shape)
        return tally - self._policy * tally.sum(axis=-1, keepdims=True)

    def of_family(self, family: Family) -> Float[ndarray, "ratio beside O A"]:
        """Σ factor × ratio × advantage × ∇ log π, or what stands in the place of ∇ log π."""
        weights = self._rated(family.advantage, family.ratios)
        if family.score is None or not family.score.mistakes:
            return self.of_weights(weights, family.besides)
        logits = self._probe.logits[self._case.observation]
        sums = [
            self._by_observation(
                family.score.compute(self.batches, logits, self.factor(beside) * weight)
            )
            for weight in weights
            for beside in family.besides
        ]
        return np.reshape(sums, (len(weights), len(family.besides), *self._probe.logits.shape))

    def _rated(
        self, advantage: AnyForm, ratios: Sequence[AnyForm | None]
    ) -> Float[ndarray, "ratio batch episode time"]:
        """Ratio × advantage, by each of the ratios."""
        weight = advantage.compute(self.batches)
        rated = np.empty((len(ratios), *self.batches.mask.shape))
        for row, ratio in enumerate(ratios):
            if ratio is None:
                rated[row] = weight
            else:
                rated[row] = ratio.compute(self.batches, weight)
        return rated

    def _by_observation(
        self, by_logits: Float[ndarray, "batch episode time A"]
    ) -> Float[ndarray, "O A"]:
        """Σ over all batches of what falls on the logits of each observation."""
        seen = self._case.observation.ravel()
        of_action = np.moveaxis(by_logits, -1, 0)
        rows = len(self._probe.logits)
        return np.stack([np.bincount(seen, each.ravel(), rows) for each in of_action], axis=1)


class Expectation:
    """The exact expected gradients of any family in one situation; what families share is computed
    once.
    """

    def __init__(self, measurement: Measurement):
        self.measurement = measurement
        self._sums: dict[tuple[float, Penalty | None], list[ShapeSums]] = {}
        self._plain: dict[tuple[Family, Penalty | None], ndarray] = {}
        self._taken_off: dict[tuple[Penalty, tuple[Beside, ...]], ndarray] = {}

    def of_family(
        self, family: Family, penalty: Penalty | None
    ) -> Float[ndarray, "ratio beside O A"]:
        """Σ_batch p(batch) Σ aggregation × γ^t × (ratio × advantage - penalty) × ∇ log π, with each
        ratio and each factor beside it; a penalty may be a part of the rewards instead.
        """
        if penalty is None:
            return self._of_rewards(family, None)
        if penalty.of_rewards:
            return self._of_rewards(family, penalty)
        return self._of_rewards(family, None) - self._of_penalty(penalty, family.besides)

    def _of_rewards(
        self, family: Family, paid: Penalty | None
    ) -> Float[ndarray, "ratio beside O A"]:
        """The same without a penalty off the weights, and with `paid` off the rewards."""
        if (family, paid) not in self._plain:
            discount = self.measurement.discount if family.discount is None else family.discount
            with np.errstate(all="ignore"):
                parts = [sums.of_family(family) for sums in self._by_shape(discount, paid)]
            self._plain[family, paid] = np.sum(parts, axis=0)
        return self._plain[family, paid]

    def _of_penalty(
        self, penalty: Penalty, besides: tuple[Beside, ...]
    ) -> Float[ndarray, "beside O A"]:
        """What a penalty off the weights adds up to."""
        if (penalty, besides) not in self._taken_off:
            parts = []
            for sums in self._by_shape(1.0, None):
                weights = penalty.taken_off(sums.batches)[None]
                parts.append(sums.of_weights(weights, besides)[0])
            self._taken_off[penalty, besides] = np.sum(parts, axis=0)
        return self._taken_off[penalty, besides]

    def _by_shape(self, discount: float, paid: Penalty | None) -> list[ShapeSums]:
        """The sums of the cases of every shape."""
        if (discount, paid) not in self._sums:
            self._sums[discount, paid] = [
                self._sums_of(case, discount, paid) for case in self.measurement.cases
            ]
        return self._sums[discount, paid]

    def _sums_of(self, case: Cases, discount: float, paid: Penalty | None) -> ShapeSums:
        probe = self.measurement.situation.probe
        rollout = self.measurement.situation.layout == "rollout"
        taken = log_softmax(probe.logits)[case.observation, case.fields["action"]]
        batches = Batches(case.fields, discount, taken, rollout)
        if paid is not None:
            reward = batches.reward - paid.taken_off(batches)
            batches = Batches(case.fields | {"reward": reward}, discount, taken, rollout)
        return ShapeSums(probe, case, batches)


def expected_divergences(measurement: Measurement) -> Float[ndarray, "form O A"]:
    """Of each known form of a KL to a reference, summed over the steps."""
    expectation = Expectation(measurement)
    summed = Beside(AGGREGATIONS.first, None, ())
    families = [Family(form, form.mistakes, (None,), (summed,)) for form in DIVERGENCES]
    return np.stack([expectation.of_family(family, None)[0, 0] for family in families])
