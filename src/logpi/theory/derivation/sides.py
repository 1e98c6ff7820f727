"""The derivation on one process and one policy: every line, and what goes wrong beside D4.4."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from numpy.typing import ArrayLike

from logpi.core.differences import derivative
from logpi.theory.derivation.lines import Line, Sides, all_lines
from logpi.theory.exact import state_policy
from logpi.theory.mdp import FiniteMDP

STEP_SIZES = (0.1, 0.01, 0.001)


@dataclass(frozen=True)
class Derivation:
    """All lines, and what goes wrong beside D4.4."""

    mdp: FiniteMDP
    logits: Float[ndarray, "O A"]
    trajectories: int
    lines: tuple[Line, ...]
    without_power: float
    """|E_τ[ Σ_t R_t ∇ log π ] - ∇J|, the largest entry: what leaving out γ^t costs."""
    curl_without_power: float
    """max |∂g_i/∂θ_j - ∂g_j/∂θ_i| of that field g: where it is not 0, g is the gradient of no
    function."""
    curl_with_power: float
    one_after_another: tuple[tuple[float, float], ...]
    """(α, largest entry of (E[θ'] - θ)/α - ∇J) where θ moves at every step of the episode: shrinks
    as fast as α."""

    @property
    def difference(self) -> float:
        """The largest difference of any line."""
        return max(line.difference for line in self.lines)

    def to_json(self) -> dict[str, Any]:
        """The figures by tag, arrays as nested lists."""
        return {
            "mdp": json.loads(self.mdp.to_json()),
            "logits": self.logits.tolist(),
            "lines": [
                {
                    "tag": line.tag,
                    "equation": line.equation,
                    "left": line.left.tolist(),
                    "right": line.right.tolist(),
                    "difference": line.difference,
                }
                for line in self.lines
            ],
            "difference": self.difference,
            "without_power": self.without_power,
            "curl": {"with_power": self.curl_with_power, "without_power": self.curl_without_power},
            "one_after_another": [list(pair) for pair in self.one_after_another],
        }


def derive(mdp: FiniteMDP, logits: ArrayLike) -> Derivation:
    """Both sides of every line for the tabular policy π(a|o) = softmax(logits[o])_a, `logits` [O,
    A].

    **Raises:** `LogpiError` where the logits do not fit the process.
    """
    sides = Sides(mdp, np.asarray(logits, np.float64), state_policy(mdp, logits))
    power = sides.field(mdp.discount)
    plain = sides.field(1.0)
    return Derivation(
        mdp,
        sides.logits,
        len(sides.every.environment),
        all_lines(sides),
        float(np.abs(plain(sides.logits) - sides.gradient).max()),
        _curl(plain, sides.logits),
        _curl(power, sides.logits),
        tuple((alpha, sides.one_after_another(alpha)) for alpha in STEP_SIZES),
    )


def _curl(field: Callable[[ndarray], ndarray], logits: ndarray) -> float:
    jacobian = derivative(field, logits).reshape(logits.size, logits.size)
    return float(np.abs(jacobian - jacobian.T).max())
