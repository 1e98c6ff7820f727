"""PPO: several epochs on a surrogate that gains nothing beyond a clip (Schulman et al. 2017)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, final

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from logpi.core.arrays import Number
from logpi.core.options import COUNT, LIMIT, POSITIVE, Between, OneOf, option
from logpi.core.trajectory import Trajectory
from logpi.environments.spec import EnvironmentSpec
from logpi.methods.descent import (
    Descent,
    JointLoss,
    JointOptions,
    adam_step,
    along_minibatches,
    joint_loss,
    make_joint_learner,
    require_trunk,
    with_descent,
)
from logpi.methods.learner import Learner, Metrics
from logpi.methods.rollouts import (
    RolloutOptions,
    Rows,
    Steps,
    epoch_keys,
    mean_kl,
    prepare,
    require_divisor,
    rollout_metrics,
)
from logpi.networks.options import NetworkOptions
from logpi.networks.parameters import Vector
from logpi.networks.policy import Policy


@final
@dataclass(frozen=True, kw_only=True)
class PPO(RolloutOptions, JointOptions, NetworkOptions):
    """PPO (Schulman et al. 2017): several epochs on min(ρ A, clip(ρ, 1 ± ε) A),
    ρ = π(a|s) / π_old(a|s) [D1.3].

    **Raises:** `LogpiError` for a value out of its range.
    """

    target: ClassVar[str] = "conventional-continuing"

    rollout_steps: int = option(256, COUNT, OneOf((32, 64, 128, 256, 512)))
    """Steps of each copy between two updates. An episode may go on in the next rollout."""
    learning_rate: Number = option(0.0003, POSITIVE, Between(1e-4, 3e-3))
    """Adam's step size."""
    epochs: int = option(10, COUNT, OneOf((4, 10, 20)))
    """Passes over a rollout."""
    minibatches: int = option(32, COUNT, OneOf((4, 8, 16, 32)))
    """Parts into which each pass divides it. With a memory each part is as many whole streams."""
    clip: Number = option(0.2, LIMIT, OneOf((0.1, 0.2, 0.3)))
    """ε: how far ρ may move before a step gains nothing; inf: no clipping. BIASED beyond the first
    step."""
    value_clip: float | None = option(None, LIMIT)
    """How far, in deviations of the returns, the critic may move from its old prediction; by
    default any distance."""
    kl_stop: float | None = option(None, LIMIT)
    """Mean KL(old, new) beyond which the rest of the epochs is skipped; by default none."""

    def _require_consistent(self) -> None:
        super()._require_consistent()
        require_trunk(self, self.shared_trunk)
        require_divisor(self, "minibatches")

    def make_learner(self, spec: EnvironmentSpec, seed: int) -> Learner:
        return make_joint_learner(self, self.shared_trunk, spec, seed)

    def surrogate(self, log_prob: Steps, old_log_prob: Steps, advantage: Steps) -> Steps:
        """min(ρ A, clip(ρ, 1 - ε, 1 + ε) A) (Schulman et al. 2017, eq. 7)."""
        ratio = jnp.exp(log_prob - old_log_prob)
        clipped = jnp.clip(ratio, 1 - self.clip, 1 + self.clip)
        return jnp.minimum(ratio * advantage, clipped * advantage)

    def update(self, learner: Learner, trajectory: Trajectory) -> tuple[Learner, Metrics]:
        learner, rows = prepare(self, learner, trajectory)
        learner, metrics = self._descend(learner, rows)
        return learner, metrics | rollout_metrics(learner.policy, trajectory, rows, self.clip)

    def _descend(self, learner: Learner, rows: Rows) -> tuple[Learner, Metrics]:
        """Policy and critic descend one loss, until all epochs are done or KL is past `kl_stop`."""
        joint = joint_loss(self, learner, self.value_clip)
        step = adam_step(self.learning_rate, self.max_gradient_norm, joint.loss)
        start = Descent(joint.parameters, learner.policy_optimizer)
        keys = epoch_keys(learner, self.epochs)
        stop = None
        if self.kl_stop is not None:
            stop = has_moved_beyond(self.kl_stop, learner.policy, joint, rows)
        state, history = along_minibatches(step, start, rows, keys, self.minibatches, stop)
        metrics = jax.tree.map(jnp.nanmean, history)
        return with_descent(learner, joint, state), metrics


def has_moved_beyond(
    limit: float, old: Policy, joint: JointLoss, rows: Rows
) -> Callable[[Vector], Bool[Array, ""]]:
    """Whether KL(old, new) is beyond `limit`, as a function of the parameters."""

    def stop(parameters: Vector) -> Bool[Array, ""]:
        policy, _ = joint.rebuild(parameters)
        return mean_kl(old, policy, rows) > limit

    return stop
