"""What is wrong with an estimator of J - β KL, where it is a sum of two parts that are known."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from logpi.checking.fitting import Size
from logpi.checking.measuring import Measurement
from logpi.checking.mistakes.divergences import DIVERGENCES
from logpi.checking.mistakes.expected import expected_divergences
from logpi.checking.mistakes.forms import Cause, rounding_of
from logpi.checking.targets import REGULARISED
from logpi.checking.verdict import scale_name


class Factors(NamedTuple):
    """What reward and KL are multiplied by, in words."""

    of_reward: str
    of_beta: str
    """As what multiple of itself β acts."""

    def causes(self) -> list[Cause]:
        """What to say of them: nothing where β acts as itself."""
        if self.of_beta == "1":
            return []
        said = f"reward and KL have different factors: β acts as β × {self.of_beta}"
        if self.of_reward != "1":
            said += f", and the reward is multiplied by {self.of_reward}"
        return [Cause("kl-factor", said, "give both the same factor", 0.0)]


def of_regularised(measurements: Sequence[Measurement], target: str, beta: float) -> list[Cause]:
    """Where E[ĝ] = a ∇J + b D: with D = -∇KL and other factors than 1 and β, which is not 0, what β
    acts as; else the known mistake about the KL that D is, and its factor.
    """
    (kl,) = (name for name, regularised in REGULARISED.items() if regularised == target)
    right = _factors(measurements, [m.targets[kl] for m in measurements], beta)
    if right is not None:
        return right.causes()
    expected = [expected_divergences(measurement) for measurement in measurements]
    for number, form in enumerate(DIVERGENCES):
        gradients = [each[number] for each in expected]
        if not np.any(gradients[0]):
            continue
        factors = _factors(measurements, gradients, beta)
        if factors is not None:
            (mistake,) = form.mistakes
            known = Cause(mistake.name, mistake.explanation, mistake.remedy, 0.0)
            return [known, *factors.causes()]
    return []


def _factors(
    measurements: Sequence[Measurement], divergence: Sequence[ndarray], beta: float
) -> Factors | None:
    """Those of E[ĝ] = a ∇J + b D; None where it is not of that form."""
    by_size: dict[Size, list[int]] = {}
    for number, measurement in enumerate(measurements):
        by_size.setdefault(measurement.size, []).append(number)
    of_reward: dict[Size, float] = {}
    of_beta: dict[Size, float] = {}
    for size, alike in by_size.items():
        found = np.concatenate([measurements[i].moments.mean.ravel() for i in alike])
        reward = np.concatenate([measurements[i].targets["undiscounted"].ravel() for i in alike])
        kl = np.concatenate([divergence[i].ravel() for i in alike])
        (a, b), *_ = np.linalg.lstsq(np.stack([reward, kl], axis=1), found)
        left = np.linalg.norm(found - a * reward - b * kl)
        if left > rounding_of([m.moments for m in measurements]) * np.linalg.norm(found):
            return None
        if abs(a) > 1e-9:  # an episode without others may have no advantage
            of_reward[size] = float(a)
            of_beta[size] = float(b / a / beta)
    if not of_reward:
        return None
    discount = measurements[0].discount
    return Factors(scale_name(of_reward, discount), scale_name(of_beta, discount))
