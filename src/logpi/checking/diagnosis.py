"""Which known mistakes explain what was found: their exact expected gradients against the estimator's."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from logpi.checking.cases import Cases, Columns
from logpi.checking.catalogue import (
    ADVANTAGES,
    AGGREGATIONS,
    KL,
    POWERS,
    RATIOS,
    SCORES,
    Data,
    Entry,
    Ratio,
    Score,
)
from logpi.checking.expectation import Situation
from logpi.theory.exact import log_softmax

EQUAL = 1e-7
EXPLAINS = 0.35
"""A cause explains where it leaves at most this share of the deviation from the target."""

# Advantages that people combine with importance ratios and with their own scores.
COMMON = ("whiten-batch", "own-sample-baseline", "grpo-std", "gae-lambda")


@dataclass(frozen=True)
class Cause:
    """A known mistake, and how far its expected gradient is from the one found, relative to that one.

    No distance: it shows in something else than the expected gradient.
    """

    name: str
    explanation: str
    remedy: str
    distance: float | None = None

    def to_json(self) -> dict[str, object]:
        """By these names."""
        return {
            "name": self.name,
            "explanation": self.explanation,
            "remedy": self.remedy,
            "distance": self.distance,
        }


@dataclass(frozen=True)
class Evidence:
    """One situation with all its batches and the gradient that was found there."""

    situation: Situation
    columns: Columns
    cases: Sequence[Cases]
    found: Float[ndarray, "O A"]
    target: Float[ndarray, "O A"]
    rounding: float
    """By how much `found` may be wrong."""

    @property
    def size(self) -> tuple[int, int, int]:
        """N, the steps of a rollout or 0, and the size of a group: what a factor such as 1/N depends on."""
        starts = self.situation.probe.designs[0].starts
        steps = self.situation.steps if self.situation.layout == "rollout" else 0
        return len(starts), steps, len(starts) // len(set(starts))


def fitted(
    found: Sequence[ndarray],
    target: Sequence[ndarray],
    sizes: Sequence[object],
    floor: Sequence[float] | None = None,
) -> tuple[dict, list[float]]:
    """The factor k of each size for which found ≈ k target, and what is left, relative to the larger of the two.

    Sizes below `floor` are taken for rounding.
    """
    least = floor or [0.0] * len(found)
    size = [
        max(float(np.linalg.norm(f)), float(np.linalg.norm(t)), smallest, 1e-300)
        for f, t, smallest in zip(found, target, least, strict=True)
    ]
    factors: dict = {}
    for group in set(sizes):
        # every probe weighs alike, whatever the size of its gradient
        pairs = [
            (f / n, t / n)
            for f, t, n, s in zip(found, target, size, sizes, strict=True)
            if s == group
        ]
        length = sum(float(np.sum(t * t)) for _, t in pairs)
        factors[group] = sum(float(np.sum(f * t)) for f, t in pairs) / length if length > 0 else 0.0
    left = []
    for f, t, s, smallest in zip(found, target, sizes, least, strict=True):
        scale = max(np.linalg.norm(f), np.linalg.norm(factors[s] * t), smallest)
        left.append(float(np.linalg.norm(f - factors[s] * t) / scale) if scale > 0 else 0.0)
    return factors, left


def diagnose(
    evidence: Sequence[Evidence], names: tuple[str, ...], target: str, most: int = 5
) -> list[Cause]:
    """Combinations of known mistakes, those that explain most with fewest mistakes first."""
    found, sizes = [e.found for e in evidence], [e.size for e in evidence]
    without = max(fitted(found, [e.target for e in evidence], sizes)[1])
    tables = [_Table(e) for e in evidence]
    floor = [1e-6 * float(np.linalg.norm(e.target)) for e in evidence]
    ranked: list[tuple[tuple[bool, float, bool, float], list[Entry | Ratio | Score], float]] = []
    combinations = list(_combinations(names, _accepted(target)))
    every = [table.expected([parts for parts, _ in combinations]) for table in tables]
    for row, (_, wrong) in enumerate(combinations):
        factors, left = fitted(found, [expected[row] for expected in every], sizes, floor)
        distance = float(np.max(left))  # NaN where an entry is not defined, unlike max
        if not np.isfinite(distance) or distance > EXPLAINS * without:
            continue
        unscaled = all(abs(k - 1) < EQUAL for k in factors.values())
        cost = sum(0.5 if part.name == "gamma-t-missing" else 1.0 for part in wrong)
        equal = distance < min(EQUAL, 1e-3 * without)
        ranked.append(
            (
                (not equal, 0.0 if equal else round(distance, 3), not unscaled and equal, cost),
                wrong,
                distance,
            )
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


class Parts(NamedTuple):
    """The factors of one estimator."""

    advantage: Entry
    aggregation: Entry
    power: Entry | None = None
    ratio: Ratio | None = None
    score: Score | None = None


def _accepted(target: str) -> set[str]:
    """What is no mistake for this target."""
    no_power = (
        {"gamma-t-missing"}
        if target.startswith("conventional") or target == "undiscounted"
        else set()
    )
    beyond = {"trunc-bootstrapped"} if "continuing" in target else set()
    return no_power | beyond | ({"undiscounted-return"} if target == "undiscounted" else set())


def _combinations(
    names: tuple[str, ...], accepted: set[str]
) -> Iterator[tuple[Parts, list[Entry | Ratio | Score]]]:
    """Estimators with few wrong factors, and those factors, the most telling first."""
    asks = set(names)
    if "reference_log_prob" in asks and "reward" not in asks:
        for entry, aggregation in product(KL, AGGREGATIONS):
            yield Parts(entry, aggregation), [entry, *([aggregation] if aggregation.remedy else [])]
        return
    ratios = RATIOS if "old_log_prob" in asks else RATIOS[:1]
    scores = SCORES if asks & {"logits", "policy"} else SCORES[:1]
    for advantage, ratio, aggregation, score in product(ADVANTAGES, ratios, AGGREGATIONS, scores):
        if not set(advantage.needs) <= asks:
            continue
        # the right form of each factor is the one without a remedy
        wrong = [
            part
            for part in (score, advantage, ratio, aggregation)
            if part.remedy and part.name not in accepted
        ]
        unusual = bool(advantage.remedy) and advantage.name not in COMMON
        if len(wrong) > 2 or (unusual and (ratio.remedy or score.remedy)):
            continue
        for power in POWERS[1:2] if advantage.whole else POWERS:
            odd = bool(power.remedy) and not advantage.whole and power.name not in accepted
            if wrong or odd:
                yield (
                    Parts(advantage, aggregation, power, ratio, score),
                    [*wrong, *([power] if odd else [])],
                )


class _Table:
    """The expected gradients of many estimators in one situation."""

    def __init__(self, evidence: Evidence):
        situation = evidence.situation
        self.probe, self.cases = situation.probe, evidence.cases
        log_policy = log_softmax(self.probe.logits)
        self.data = [
            Data(
                case.fields,
                self.probe.mdp.discount,
                log_policy[case.observation, case.fields["action"]],
                case.probability,
                situation.layout == "rollout",
            )
            for case in evidence.cases
        ]

    def expected(self, all_parts: Sequence[Parts]) -> Float[ndarray, "estimator O A"]:
        """Σ_batch p(batch) Σ aggregation × γ^t × ratio × advantage × ∇ log π, of each."""
        total = np.zeros((len(all_parts), *self.probe.logits.shape))
        for data, case in zip(self.data, self.cases, strict=True):
            with np.errstate(all="ignore"):
                total += self._in_one_shape(data, case, all_parts)
        return total

    def _in_one_shape(self, data: Data, case: Cases, all_parts: Sequence[Parts]) -> ndarray:
        @cache
        def part(entry: Entry) -> ndarray:
            return entry.weight(data)

        @cache
        def rated(advantage: Entry, ratio: Ratio | None) -> ndarray:
            return part(advantage) if ratio is None else ratio.apply(data, part(advantage))

        share = case.probability[:, None, None] / (
            data.mask.shape[1] * (data.mask.shape[2] if data.rollout else 1)
        )
        weights = np.empty((len(all_parts), *data.mask.shape))
        for row, parts in enumerate(all_parts):
            weight = rated(parts.advantage, parts.ratio)
            for factor in (parts.power, parts.aggregation):
                weight = weight if factor is None else weight * part(factor)
            weights[row] = share * weight
        found = self._scores(case, weights)
        for row, parts in enumerate(all_parts):
            if parts.score is not None and parts.score.remedy:
                by_logits = parts.score.by_logits(
                    self.probe.logits[case.observation], data, weights[row]
                )
                found[row] = self._onto_logits(case, by_logits)
        return found

    def _scores(self, case: Cases, weights: ndarray) -> Float[ndarray, "estimator O A"]:
        """Σ weight × ∇ log π(a|o), which is 1[a] - π(·|o) in row o."""
        rows, actions = self.probe.logits.shape
        chosen = np.eye(rows * actions)[
            (case.observation * actions + case.fields["action"]).ravel()
        ]
        tally = (weights.reshape(len(weights), -1) @ chosen).reshape(-1, rows, actions)
        return tally - self.probe.policy * tally.sum(axis=2, keepdims=True)

    def _onto_logits(self, case: Cases, by_logits: ndarray) -> Float[ndarray, "O A"]:
        """Σ over all batches of what falls on the logits of each observation."""
        columns = np.moveaxis(by_logits, -1, 0)
        rows = len(self.probe.logits)
        return np.stack(
            [np.bincount(case.observation.ravel(), c.ravel(), rows) for c in columns], axis=1
        )
