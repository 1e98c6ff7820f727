"""From expected gradients to a verdict."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np

from logpi.checking.expectation import Moments
from logpi.checking.fitting import Size, fit

# A factor of groups.
ALONE = "1, and 0 for an episode that is alone in its group"
VerdictName: TypeAlias = Literal["exact", "scaled", "other-target", "biased", "zero", "reversed"]
# Relative: rounding leaves 1e-15 to 1e-12 in double precision, 1e-7 in single.
TOLERANCE = 1e-9
SINGLE_TOLERANCE = 1e-5
IN_SINGLE = "computed in single precision: exact to 1e-5 counts as exact"
# What single precision inside a function leaves of a loss in double precision.
ROUNDED_INSIDE = 4 * float(np.finfo(np.float32).eps)
# What rounding may leave of a gradient that counts as exact.
MOST_ROUNDING = 1e-4
# A factor is that of a formula to this precision.
SAME_FACTOR = 1e-6


@runtime_checkable
class Compared(Protocol):
    """What was found somewhere, and what should have been."""

    @property
    def moments(self) -> Moments: ...

    @property
    def targets(self) -> Mapping[str, np.ndarray]: ...

    @property
    def size(self) -> Size: ...

    @property
    def discount(self) -> float: ...


def tolerance_of(is_single: bool) -> float:
    """The relative difference below which a gradient is exact, in single precision or double."""
    if is_single:
        return SINGLE_TOLERANCE
    return TOLERANCE


@dataclass(frozen=True)
class Judgement:
    """How the expected gradients stand to one target; the numbers are those of the worst
    situation.
    """

    verdict: VerdictName
    scale: float | None
    """k where E[ĝ] = k ∇J; of batches of two where it depends on their size."""
    scale_name: str | None
    relative_bias: float
    residual_after_scale: float
    """|E[ĝ] - k ∇J|, relative to the larger of the two, with the best k for batches of a size."""
    cosine: float


def judge(measurements: Sequence[Compared], target: str, tolerance: float) -> Judgement:
    """Exact, exact but for a factor, reversed, zero, or biased.

    To a relative `tolerance`, and what rounding leaves.
    """
    found = [m.moments.mean for m in measurements]
    wanted = [m.targets[target] for m in measurements]
    sizes = [m.size for m in measurements]
    rounding = [
        _relative(np.asarray(m.moments.rounding), w)
        for m, w in zip(measurements, wanted, strict=True)
    ]
    allowed = np.maximum(tolerance, np.minimum(rounding, MOST_ROUNDING))
    pairs = list(zip(found, wanted, strict=True))
    biases = np.array([_relative(f - w, w) for f, w in pairs])
    factors, residuals = fit(found, wanted, sizes)
    left = [f - factors[size] * w for (f, w), size in zip(pairs, sizes, strict=True)]
    # What is the target but for a factor, or nothing, is so whatever the loss is multiplied by.
    lengths = np.array([float(np.linalg.norm(f)) for f in found])
    nothing = np.array([_nothing(m.moments, tolerance) for m in measurements])
    is_zero = lengths <= nothing
    unlike = np.array([float(np.linalg.norm(each)) for each in left])
    is_multiple = unlike <= tolerance * lengths + nothing
    cosines = [_cosine(*pair) for pair, zero in zip(pairs, is_zero, strict=True) if not zero]
    verdict: VerdictName = "biased"
    if (biases < allowed).all():
        verdict = "exact"
    elif is_zero.all():
        verdict = "zero"
    elif is_multiple.all():
        verdict = _of_multiple(factors, tolerance)
    scale, name = _named_scale(verdict, factors, measurements[0].discount)
    return Judgement(
        verdict=verdict,
        scale=scale,
        scale_name=name,
        relative_bias=float(biases.max()),
        residual_after_scale=max(residuals),
        cosine=0.0 if verdict == "zero" else min(cosines, default=0.0),
    )


def _named_scale(
    verdict: VerdictName, factors: Mapping[Size, float], discount: float
) -> tuple[float | None, str | None]:
    """The factor before ∇J and what it is called; None where there is none."""
    match verdict:
        case "exact":
            return 1.0, None
        case "zero":
            return 0.0, "0"
        case "biased":
            return None, None
        case _:
            return _scale_of_pairs(factors), scale_name(factors, discount)


def is_met(measurements: Sequence[Compared], target: str, asked: str, tolerance: float) -> bool:
    """Whether the gradient of a target is what was found; one that was not asked for is met by a
    multiple of its gradient too.
    """
    if not all(target in m.targets and np.any(m.targets[target]) for m in measurements):
        return False
    verdict = judge(measurements, target, tolerance).verdict
    return verdict == "exact" or (verdict == "scaled" and target != asked)


def _nothing(moments: Moments, tolerance: float) -> float:
    """The length of E[ĝ] that is rounding: relative to that of single batches, √E[|ĝ|²]."""
    return 0.1 * tolerance * math.sqrt(moments.second) + moments.rounding


def _of_multiple(factors: Mapping[Size, float], tolerance: float) -> VerdictName:
    """Factors of one sign, but for those that are 0."""
    nothing = tolerance * max(abs(k) for k in factors.values())
    if all(k >= -nothing for k in factors.values()):
        return "scaled"
    if all(k <= nothing for k in factors.values()):
        return "reversed"
    return "biased"


def _scale_of_pairs(factors: Mapping[Size, float]) -> float:
    """The factor of batches of two, if there are any; else of the largest."""
    episodes = {size[0] for size in factors}
    shown = 2 if 2 in episodes else max(episodes)
    return next(k for size, k in sorted(factors.items()) if size[0] == shown)


def scale_name(factors: Mapping[Size, float], discount: float) -> str:
    """The formula that gives these factors.

    N is the number of episodes of a batch, T the steps of a rollout, G the size of a group.
    """
    sign = "-" if any(k < 0 for k in factors.values()) else ""
    values = {size: _formulas(size, discount) for size in factors}
    nothing = TOLERANCE * max(abs(k) for k in factors.values())
    for name in next(iter(values.values())):
        if all(
            math.isclose(abs(k), values[size][name], rel_tol=SAME_FACTOR, abs_tol=nothing)
            for size, k in factors.items()
        ):
            return f"{sign}{name}"
    different = {f"{k:.6g}" for k in factors.values()}
    if len(different) == 1:
        return different.pop()
    return "a factor that depends on the size of the batch"


def _formulas(size: Size, discount: float) -> dict[str, float]:
    """The known factors for batches of one size, the commonest first."""
    n, t, g = size
    return {
        "1": 1.0,
        "γ": discount,
        "1/γ": _quotient(1, discount),
        "1/N": 1 / n,
        "N": n,
        "(N-1)/N": (n - 1) / n,
        "(G-1)/G": (g - 1) / g,
        "N/(N-1)": _quotient(n, n - 1),
        "G/(G-1)": _quotient(g, g - 1),
        "1/T": _quotient(1, t),
        "T": t or math.inf,
        ALONE: float(g > 1),
        "N T": n * t or math.inf,
        "1/(N T)": _quotient(1, n * t),
    }


def _quotient(a: float | int, b: float | int) -> float:
    if b:
        return a / b
    return math.inf


def _relative(difference: np.ndarray, reference: np.ndarray) -> float:
    size = float(np.linalg.norm(reference))
    return float(np.linalg.norm(difference)) / (size if size > 0 else 1.0)


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    sizes = float(np.linalg.norm(a) * np.linalg.norm(b))
    if sizes > 0:
        return float(np.sum(a * b)) / sizes
    return 0.0
