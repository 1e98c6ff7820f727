"""A2C: a step along the mean of A_t ∇ log π(a_t|s_t) for every rollout (Mnih et al. 2016)."""

from dataclasses import dataclass
from typing import ClassVar, final

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from logpi.core.arrays import Number
from logpi.core.options import COUNT, POSITIVE, Between, OneOf, option
from logpi.core.trajectory import Trajectory
from logpi.environments.spec import EnvironmentSpec
from logpi.estimators.returns import cut_ratio
from logpi.methods.descent import (
    Descent,
    JointOptions,
    adam_step,
    joint_loss,
    make_joint_learner,
    require_trunk,
    with_descent,
)
from logpi.methods.learner import Learner, Metrics
from logpi.methods.rollouts import RolloutOptions, Rows, Steps, prepare, rollout_metrics
from logpi.networks.options import NetworkOptions
from logpi.networks.policy import Policy


@final
@dataclass(frozen=True, kw_only=True)
class A2C(RolloutOptions, JointOptions, NetworkOptions):
    """Advantage actor-critic (Mnih et al. 2016): a step along the mean of A_t ∇ log π(a_t|s_t) for
    every rollout.

    **Raises:** `LogpiError` for a value out of its range.
    """

    target: ClassVar[str] = "conventional-continuing"

    rollout_steps: int = option(16, COUNT, OneOf((5, 16, 32, 64)))
    """Steps of each copy between two updates. An episode may go on in the next rollout."""
    learning_rate: Number = option(0.002, POSITIVE, Between(2e-4, 1e-2))
    """Adam's step size."""
    epochs: int = option(1, COUNT)
    """Steps along each rollout. From the second on V-trace allows for the policy having moved."""

    def _require_consistent(self) -> None:
        super()._require_consistent()
        require_trunk(self, self.shared_trunk)

    def make_learner(self, spec: EnvironmentSpec, seed: int) -> Learner:
        return make_joint_learner(self, self.shared_trunk, spec, seed)

    def surrogate(self, log_prob: Steps, old_log_prob: Steps, advantage: Steps) -> Steps:
        """A log π, whose gradient is A ∇ log π."""
        return advantage * log_prob

    def update(self, learner: Learner, trajectory: Trajectory) -> tuple[Learner, Metrics]:
        acting = learner.policy
        learner, rows = prepare(self, learner, trajectory)
        learner, metrics = self.descend(learner, rows)
        if self.epochs > 1:
            learner = self._later_epochs(learner, acting, trajectory)
        return learner, metrics | rollout_metrics(learner.policy, trajectory, rows)

    def descend(self, learner: Learner, rows: Rows) -> tuple[Learner, Metrics]:
        """One step of policy and critic down their loss."""
        joint = joint_loss(self, learner)
        step = adam_step(self.learning_rate, self.max_gradient_norm, joint.loss)
        start = Descent(joint.parameters, learner.policy_optimizer)
        state, metrics = step(start, rows)
        return with_descent(learner, joint, state), metrics

    def _later_epochs(self, learner: Learner, acting: Policy, trajectory: Trajectory) -> Learner:
        """Steps by V-trace, ρ = min(π/π_old, 1) (Espeholt et al. 2018)."""
        old_log_prob = log_prob_of(acting, trajectory)

        def again(learner: Learner, _: None) -> tuple[Learner, None]:
            log_ratio = log_prob_of(learner.policy, trajectory) - old_log_prob
            learner, rows = prepare(self, learner, trajectory, cut_ratio(log_ratio, 1.0))
            return self.descend(learner, rows)[0], None

        return jax.lax.scan(again, learner, length=self.epochs - 1)[0]


def log_prob_of(policy: Policy, trajectory: Trajectory) -> Float[Array, "time env"]:
    """log π(a_t|s_t) in every row."""
    law = policy.distributions(trajectory.observation, trajectory.step, trajectory.memory)
    return jnp.asarray(law.log_prob(trajectory.action))
