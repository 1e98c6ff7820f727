"""TRPO: NPG's step, halved until it has grown the surrogate within a limit (Schulman et al.
2015).
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, final

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from logpi.core.arrays import Number, Scalar
from logpi.core.options import COUNT, OneOf, option
from logpi.core.trajectory import Trajectory
from logpi.environments.spec import EnvironmentSpec
from logpi.methods.learner import Learner, Metrics
from logpi.methods.natural import (
    Ascent,
    NaturalOptions,
    finish_update,
    importance_surrogate,
    make_natural_learner,
    natural_ascent,
)
from logpi.methods.rollouts import RolloutOptions, Steps, prepare, require_divisor
from logpi.networks.options import NetworkOptions


@final
@dataclass(frozen=True, kw_only=True)
class TRPO(RolloutOptions, NaturalOptions, NetworkOptions):
    """TRPO (Schulman et al. 2015): NPG's step, halved until the surrogate has grown and
    KL(old, new) <= `kl_limit`.

    **Raises:** `LogpiError` for a value out of its range.
    """

    target: ClassVar[str] = "conventional-continuing"

    rollout_steps: int = option(128, COUNT, OneOf((64, 128, 256, 512)))
    """Steps of each copy between two updates. An episode may go on in the next rollout."""
    backtracks: int = option(10, COUNT)
    """Lengths of the step that are tried, each half of the one before."""

    def _require_consistent(self) -> None:
        super()._require_consistent()
        require_divisor(self, "value_minibatches")

    def make_learner(self, spec: EnvironmentSpec, seed: int) -> Learner:
        return make_natural_learner(self, spec, seed)

    def surrogate(self, log_prob: Steps, old_log_prob: Steps, advantage: Steps) -> Steps:
        return importance_surrogate(log_prob - old_log_prob, advantage)

    def update(self, learner: Learner, trajectory: Trajectory) -> tuple[Learner, Metrics]:
        learner, rows = prepare(self, learner, trajectory)
        ascent = natural_ascent(self, learner, rows)
        scale = search_scale(ascent, self.kl_limit, self.backtracks)
        return finish_update(self, learner, trajectory, rows, ascent, scale)


class _Search(NamedTuple):
    """The scale that is tried next, and how many were tried."""

    scale: Scalar
    tried: Int[Array, ""]


def search_scale(ascent: Ascent, kl_limit: Number, backtracks: int) -> Scalar:
    """The largest of 1, ½, ¼, … with which the objective grows within the limit; 0 if none does."""

    def accepted(scale: Scalar) -> Bool[Array, ""]:
        parameters = ascent.old + scale * ascent.step
        grows = ascent.objective(parameters) > ascent.before
        return grows & (ascent.kl(parameters) <= kl_limit)

    def unfinished(search: _Search) -> Bool[Array, ""]:
        return (search.tried < backtracks) & ~accepted(search.scale)

    def halve(search: _Search) -> _Search:
        is_last = search.tried + 1 >= backtracks
        return _Search(jnp.where(is_last, 0.0, search.scale / 2), search.tried + 1)

    start = _Search(jnp.ones(()), jnp.int32(0))
    return jax.lax.while_loop(unfinished, halve, start).scale
