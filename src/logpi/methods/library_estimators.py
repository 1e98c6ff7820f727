"""The library's own losses as functions of the contract that `logpi check` and `--estimator` know.

Adapters: they turn [episodes, time] arrays into the trajectories of training and call what training
calls. No loss is written here.
"""

import inspect
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from logpi.core.arrays import Scalar
from logpi.core.trajectory import Trajectory
from logpi.estimators.contract import Estimator
from logpi.estimators.returns import advantages, off_policy_weight
from logpi.estimators.score_function import score_function_surrogate
from logpi.methods.reference import regularised_reward
from logpi.methods.reinforce import Reinforce
from logpi.methods.rollouts import RolloutMethod, gains, weigh


def reinforce_loss(method: Reinforce, trust: float = 1.0) -> Estimator:
    """REINFORCE's loss, whose baseline trusts the critic as far as `trust`."""

    def loss(
        log_prob: Array,
        reward: Array,
        terminated: Array,
        truncated: Array,
        mask: Array,
        step: Array,
        value: Array,
    ) -> Scalar:
        trajectory = _trajectory(reward.T, terminated.T, truncated.T, mask.T, step.T)
        critic = value.T if method.baseline == "value" else None
        weighed = method.weigh(trajectory, critic, trust)
        return -score_function_surrogate(log_prob.T, weighed.weight, trajectory.mask)

    return loss


def rollout_loss(method: RolloutMethod) -> Estimator:
    """The loss of policy and entropy on what an older policy has played, as in the steps along a
    rollout after the first; from advantages in units of 1.

    It is a mean over rows; times their number it is a sum over t and a mean over episodes, as the
    batch layout has it.
    """

    def loss(
        log_prob: Array,
        old_log_prob: Array,
        reward: Array,
        terminated: Array,
        truncated: Array,
        mask: Array,
        step: Array,
        value: Array,
        next_value: Array,
        entropy: Array,
    ) -> Scalar:
        stream, known = _stream(reward, terminated, truncated, mask, step, value, next_value)
        advantage = advantages(stream, known, method.discount, method.trace_decay)
        weight = jax.lax.stop_gradient(weigh(method, advantage, stream.mask, scale=1.0)[:-1])
        gained = gains(method, log_prob.T, old_log_prob.T, entropy.T, weight, mask.T)
        rows = mask.shape[1]
        return rows * gained.loss

    return loss


def on_first_step(loss: Estimator) -> Estimator:
    """The loss where the policy that acted is the one that is updated: ρ = 1."""

    def with_own_law(**inputs: Array) -> Scalar:
        return loss(**inputs, old_log_prob=jax.lax.stop_gradient(inputs["log_prob"]))

    signature = inspect.signature(loss)
    left = [each for name, each in signature.parameters.items() if name != "old_log_prob"]
    vars(with_own_law)["__signature__"] = signature.replace(parameters=left)
    return with_own_law


def off_policy_estimator(discount: float, ratio_limit: float = math.inf) -> Estimator:
    """REINFORCE with a critic as baseline, from episodes of an older policy [D1.3, D4.4].

    Without a limit each reward has its per-decision importance weight, which is exact. With one it
    is V-trace, BIASED: its ratios are cut, and how much likelier the new policy is to reach a step
    is left out.
    """

    def weight(
        log_prob: Array,
        old_log_prob: Array,
        reward: Array,
        terminated: Array,
        truncated: Array,
        mask: Array,
        step: Array,
        value: Array,
    ) -> Float[Array, "episodes time"]:
        ended = terminated | truncated
        beyond = jnp.zeros_like(value)
        stream, known = _stream(reward, ended, truncated, mask, step, value, beyond)
        log_ratio = _with_last_row(log_prob - old_log_prob)
        return off_policy_weight(stream, known, log_ratio, discount, ratio_limit)[:-1].T

    return weight


def reference_estimator() -> Estimator:
    """What `--reference` adds to the reward, alone: the gradient of -KL(π, π_ref) of
    trajectories.
    """
    sum_of_costs = reinforce_loss(Reinforce(baseline="none"))

    def loss(
        log_prob: Array,
        reference_log_prob: Array,
        terminated: Array,
        truncated: Array,
        mask: Array,
        step: Array,
    ) -> Scalar:
        zero = jnp.zeros_like(log_prob)
        reward = regularised_reward(zero, log_prob - reference_log_prob, 1.0)
        return sum_of_costs(log_prob, reward, terminated, truncated, mask, step, zero)

    return loss


def _trajectory(
    reward: Array, terminated: Array, truncated: Array, mask: Array, step: Array
) -> Trajectory:
    """A trajectory whose observations and actions are not read, from [time, env] arrays."""
    unread = jnp.zeros(mask.shape)
    return Trajectory(
        observation=unread,
        action=unread,
        reward=reward,
        terminated=terminated,
        truncated=truncated,
        mask=mask,
        step=step,
        memory=jnp.zeros((mask.shape[1], 0)),
    )


def _with_last_row(x: Array) -> Array:
    """[episodes, time] → [time + 1, episodes], the last row being 0."""
    return jnp.pad(x.T, ((0, 1), (0, 0)))


def _stream(
    reward: Array,
    terminated: Array,
    truncated: Array,
    mask: Array,
    step: Array,
    value: Array,
    next_value: Array,
) -> tuple[Trajectory, Float[Array, "time episodes"]]:
    """Episodes as columns of a stream, and V in its rows.

    After its last step a column has the row that the step led to.
    """
    reached = jnp.roll(_with_last_row(next_value), 1, axis=0)
    known = jnp.where(_with_last_row(mask), _with_last_row(value), reached)
    stream = _trajectory(
        _with_last_row(reward),
        _with_last_row(terminated),
        _with_last_row(truncated),
        _with_last_row(mask),
        _with_last_row(step),
    )
    return stream, known
