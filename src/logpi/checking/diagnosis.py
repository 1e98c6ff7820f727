"""Which known mistakes explain what was found: their exact expected gradients against the estimator's."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from logpi.checking.cases import Cases, Columns, log_softmax
from logpi.checking.catalogue import ADVANTAGES, AGGREGATIONS, CORRECT, KL, POWERS, RATIOS, Data, Entry, Ratio
from logpi.checking.expectation import Situation

EQUAL = 1e-7
EXPLAINS = 0.35
"""A cause explains where it leaves at most this share of the deviation from the target."""


@dataclass(frozen=True)
class Cause:
    """A known mistake, and how far its expected gradient is from the one found, relative to that one."""

    name: str
    explanation: str
    remedy: str
    distance: float

    def to_json(self) -> dict[str, object]:
        """By these names."""
        return {"name": self.name, "explanation": self.explanation, "remedy": self.remedy, "distance": self.distance}


@dataclass(frozen=True)
class Evidence:
    """One situation with all its batches and the gradient that was found there."""

    situation: Situation
    columns: Columns
    cases: Sequence[Cases]
    found: Float[ndarray, "O A"]
    target: Float[ndarray, "O A"]

    @property
    def size(self) -> tuple[int, int]:
        """Situations of one size share a factor such as 1/N."""
        return self.situation.probe.episodes, self.situation.steps if self.situation.layout == "rollout" else 0


def fitted(found: Sequence[ndarray], target: Sequence[ndarray], sizes: Sequence[object]) -> tuple[dict, list[float]]:
    """The factor k of each size for which found ≈ k target, and what is left, relative to the larger of the two."""
    factors: dict = {}
    for size in set(sizes):
        pairs = [(f, t) for f, t, s in zip(found, target, sizes, strict=True) if s == size]
        # every probe weighs alike, whatever the size of its gradient
        along = sum(float(np.sum(f * t)) / (float(np.sum(t * t)) or 1.0) for f, t in pairs)
        factors[size] = along / len(pairs)
    left = []
    for f, t, s in zip(found, target, sizes, strict=True):
        scale = max(np.linalg.norm(f), np.linalg.norm(factors[s] * t))
        left.append(float(np.linalg.norm(f - factors[s] * t) / scale) if scale > 0 else 0.0)
    return factors, left


def diagnose(evidence: Sequence[Evidence], names: tuple[str, ...], most: int = 5) -> list[Cause]:
    """Combinations of known mistakes, those that explain most with fewest mistakes first."""
    found, sizes = [e.found for e in evidence], [e.size for e in evidence]
    without = max(fitted(found, [e.target for e in evidence], sizes)[1])
    tables = [_Table(e) for e in evidence]
    ranked: list[tuple[tuple[bool, float, bool, float], tuple[Entry | Ratio, ...], float]] = []
    for parts, wrong in _combinations(names):
        expected = [table.expected(parts) for table in tables]
        factors, left = fitted(found, expected, sizes)
        distance = max(left)
        if not np.isfinite(distance) or distance > EXPLAINS * without:
            continue
        unscaled = all(abs(k - 1) < EQUAL for k in factors.values())
        cost = sum(0.5 if part.name == "gamma-t-missing" else 1.0 for part in wrong)
        equal = distance < min(EQUAL, 1e-3 * without)
        ranked.append(
            ((not equal, 0.0 if equal else round(distance, 3), not unscaled and equal, cost), wrong, distance)
        )
    ranked.sort(key=lambda item: (item[0][0], item[0][1], item[0][3], item[0][2]))
    causes: list[Cause] = []
    exact_found = bool(ranked) and not ranked[0][0][0]
    for key, wrong, distance in ranked:
        if exact_found and (key[0] or key[3] > ranked[0][0][3]):
            break
        for part in wrong:
            if part.name not in {cause.name for cause in causes}:
                causes.append(Cause(part.name, part.explanation, part.remedy, distance))
    return causes[:most]


Parts = tuple[Entry | Ratio, ...]


def _combinations(names: tuple[str, ...]) -> Iterator[tuple[Parts, Parts]]:
    """(advantage, γ^t, ratio, aggregation) with few wrong parts, and those parts, the most telling first."""
    asks = set(names)
    if "reference_log_prob" in asks and "reward" not in asks:
        for entry in KL:
            for aggregation in AGGREGATIONS:
                wrong = (entry,) if aggregation is AGGREGATIONS[0] else (entry, aggregation)
                yield (entry, None, None, aggregation), wrong  # type: ignore[misc]
        return
    ratios = RATIOS if "old_log_prob" in asks else (RATIOS[0],)
    for advantage in ADVANTAGES:
        if not set(advantage.needs) <= asks:
            continue
        for power in POWERS[1:2] if advantage.whole else POWERS:
            for ratio in ratios:
                for aggregation in AGGREGATIONS:
                    right = (CORRECT, power if advantage.whole else POWERS[0], RATIOS[0], AGGREGATIONS[0])
                    parts = (advantage, power, ratio, aggregation)
                    wrong = tuple(part for part, ok in zip(parts, right, strict=True) if part is not ok)
                    if not wrong or len([part for part in wrong if part.name != "gamma-t-missing"]) > 2:
                        continue
                    # the advantage tells more than the missing power, which is common and deliberate
                    yield parts, tuple(sorted(wrong, key=lambda part: part.name == "gamma-t-missing"))


class _Table:
    """Everything about one situation that the combinations share."""

    def __init__(self, evidence: Evidence):
        self.evidence = evidence
        situation = evidence.situation
        rollout = situation.layout == "rollout"
        log_policy = log_softmax(situation.probe.logits)
        self.data = [
            Data(
                case.fields,
                situation.probe.mdp.discount,
                log_policy[case.observation, case.fields["action"]],
                case.probability,
                rollout,
            )
            for case in evidence.cases
        ]
        self.kept: dict[tuple[int, int], ndarray] = {}

    def part(self, index: int, entry: Entry) -> ndarray:
        """The factor of one entry, computed once."""
        key = (index, id(entry))
        if key not in self.kept:
            with np.errstate(all="ignore"):
                self.kept[key] = entry.weight(self.data[index])
        return self.kept[key]

    def expected(self, parts: Parts) -> Float[ndarray, "O A"]:
        """Σ_batch p(batch) Σ aggregation × γ^t × ratio × advantage × ∇ log π."""
        advantage, power, ratio, aggregation = parts
        total = np.zeros_like(self.evidence.found)
        for index, (data, case) in enumerate(zip(self.data, self.evidence.cases, strict=True)):
            weight = self.part(index, advantage)  # type: ignore[arg-type]
            with np.errstate(all="ignore"):
                if isinstance(ratio, Ratio):
                    weight = ratio.apply(data, weight)
                if power is not None:
                    weight = weight * self.part(index, power)  # type: ignore[arg-type]
                weight = weight * self.part(index, aggregation)  # type: ignore[arg-type]
                share = case.probability[:, None, None] / data.mask.shape[1]
                share = share / (data.mask.shape[2] if data.rollout else 1)
                total += _summed(self.evidence.situation, case, share * weight)
        return total


def _summed(situation: Situation, case: Cases, weight: ndarray) -> Float[ndarray, "O A"]:
    """Σ over all batches of weight × ∇ log π."""
    rows, actions = situation.probe.logits.shape
    index = case.observation * actions + case.fields["action"]
    weight = np.broadcast_to(weight, index.shape)
    tally = np.bincount(index.ravel(), weight.ravel(), rows * actions).reshape(rows, actions)
    return tally - situation.probe.policy * tally.sum(axis=1, keepdims=True)
