"""How much of what was found is a multiple of something else."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float
from numpy import ndarray

# N, the steps of a rollout or 0, and the size of a group: what a factor such as 1/N depends on.
Size: TypeAlias = tuple[int, int, int]
# No length is divided by less.
TINY = 1e-300


class Fit(NamedTuple):
    """The factor k of each size for which found ≈ k · expected, and what is left in each situation,
    relative to the larger of the two.
    """

    factors: Mapping[Size, float]
    left: list[float]


def fit(
    found: Sequence[ndarray],
    expected: Sequence[ndarray],
    sizes: Sequence[Size],
    floor: Sequence[float] | None = None,
) -> Fit:
    """The best factor for all situations of one size; lengths below `floor` count as rounding."""
    least = floor or [0.0] * len(found)
    lengths = [
        max(_length(f), _length(e), smallest, TINY)
        for f, e, smallest in zip(found, expected, least, strict=True)
    ]
    factors: dict[Size, float] = {}
    for size in set(sizes):
        # every situation weighs alike, whatever the size of its gradient
        alike = [i for i, each in enumerate(sizes) if each == size]
        unit_found = [found[i] / lengths[i] for i in alike]
        unit_expected = [expected[i] / lengths[i] for i in alike]
        square = sum(float(np.sum(e * e)) for e in unit_expected)
        product = sum(float(np.sum(f * e)) for f, e in zip(unit_found, unit_expected, strict=True))
        factors[size] = product / square if square > 0 else 1.0
    left = []
    for f, e, size, smallest in zip(found, expected, sizes, least, strict=True):
        scaled = factors[size] * e
        length = max(_length(f), _length(scaled), smallest)
        left.append(ratio_or_zero(_length(f - scaled), length))
    return Fit(factors, left)


def left_of_each(
    found: ndarray, expected: Float[ndarray, "number O A"], floor: float
) -> Float[ndarray, " number"]:
    """What the best multiple of each of several expectations leaves, as in `fit`; NaN where one is
    not defined.
    """
    flat = expected.reshape(len(expected), -1)
    square = np.sum(flat**2, axis=1)
    product = flat @ found.ravel()
    factor = np.where(square > 0, product / np.where(square > 0, square, 1.0), 1.0)
    scaled = factor[:, None] * flat
    lengths = np.maximum(np.linalg.norm(scaled, axis=1), max(_length(found), floor, TINY))
    return np.linalg.norm(found.ravel() - scaled, axis=1) / lengths


def ratio_or_zero(part: float, whole: float) -> float:
    """part / whole; 0 where there is no whole."""
    if whole > 0:
        return part / whole
    return 0.0


def _length(x: ndarray) -> float:
    return float(np.linalg.norm(x))
