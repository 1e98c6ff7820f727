"""PPO with a penalty on KL (Schulman et al. 2017, section 4), whose β is its state."""

from dataclasses import dataclass
from typing import ClassVar, final

import jax
import jax.numpy as jnp

from logpi.core.arrays import Number, Scalar
from logpi.core.options import COUNT, POSITIVE, Between, OneOf, option
from logpi.core.trajectory import Trajectory
from logpi.environments.spec import EnvironmentSpec
from logpi.methods import descent, rollouts
from logpi.methods.learner import Learner, Metrics
from logpi.methods.rollouts import Rows, Steps, mean_kl
from logpi.networks.options import NetworkOptions
from logpi.networks.parameters import Vector


@final
@dataclass(frozen=True, kw_only=True)
class PPOPenalty(rollouts.RolloutOptions, descent.JointOptions, NetworkOptions):
    """PPO with an adaptive penalty: several epochs on ρ A - β KL(π_old, π) (Schulman 2017, eq. 8).

    **Raises:** `LogpiError` for a value out of its range.
    """

    target: ClassVar[str] = "conventional-continuing"

    rollout_steps: int = option(256, COUNT, OneOf((64, 128, 256, 512)))
    """Steps of each copy between two updates. An episode may go on in the next rollout."""
    learning_rate: Number = option(0.0003, POSITIVE, Between(1e-4, 3e-3))
    """Adam's step size."""
    epochs: int = option(10, COUNT)
    """Passes over a rollout."""
    minibatches: int = option(32, COUNT)
    """Parts into which each pass divides it. With a memory each part is as many whole streams."""
    kl_target: Number = option(0.01, POSITIVE, Between(3e-3, 0.1))
    """Mean KL(old, new) of an update that β is adapted to."""
    penalty: float = option(1.0, POSITIVE)
    """β of the first update."""

    def _require_consistent(self) -> None:
        super()._require_consistent()
        descent.require_trunk(self, self.shared_trunk)
        rollouts.require_divisor(self, "minibatches")

    def make_learner(self, spec: EnvironmentSpec, seed: int) -> Learner:
        learner = descent.make_joint_learner(self, self.shared_trunk, spec, seed)
        return learner._replace(method_state=jnp.asarray(self.penalty))

    def surrogate(self, log_prob: Steps, old_log_prob: Steps, advantage: Steps) -> Steps:
        """ρ A."""
        return jnp.exp(log_prob - old_log_prob) * advantage

    def update(self, learner: Learner, trajectory: Trajectory) -> tuple[Learner, Metrics]:
        learner, rows = rollouts.prepare(self, learner, trajectory)
        joint = descent.joint_loss(self, learner)
        beta = jnp.asarray(learner.method_state)

        def loss(parameters: Vector, rows: Rows) -> tuple[Scalar, Metrics]:
            unpenalised, metrics = joint.loss(parameters, rows)
            policy, _ = joint.rebuild(parameters)
            return unpenalised + beta * mean_kl(learner.policy, policy, rows), metrics

        step = descent.adam_step(self.learning_rate, self.max_gradient_norm, loss)
        start = descent.Descent(joint.parameters, learner.policy_optimizer)
        keys = rollouts.epoch_keys(learner, self.epochs)
        state, history = descent.along_minibatches(step, start, rows, keys, self.minibatches)
        moved = descent.with_descent(learner, joint, state)
        kl = mean_kl(learner.policy, moved.policy, rows)
        moved = moved._replace(method_state=adapted(beta, kl, self.kl_target))
        after = rollouts.rollout_metrics(moved.policy, trajectory, rows)
        return moved, jax.tree.map(jnp.mean, history) | after


def adapted(beta: Scalar, kl: Scalar, target: Number) -> Scalar:
    """β / 2 where KL < target / 1.5, 2 β where KL > 1.5 target, else β."""
    halved = jnp.where(kl < target / 1.5, beta / 2, beta)
    return jnp.where(kl > 1.5 * target, 2 * beta, halved)
