"""The algorithms' own estimators as functions of the contract that `logpi check` and `--estimator` know."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from logpi.algorithm import ActorCritic, Algorithm, Reinforce
from logpi.contract import Estimator
from logpi.estimator import score_function_surrogate, whiten
from logpi.reference import regularised_reward
from logpi.returns import advantages, discount_power, earlier_ratio
from logpi.surrogate import objective
from logpi.trajectory import Scalar, Trajectory
from logpi.update import baselines, returns, weights


def as_estimator(config: Algorithm) -> Estimator:
    """The loss whose gradient is that of the algorithm's first step on a batch, batch layout."""
    return _reinforce(config) if isinstance(config, Reinforce) else _actor_critic(config)


def _reinforce(config: Reinforce) -> Estimator:
    def loss(
        log_prob: Array, reward: Array, terminated: Array, truncated: Array, mask: Array, step: Array, value: Array
    ) -> Scalar:
        trajectory = Trajectory(step.T, step.T, reward.T, terminated.T, truncated.T, mask.T, step.T)
        return_ = returns(config, trajectory)
        baseline = baselines(config, value.T if config.baseline == "value" else None, trajectory, return_)
        return -score_function_surrogate(log_prob.T, weights(config, trajectory, return_, baseline), mask.T)

    return loss


def _actor_critic(config: ActorCritic) -> Estimator:
    def loss(
        log_prob: Array,
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
        advantage = advantages(stream, known, config.discount, config.trace_decay)[:-1].T
        weight = whiten(advantage, mask) if config.whiten else advantage
        old_log_prob, weight = jax.lax.stop_gradient((log_prob, weight))
        gain = objective(config, log_prob, old_log_prob, weight) + config.entropy_coefficient * entropy
        return -jnp.sum(jnp.where(mask, gain, 0.0)) / len(mask)

    return loss


def _stream(
    reward: Array, terminated: Array, truncated: Array, mask: Array, step: Array, value: Array, next_value: Array
) -> tuple[Trajectory, Float[Array, "time episodes"]]:
    """Episodes as columns of a stream, and V in its rows: after its last step a column has the row that it led to."""
    row = lambda x: jnp.pad(x.T, ((0, 1), (0, 0)))
    known = jnp.where(row(mask), row(value), jnp.roll(row(next_value), 1, axis=0))
    step = row(step)
    return Trajectory(step, step, row(reward), row(terminated), row(truncated), row(mask), step), known


def off_policy_estimator(discount: float, ratio_limit: float = math.inf) -> Estimator:
    """REINFORCE with a critic as baseline, from episodes of an older policy [D1.3, D4.4].

    Without a limit each reward has its per-decision importance weight, which is exact; with one, V-trace, BIASED: its
    ratios are cut, and how much likelier the new policy is to reach a step is left out.
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
        stream, known = _stream(reward, terminated | truncated, truncated, mask, step, value, jnp.zeros_like(value))
        log_ratio = jnp.pad((log_prob - old_log_prob).T, ((0, 1), (0, 0)))
        ratio = jnp.minimum(jnp.exp(log_ratio), ratio_limit)
        reached = earlier_ratio(stream, log_ratio) if ratio_limit == math.inf else 1.0
        advantage = reached * advantages(stream, known, discount, 1.0, ratio)
        return (discount_power(stream.step, discount) * advantage)[:-1].T

    return weight


def reference_estimator() -> Estimator:
    """What `--reference` adds to the reward, alone: the gradient of -KL(π, π_ref) of whole trajectories."""
    sum_of_costs = _reinforce(Reinforce(baseline="none"))

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
