"""Objectives whose gradient at π = π_old is Σ A ∇ log π, for steps that move away from π_old [D1.3]."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from logpi.algorithm import A2C, PPO, ActorCritic
from logpi.trajectory import Number


def importance_surrogate(log_ratio: Float[Array, "*steps"], weight: Float[Array, "*steps"]) -> Float[Array, "*steps"]:
    """ρ A, ρ = π(a|s) / π_old(a|s): its gradient is A ρ ∇ log π, and A ∇ log π where π is still π_old."""
    return jnp.exp(log_ratio) * weight


def clipped_surrogate(
    log_ratio: Float[Array, "*steps"], weight: Float[Array, "*steps"], clip: Number
) -> Float[Array, "*steps"]:
    """min(ρ A, clip(ρ, 1 - ε, 1 + ε) A) (Schulman et al. 2017, eq. 7): no gain for moving ρ further than ε."""
    ratio = jnp.exp(log_ratio)
    return jnp.minimum(ratio * weight, jnp.clip(ratio, 1 - clip, 1 + clip) * weight)


def objective(
    config: ActorCritic,
    log_prob: Float[Array, "*steps"],
    old_log_prob: Float[Array, "*steps"],
    advantage: Float[Array, "*steps"],
) -> Float[Array, "*steps"]:
    """What each algorithm makes larger, step by step; at π = π_old its gradient is A ∇ log π for all of them."""
    match config:
        case A2C():
            return advantage * log_prob
        case PPO():
            return clipped_surrogate(log_prob - old_log_prob, advantage, config.clip)
        case _:
            return importance_surrogate(log_prob - old_log_prob, advantage)
