"""The one step of learning: (learner, τ) → (learner, metrics) [D4.3]."""

import math
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from logpi.actor_critic import actor_critic_update
from logpi.algorithm import Algorithm, Reinforce, annealed
from logpi.baseline import leave_one_out, shrunk_value, trust, value_baseline
from logpi.estimator import reinforce_weight, score_function_surrogate, whiten
from logpi.learner import Learner, Metrics, learned
from logpi.own_estimator import own_gradient
from logpi.policy import Policy, Vector, as_vector
from logpi.reference import near_reference
from logpi.returns import discount_power, lambda_return, reward_to_go, whole_return
from logpi.trajectory import Scalar, Trajectory, explained_variance, sum_over_time
from logpi.value import fit_value


def update(
    config: Algorithm, learner: Learner, trajectory: Trajectory, budget: int | float = math.inf
) -> tuple[Learner, Metrics]:
    """One update by the configured algorithm; `budget` is the number of steps over which options are annealed."""
    config = annealed(config, jnp.minimum(learner.steps / budget, 1.0))
    if isinstance(config, Reinforce):
        learner, metrics = reinforce_update(config, learner, trajectory)
    else:
        learner, metrics = actor_critic_update(config, learner, trajectory)
    return learned(learner, trajectory), metrics | {"learning_rate": jnp.asarray(config.learning_rate)}


def reinforce_update(config: Reinforce, learner: Learner, trajectory: Trajectory) -> tuple[Learner, Metrics]:
    """θ ← θ + α · 1/N Σ_i Σ_t γ^t (R_t - b_t) ∇ log π(a_t|s_t; θ), then b is fitted to the returns it has just met.

    The baseline is used before it sees the batch: a baseline fitted to a return is not independent of the action.
    """
    paid = near_reference(learner.policy, learner.reference, trajectory, config.reference_coefficient)
    return_ = returns(config, paid)
    estimated = None if learner.value is None else value_baseline(learner.value, trajectory)
    baseline = baselines(config, estimated, trajectory, return_)
    if learner.value is not None and estimated is not None:
        baseline = shrunk_value(baseline, jnp.asarray(learner.value.units.trust), return_, trajectory.mask)
    if config.estimator is None:
        gradient, sums = policy_gradient(learner.policy, trajectory, weights(config, trajectory, return_, baseline))
    else:
        own_baseline = None if estimated is None else baseline
        gradient, sums = own_gradient(
            config.estimator, config.discount, learner.policy, learner.reference, paid, own_baseline
        )
    policy, policy_optimizer, metrics = policy_step(config, learner, trajectory, gradient, sums)
    metrics |= batch_metrics(trajectory, return_, baseline)
    value, value_optimizer = learner.value, learner.value_optimizer
    if value is not None and estimated is not None:
        value = eqx.tree_at(lambda v: v.units.trust, value, trust(estimated, return_, trajectory.mask))
        target = return_
        if config.returns == "reward-to-go":
            target = lambda_return(paid, estimated, config.discount, config.value_trace_decay)
        value, value_optimizer, metrics["value_loss"] = fit_value(config, value, value_optimizer, trajectory, target)
    learner = replace(learner, policy=policy, policy_optimizer=policy_optimizer)
    return replace(learner, value=value, value_optimizer=value_optimizer), metrics


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


def policy_gradient(policy: Policy, trajectory: Trajectory, weight: Float[Array, "time env"]) -> tuple[Vector, Metrics]:
    """ĝ = 1/N Σ_i Σ_t w_{t,i} ∇ log π(a_{t,i}|s_{t,i}; θ), and the surrogate and summed entropy on the way."""
    parameters, with_parameters = as_vector(policy)

    def surrogate(parameters: Vector, chunk: tuple[Trajectory, Array]) -> tuple[Scalar, Metrics]:
        (trajectory, weight), policy = chunk, with_parameters(parameters)
        distribution = policy.along(trajectory.observation, trajectory.step, policy.blank(trajectory.mask.shape[1]))
        objective = score_function_surrogate(distribution.log_prob(trajectory.action), weight, trajectory.mask)
        entropy = jnp.sum(jnp.where(trajectory.mask, distribution.entropy(), 0.0))
        return objective, {"surrogate": objective, "entropy": jax.lax.stop_gradient(entropy)}

    gradient = jax.grad(surrogate, has_aux=True)
    whole = policy.memory is not None
    return sum_over_time(lambda chunk: gradient(parameters, chunk), (trajectory, weight), trajectory.used, whole)


def policy_step(
    config: Reinforce, learner: Learner, trajectory: Trajectory, gradient: Vector, sums: Metrics
) -> tuple[Policy, optax.OptState, Metrics]:
    """One Adam step uphill, shortened to the KL limit: KL grows with the square of a small step."""
    parameters, whole = as_vector(learner.policy)
    direction, state = optax.scale_by_adam().update(-gradient, learner.policy_optimizer)  # Optax minimises
    step = -config.learning_rate * jnp.asarray(direction)
    kl = mean_kl(learner.policy, whole(parameters + step), trajectory)
    scale = jnp.minimum(1.0, jnp.sqrt(config.kl_limit / jnp.maximum(kl, 1e-30)))  # rounding can make KL negative
    metrics = {
        "surrogate": sums["surrogate"],
        "entropy": sums["entropy"] / jnp.sum(trajectory.mask),
        "gradient_norm": jnp.linalg.norm(gradient),
        "kl": kl * scale**2,
        "step_scale": scale,
    }
    return whole(parameters + scale * step), state, metrics


def mean_kl(old: Policy, new: Policy, trajectory: Trajectory) -> Scalar:
    """KL(old, new) averaged over the steps of the batch."""

    def chunk_kl(chunk: Trajectory) -> Scalar:
        before, after = (
            policy.along(chunk.observation, chunk.step, policy.blank(chunk.mask.shape[1])) for policy in (old, new)
        )
        return jnp.sum(jnp.where(chunk.mask, before.kl(after), 0.0))

    whole = old.memory is not None
    return sum_over_time(chunk_kl, trajectory, trajectory.used, whole) / jnp.sum(trajectory.mask)


def batch_metrics(
    trajectory: Trajectory, return_: Float[Array, "time env"], baseline: Float[Array, "time env"]
) -> Metrics:
    """What the batch shows before anything is changed; the return here is the plain sum of rewards [D0.2]."""
    mask = trajectory.mask
    return {
        "episode_return": jnp.sum(jnp.where(mask, trajectory.reward, 0.0)) / mask.shape[1],
        "episode_length": jnp.sum(mask) / mask.shape[1],
        "explained_variance": explained_variance(return_, baseline, mask),
        "steps": jnp.sum(mask, dtype=jnp.int32),
        "episodes": jnp.asarray(mask.shape[1]),
    }
