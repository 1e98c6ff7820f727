"""Which known mistakes explain what was found: their exact expected gradients against the
estimator's.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from logpi.checking.fitting import Size, fit, left_of_each
from logpi.checking.measuring import Measurement
from logpi.checking.mistakes.combinations import (
    Combination,
    Family,
    families_of,
    penalties_of,
    with_rewards,
)
from logpi.checking.mistakes.divergences import Penalty
from logpi.checking.mistakes.expected import Expectation
from logpi.checking.mistakes.forms import EXACT, Cause, Mistake, rounding_of
from logpi.checking.targets import REGULARISED
from logpi.checking.verdict import tolerance_of

# What nearly explains leaves at most this share of the gradient, and of its deviation from the
# target.
NEAR = 0.05
NEAR_DEVIATION = 0.35
# Below this share of the target a gradient is taken for rounding.
ROUNDING = 1e-6


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
        least = min(self.factors.values())
        most = max(self.factors.values())
        varies = most - least > self.rounding * abs(most)
        return self.combination.cost + varies

    @property
    def mistakes(self) -> tuple[Mistake, ...]:
        return self.combination.mistakes

    @property
    def names(self) -> frozenset[str]:
        """The names of its mistakes."""
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
        families = list(with_rewards(asks, "undiscounted", 1.0))
        penalties = list(penalties_of(asks, target, beta))
    else:
        families = list(families_of(asks, target))
    expectations = [Expectation(each) for each in sorted(measurements, key=_tells_little)]
    found = _explanations(expectations, families, penalties, target)
    explanations = sorted(found, key=lambda each: each.rank)
    if not explanations:
        return []
    first = explanations[0]
    if not first.exact:
        return _causes(first, explanations[:1], {})
    equals = [each for each in explanations if each.exact and each.cost <= first.cost]
    alone = {}
    if len(first.mistakes) > 1:
        alone = _alone(first, expectations, families, penalties, target)
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
    expectations: Sequence[Expectation],
    families: Sequence[Family],
    penalties: Sequence[Penalty | None],
    target: str,
) -> dict[str, float]:
    """What each of its mistakes leaves by itself of the target, after the best factor: the median
    over the situations in which it leaves something.
    """
    measurements = [each.measurement for each in expectations]
    wanted = [m.targets[target] for m in measurements]
    sizes = [m.size for m in measurements]
    composed = [
        member._replace(penalty=penalty)
        for family in families
        for member in family.members(most=1)
        for penalty in penalties
    ]
    found: dict[str, float] = {}
    for mistake in explanation.mistakes:
        single = [each for each in composed if each.mistakes == (mistake,)]
        if single:
            nearest = max(single, key=explanation.combination.likeness)
            gradients = [
                each.of_family(nearest.alone, nearest.penalty)[0, 0] for each in expectations
            ]
            left = np.array(fit(gradients, wanted, sizes).left)
            seen = left[left > EXACT]
            found[mistake.name] = 0.0
            if len(seen):
                found[mistake.name] = float(np.median(seen))
    return found


def _explanations(
    expectations: Sequence[Expectation],
    families: Sequence[Family],
    penalties: Sequence[Penalty | None],
    target: str,
) -> list[Explanation]:
    """The combinations that leave rounding; where none does, those that leave little of the
    gradient and of its deviation from the target.
    """
    measurements = [each.measurement for each in expectations]
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
    for most in (exact, near):
        explanations = []
        for penalty, family in product(penalties, families):
            for combination, expected in _close(expectations, family, penalty, floor, most):
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
    expectations: Sequence[Expectation],
    family: Family,
    penalty: Penalty | None,
    floor: Sequence[float],
    most: float,
) -> Iterator[tuple[Combination, list[ndarray]]]:
    """The combinations of a family that with this penalty leave at most twice `most` in each
    situation, and their expected gradients in all of them.

    Situations are looked at one after another: ratios and factors that leave too much in one of
    them are not looked at in the next.
    """
    is_close = np.ones((len(family.ratios), len(family.besides)), bool)
    expected: list[ndarray] = []
    for expectation, smallest in zip(expectations, floor, strict=True):
        gradients = expectation.of_family(family, penalty)
        found = expectation.measurement.moments.mean
        left = left_of_each(found, gradients.reshape(-1, *found.shape), smallest)
        is_close &= left.reshape(is_close.shape) <= 2 * most  # False for NaN
        rows = np.flatnonzero(is_close.any(axis=1))
        columns = np.flatnonzero(is_close.any(axis=0))
        kept = np.ix_(rows, columns)
        family = family.some(rows, columns)
        is_close = is_close[kept]
        expected = [each[kept] for each in (*expected, gradients)]
        if not len(rows):
            return
    for row, column in np.argwhere(is_close):
        combination = Combination(family, family.ratios[row], family.besides[column], penalty)
        yield combination, [each[row, column] for each in expected]


def _tells_little(measurement: Measurement) -> tuple[bool, bool, bool, int]:
    """By how little a situation tells combinations apart: nothing is told by a gradient that
    vanishes, little by data of the policy itself and by single episodes. Small ones first.
    """
    probe = measurement.situation.probe
    numbers = sum(case.fields["mask"].size for case in measurement.cases)
    vanishes = measurement.moments.second == 0
    return vanishes, probe.behaviour is None, probe.episodes == 1, numbers


def _known_beside(measurements: Sequence[Measurement]) -> set[str]:
    """What an estimator may depend on without asking for it: how its batch is divided, and what an
    objective makes of the rewards.
    """
    return {"micro_batch", "plain_reward"} & measurements[0].cases[0].fields.keys()
