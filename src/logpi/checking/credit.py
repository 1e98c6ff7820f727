"""The credit matrix: C[t, k] = how much the reward at k counts for the action at t. Right for J is
γ^k for k ≥ t, γ^{k-t} where γ^t is left out, 1 for the plain sum of rewards.

On a process of fixed length whose steps have their own parameters, with rewards at step k only, an
estimator that is linear in rewards has E[ĝ_t] = C[t, k] E[r_k ∇ log π(a_t|s_t)].
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from logpi.checking.expectation import Situation
from logpi.checking.fitting import ratio_or_zero
from logpi.checking.targets import REGULARISED
from logpi.theory.exact import exact_gradient


@dataclass(frozen=True)
class Credit:
    """The matrix found, the right one, and what of the expected gradients it leaves unexplained."""

    matrix: Float[ndarray, "time time"]
    """NaN below the diagonal: a reward before t has no part in E[r_k ∇ log π(a_t)] = 0."""
    correct: Float[ndarray, "time time"]
    residual: float
    """Largest part of E[ĝ], relative to it, that no matrix explains: zero for an estimator linear
    in rewards."""

    def to_json(self) -> dict[str, object]:
        """Rows by t; null below the diagonal."""
        return {
            "matrix": _rows_to_json(self.matrix),
            "correct": _rows_to_json(self.correct),
            "residual": self.residual,
        }


def _rows_to_json(matrix: Float[ndarray, "time time"]) -> list[list[float | None]]:
    return [[None if np.isnan(x) else float(x) for x in row] for row in matrix]


def right_credit(target: str, discount: float, horizon: int) -> Float[ndarray, "time time"]:
    """What the reward at k counts for the action at t in a target; NaN below the diagonal."""
    t = np.arange(horizon)[:, None]
    k = np.arange(horizon)
    power = k + 0 * t
    if target.startswith("conventional"):
        power = k - t
    elif target in ("undiscounted", *REGULARISED.values()):
        power = 0 * power
    return np.where(k >= t, float(discount) ** np.maximum(power, 0), np.nan)


def credit_matrix(
    mean: Callable[[Situation], Float[ndarray, "O A"]], situation: Situation, target: str
) -> Credit:
    """The matrix of an estimator whose expectation is `mean` on `situation`, whose probe is the
    chain, beside the right one of `target`.
    """
    probe = situation.probe
    horizon = situation.probe.mdp.horizon
    matrix = np.full((horizon, horizon), np.nan)
    correct = right_credit(target, probe.mdp.discount, horizon)
    left = 0.0
    size = 0.0
    found = [mean(_rewarded(situation, k)) for k in (None, *range(horizon))]
    for k in range(horizon):
        single = _rewarded(situation, k)
        undiscounted = single.probe.mdp.replace(discount=1.0)
        unit = exact_gradient(undiscounted, probe.logits)  # row t: E[r_k ∇ log π(a_t)]
        for t in range(horizon):
            rows = probe.step[: len(probe.logits)] == t
            expected = unit[rows]
            got = (found[k + 1] - found[0])[rows]
            if t <= k:
                matrix[t, k] = np.sum(got * expected) / np.sum(expected**2)
                got = got - matrix[t, k] * expected
            left = max(left, float(np.abs(got).max()))
        size = max(size, float(np.abs(found[k + 1]).max()))
    left = max(left, float(np.abs(found[0]).max()))
    return Credit(matrix, correct, ratio_or_zero(left, size))


def _rewarded(situation: Situation, k: int | None) -> Situation:
    """Rewards at step k only; at no step for None."""
    probe = situation.probe
    mdp = probe.mdp
    if k is not None:
        reward = np.where((probe.step == k)[:, None, None], mdp.reward, 0.0)
    else:
        reward = 0 * mdp.reward
    return replace(situation, probe=replace(probe, mdp=mdp.replace(reward=reward)))
