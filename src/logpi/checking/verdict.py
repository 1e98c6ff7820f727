"""From expected gradients to a verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from logpi.checking.diagnosis import Evidence, fitted

VerdictName: TypeAlias = Literal["exact", "scaled", "other-target", "biased", "zero", "reversed"]
# Relative: rounding leaves 1e-15 to 1e-12 in double precision, 1e-7 in single.
TOLERANCE, SINGLE_TOLERANCE = 1e-9, 1e-5
# What single precision inside a function leaves of a loss in double precision.
ROUNDED_INSIDE = 4 * float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Judgement:
    """How the expected gradients stand to one target; the numbers are those of the worst situation."""

    verdict: VerdictName
    scale: float | None
    """k where E[ĝ] = k ∇J; of batches of two where it depends on their size."""
    scale_name: str | None
    relative_bias: float
    residual_after_scale: float
    cosine: float


def judge(evidence: Sequence[Evidence], tolerance: float) -> Judgement:
    """Exact, exact but for a factor, reversed, zero, or biased, to a relative `tolerance` and what rounding leaves."""
    found, target = [e.found for e in evidence], [e.target for e in evidence]
    sizes = [e.size for e in evidence]
    allowed = [max(tolerance, _relative(np.asarray(e.rounding), e.target)) for e in evidence]
    biases = [_relative(f - t, t) for f, t in zip(found, target, strict=True)]
    bias = max(biases)
    factors, _ = fitted(found, target, sizes)

    def below(values, factor=1.0):
        return all(v < factor * a for v, a in zip(values, allowed, strict=True))

    lengths = [_relative(f, t) for f, t in zip(found, target, strict=True)]
    usual = [
        (f, t) for f, t, length in zip(found, target, lengths, strict=True) if length > tolerance
    ]
    cosine = min((_cosine(f, t) for f, t in usual), default=0.0)
    residuals = [
        _relative(f - factors[s] * t, t) for f, t, s in zip(found, target, sizes, strict=True)
    ]
    residual = max(residuals)
    size = 2 if any(key[0] == 2 for key in factors) else max(key[0] for key in factors)
    scale = next(k for key, k in sorted(factors.items()) if key[0] == size)
    name = scale_name(factors, evidence[0].situation.probe.mdp.discount)
    if below(biases):
        return Judgement("exact", 1.0, None, bias, residual, cosine)
    if below(lengths):
        return Judgement("zero", 0.0, "0", bias, residual, 0.0)
    if below(residuals, max(1.0, *map(abs, factors.values()))):
        if all(k > -tolerance for k in factors.values()):
            return Judgement("scaled", scale, name, bias, residual, cosine)
        if all(k < tolerance for k in factors.values()):
            return Judgement("reversed", scale, name, bias, residual, cosine)
    return Judgement("biased", None, None, bias, residual, cosine)


def scale_name(factors: Mapping[tuple[int, int, int], float], discount: float) -> str:
    """The formula that gives these factors, N being the episodes of a batch, T the steps of a rollout, G a group."""
    sign = "-" if any(k < 0 for k in factors.values()) else ""
    formulas = {
        "1": lambda n, t, g: 1.0,
        "γ": lambda n, t, g: discount,
        "1/γ": lambda n, t, g: 1 / discount if discount else np.inf,
        "1/N": lambda n, t, g: 1 / n,
        "N": lambda n, t, g: n,
        "(N-1)/N": lambda n, t, g: (n - 1) / n,
        "(G-1)/G": lambda n, t, g: (g - 1) / g,
        "N/(N-1)": lambda n, t, g: n / (n - 1) if n > 1 else np.inf,
        "1/T": lambda n, t, g: 1 / t if t else np.inf,
        "T": lambda n, t, g: t or np.inf,
        "N T": lambda n, t, g: n * t or np.inf,
        "1/(N T)": lambda n, t, g: 1 / (n * t) if t else np.inf,
    }
    for name, formula in formulas.items():
        if all(abs(abs(k) - formula(*key)) < 1e-6 for key, k in factors.items()):
            return f"{sign}{name}"
    values = {round(k, 6) for k in factors.values()}
    return (
        f"{values.pop():g}"
        if len(values) == 1
        else "a factor that depends on the size of the batch"
    )


def _relative(difference: np.ndarray, reference: np.ndarray) -> float:
    size = float(np.linalg.norm(reference))
    return float(np.linalg.norm(difference)) / (size if size > 0 else 1.0)


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    sizes = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.sum(a * b)) / sizes if sizes > 0 else 0.0
