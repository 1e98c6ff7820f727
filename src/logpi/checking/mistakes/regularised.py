"""What is wrong with an estimator of J - β KL, where it is a sum of two parts that are known."""

from collections.abc import Sequence

import numpy as np
from numpy import ndarray

from logpi.checking.fitting import Size
from logpi.checking.measuring import Measurement
from logpi.checking.mistakes.divergences import DIVERGENCES
from logpi.checking.mistakes.forms import Cause
from logpi.checking.mistakes.search import expected_divergences
from logpi.checking.targets import REGULARISED
from logpi.checking.verdict import scale_name


def of_regularised(measurements: Sequence[Measurement], target: str, beta: float) -> list[Cause]:
    """Where E[ĝ] = a ∇J + b D: with D = -∇KL and other factors than 1 and β, which is not 0, what β
    acts as; else the known mistake about the KL that D is.
    """
    (kl,) = (name for name, regularised in REGULARISED.items() if regularised == target)
    found = _unequal_factors(measurements, [m.targets[kl] for m in measurements], beta)
    if found is not None:
        return [found]
    expected = [expected_divergences(measurement) for measurement in measurements]
    for number, form in enumerate(DIVERGENCES):
        gradients = [each[number] for each in expected]
        if np.any(gradients[0]) and _unequal_factors(measurements, gradients, beta) is not None:
            (mistake,) = form.mistakes
            return [Cause(mistake.name, mistake.explanation, mistake.remedy, 0.0)]
    return []


def _unequal_factors(
    measurements: Sequence[Measurement], divergence: Sequence[ndarray], beta: float
) -> Cause | None:
    """What β acts as where E[ĝ] = a ∇J + b D; None where it is not of that form."""
    by_size: dict[Size, list[int]] = {}
    for number, measurement in enumerate(measurements):
        by_size.setdefault(measurement.size, []).append(number)
    of_reward: dict[Size, float] = {}
    acts_as: dict[Size, float] = {}
    for size, alike in by_size.items():
        found = np.concatenate([measurements[i].moments.mean.ravel() for i in alike])
        reward = np.concatenate([measurements[i].targets["undiscounted"].ravel() for i in alike])
        kl = np.concatenate([divergence[i].ravel() for i in alike])
        (a, b), *_ = np.linalg.lstsq(np.stack([reward, kl], axis=1), found)
        left = np.linalg.norm(found - a * reward - b * kl)
        if left > 1e-6 * np.linalg.norm(found):
            return None
        if abs(a) > 1e-9:  # an episode without others may have no advantage
            of_reward[size] = float(a)
            acts_as[size] = float(b / a / beta)
    if not of_reward:
        return None
    discount = measurements[0].situation.probe.mdp.discount
    factor = scale_name(acts_as, discount)
    said = f"reward and KL have different factors: β acts as β × {factor}"
    scaled = scale_name(of_reward, discount)
    if scaled != "1":
        said += f", and the reward is multiplied by {scaled}"
    return Cause("kl-factor", said, "give both the same factor", 0.0)
