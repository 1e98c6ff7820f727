"""The one step of learning: (learner, τ) → (learner, metrics) [D4.3]."""

from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from logpi.baseline import leave_one_out, value_baseline
from logpi.config import Reinforce
from logpi.contract import Estimator
from logpi.envs.base import EnvironmentSpec
from logpi.estimator import reinforce_weight, score_function_surrogate, whiten
from logpi.own_estimator import own_estimator, own_gradient
from logpi.policy import Policy, ValueFunction, make_policy, make_value_function
from logpi.randomness import Stream, numpy_generator
from logpi.returns import discount_power, reward_to_go, whole_return
from logpi.trajectory import Trajectory, masked_variance, sum_over_time
from logpi.value import fit_value

Scalar: TypeAlias = Float[Array, ""]
Metrics: TypeAlias = dict[str, Scalar]


class Learner(eqx.Module):
    """What the next update needs, and nothing else: parameters, optimiser states, and the number of the next batch."""

    policy: Policy
    value: ValueFunction | None
    policy_optimizer: optax.OptState
    value_optimizer: optax.OptState
    batch: Int[Array, ""]


def make_learner(config: Reinforce, spec: EnvironmentSpec, seed: int) -> Learner:
    """The learner before its first batch."""
    if config.estimator is not None:
        own_estimator(config.estimator, config.baseline == "value")  # before anything is sampled
    random = numpy_generator(seed, Stream.INITIALISATION)
    policy = make_policy(spec.observation_space, spec.action_space, config.hidden, config.actions, random)
    value = None
    if config.baseline == "value":
        value = make_value_function(spec.observation_space, config.hidden, spec.max_episode_steps, random)
    network = None if value is None else value.network
    return Learner(policy, value, _adam_state(policy), _adam_state(network), jax.device_put(np.int32(0)))


def _adam_state(parameters: Any) -> optax.OptState:
    """Adam's state before the first step, which is all zeros: made without compiling anything."""
    shapes = jax.eval_shape(optax.adam(1.0).init, parameters)
    return jax.tree.map(lambda leaf: jax.device_put(np.zeros(leaf.shape, leaf.dtype)), shapes)


def update(config: Reinforce, learner: Learner, trajectory: Trajectory) -> tuple[Learner, Metrics]:
    """θ ← θ + α · 1/N Σ_i Σ_t γ^t (R_t - b_t) ∇ log π(a_t|s_t; θ), then b is fitted to the returns it has just met.

    The baseline is used before it sees the batch: a baseline fitted to a return is not independent of the action.
    """
    return_ = returns(config, trajectory)
    estimated = None if learner.value is None else value_baseline(learner.value, trajectory)
    baseline = baselines(config, estimated, trajectory, return_)
    if config.estimator is None:
        gradient, sums = policy_gradient(learner.policy, trajectory, weights(config, trajectory, return_, baseline))
    else:
        gradient, sums = own_gradient(config.estimator, config.discount, learner.policy, trajectory, estimated)
    policy, policy_optimizer, metrics = policy_step(config, learner, trajectory, gradient, sums)
    metrics |= batch_metrics(trajectory, return_, baseline)
    value, value_optimizer = learner.value, learner.value_optimizer
    if value is not None:
        value, value_optimizer, metrics["value_loss"] = fit_value(config, value, value_optimizer, trajectory, return_)
    return Learner(policy, value, policy_optimizer, value_optimizer, learner.batch + 1), metrics


def returns(config: Reinforce, trajectory: Trajectory) -> Float[Array, "time env"]:
    """R_t [D4.2], or R(τ) at every step [D3.5]."""
    which = reward_to_go if config.returns == "reward-to-go" else whole_return
    return which(trajectory, config.discount)


def baselines(
    config: Reinforce,
    value: Float[Array, "time env"] | None,
    trajectory: Trajectory,
    return_: Float[Array, "time env"],
) -> Float[Array, "time env"]:
    """b_t of the configured kind, `value` being V(s_t, t) if that is it."""
    if value is not None:
        return value
    if config.baseline == "leave-one-out":
        return leave_one_out(return_, trajectory.mask)
    return jnp.zeros_like(return_)


def weights(
    config: Reinforce,
    trajectory: Trajectory,
    return_: Float[Array, "time env"],
    baseline: Float[Array, "time env"],
) -> Float[Array, "time env"]:
    """What multiplies ∇ log π at each step, the deliberate biases included where they are asked for."""
    power = discount_power(trajectory.step, config.discount)
    if config.returns == "whole" or config.drop_discount_power:
        power = jnp.ones_like(power)
    weight = reinforce_weight(return_, baseline, power)
    return whiten(weight, trajectory.mask) if config.whiten else weight


def as_estimator(config: Reinforce) -> Estimator:
    """The estimator of `config` as a function of the contract that `logpi check` and `--estimator` know."""

    def loss(
        log_prob: Array, reward: Array, terminated: Array, truncated: Array, mask: Array, step: Array, value: Array
    ) -> Scalar:
        trajectory = Trajectory(step.T, step.T, reward.T, terminated.T, truncated.T, mask.T, step.T)
        return_ = returns(config, trajectory)
        baseline = baselines(config, value.T if config.baseline == "value" else None, trajectory, return_)
        return -score_function_surrogate(log_prob.T, weights(config, trajectory, return_, baseline), mask.T)

    return loss


def policy_gradient(policy: Policy, trajectory: Trajectory, weight: Float[Array, "time env"]) -> tuple[Policy, Metrics]:
    """ĝ = 1/N Σ_i Σ_t w_{t,i} ∇ log π(a_{t,i}|s_{t,i}; θ), and the surrogate and summed entropy on the way."""

    def surrogate(policy: Policy, chunk: tuple[Trajectory, Array]) -> tuple[Scalar, Metrics]:
        trajectory, weight = chunk
        distribution = policy(trajectory.observation)
        objective = score_function_surrogate(distribution.log_prob(trajectory.action), weight, trajectory.mask)
        entropy = jnp.sum(jnp.where(trajectory.mask, distribution.entropy(), 0.0))
        return objective, {"surrogate": objective, "entropy": jax.lax.stop_gradient(entropy)}

    gradient = jax.grad(surrogate, has_aux=True)
    return sum_over_time(lambda chunk: gradient(policy, chunk), (trajectory, weight), trajectory.used)


def policy_step(
    config: Reinforce, learner: Learner, trajectory: Trajectory, gradient: Policy, sums: Metrics
) -> tuple[Policy, optax.OptState, Metrics]:
    """One Adam step uphill, shortened to the KL limit: KL grows with the square of a small step."""
    downhill = jax.tree.map(jnp.negative, gradient)  # Optax minimises
    optimizer = optax.adam(config.learning_rate)
    step, state = optimizer.update(downhill, learner.policy_optimizer)
    policy = eqx.apply_updates(learner.policy, step)
    kl = mean_kl(learner.policy, policy, trajectory)
    scale = jnp.ones_like(kl)
    if config.kl_limit > 0:
        scale = jnp.sqrt(config.kl_limit / jnp.maximum(kl, config.kl_limit))
        policy = eqx.apply_updates(learner.policy, jax.tree.map(lambda s: scale * s, step))
    metrics = {
        "surrogate": sums["surrogate"],
        "entropy": sums["entropy"] / jnp.sum(trajectory.mask),
        "gradient_norm": optax.tree.norm(gradient),
        "kl": kl * scale**2,
        "step_scale": scale,
    }
    return policy, state, metrics


def mean_kl(old: Policy, new: Policy, trajectory: Trajectory) -> Scalar:
    """KL(old, new) averaged over the steps of the batch."""

    def chunk_kl(chunk: Trajectory) -> Scalar:
        kl = old(chunk.observation).kl(new(chunk.observation))
        return jnp.sum(jnp.where(chunk.mask, kl, 0.0))

    return sum_over_time(chunk_kl, trajectory, trajectory.used) / jnp.sum(trajectory.mask)


def batch_metrics(
    trajectory: Trajectory, return_: Float[Array, "time env"], baseline: Float[Array, "time env"]
) -> Metrics:
    """What the batch shows before anything is changed; the return here is the plain sum of rewards [D0.2]."""
    mask = trajectory.mask
    unexplained, spread = masked_variance(return_ - baseline, mask), masked_variance(return_, mask)
    return {
        "episode_return": jnp.sum(jnp.where(mask, trajectory.reward, 0.0)) / mask.shape[1],
        "episode_length": jnp.sum(mask) / mask.shape[1],
        "explained_variance": jnp.where(spread > 0, 1 - unexplained / spread, jnp.nan),
        "steps": jnp.sum(mask),
    }
