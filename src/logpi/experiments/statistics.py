"""What may be said of two methods from the returns of some seeds (Agarwal et al. 2021).

Seeds are the unit: episodes of one policy say nothing about the next seed's.
"""

from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy import stats

# Resamples of a bootstrap and of a test by permutation, whose seed is fixed: the same runs are
# judged alike every time.
RESAMPLES = 10_000
_SEED = 0
LEVEL = 0.05
# Pairs below which their signs decide too little: 2 / 2^8 = 0.008 is the least p of eight.
FEWEST_PAIRS = 8


# One number for each row of a batch of samples, or the number of a single sample.
Means: TypeAlias = Float[ndarray, "*batch"] | float


class Estimate(NamedTuple):
    """A number, and the 95 % interval of the bootstrap over the seeds."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


class Chance(NamedTuple):
    """The probability of a difference like this one where there is none, and how it was found."""

    p: float
    is_paired: bool


def mean(scores: Float[ndarray, "*batch seed"], axis: int = -1) -> Means:
    """The mean over the seeds."""
    return np.mean(scores, axis)


def median(scores: Float[ndarray, "*batch seed"], axis: int = -1) -> Means:
    """The middle of the seeds."""
    return np.median(scores, axis)


def interquartile_mean(scores: Float[ndarray, "*batch seed"], axis: int = -1) -> Means:
    """IQM: the mean of the middle half of the seeds."""
    return stats.trim_mean(scores, 0.25, axis=axis)


def probability_of_improvement(
    ours: Float[ndarray, "*batch seed"], theirs: Float[ndarray, "*batch other"], axis: int = -1
) -> Means:
    """P(X > Y) + P(X = Y) / 2 for a seed of ours and one of theirs."""
    x = np.moveaxis(np.asarray(ours), axis, -1)[..., :, None]
    y = np.moveaxis(np.asarray(theirs), axis, -1)[..., None, :]
    return np.mean((x > y) + 0.5 * (x == y), axis=(-1, -2))


def estimate(statistic, *samples: Float[ndarray, " seed"]) -> Estimate:
    """A statistic of one or two samples, with its percentile interval."""
    value = float(statistic(*samples))
    if min(len(sample) for sample in samples) < 2:
        return Estimate(value, -np.inf, np.inf)
    if all(np.ptp(sample) == 0 for sample in samples):
        return Estimate(value, value, value)
    found = stats.bootstrap(
        samples,
        statistic,
        n_resamples=RESAMPLES,
        method="percentile",
        vectorized=True,
        batch=1000,
        rng=np.random.default_rng(_SEED),
    )
    low, high = found.confidence_interval
    return Estimate(value, float(low), float(high))


def performance_profile(
    scores: Float[ndarray, " seed"], thresholds: Float[ndarray, " threshold"]
) -> Float[ndarray, " threshold"]:
    """The share of seeds above each return."""
    return np.mean(scores[:, None] > thresholds, axis=0)


def judge_difference(
    ours: Float[ndarray, " seed"], theirs: Float[ndarray, " other"], is_paired: bool
) -> Chance:
    """Whether two means differ by more than chance, two-sided, by permutation.

    Where seeds are shared and there are enough of them, the signs of the differences are permuted;
    else seeds between the groups. Both are exact: equal methods are called different in at most
    5 % of all comparisons.
    """

    def difference(x: ndarray, y: ndarray, axis: int) -> Means:
        return np.mean(x, axis) - np.mean(y, axis)

    is_paired = is_paired and len(ours) >= FEWEST_PAIRS
    if min(len(ours), len(theirs)) < 2:
        return Chance(1.0, False)
    found = stats.permutation_test(
        (ours, theirs),
        difference,
        permutation_type="samples" if is_paired else "independent",
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=1000,
        rng=np.random.default_rng(_SEED),
    )
    return Chance(float(found.pvalue), is_paired)
