"""∇J from samples: the score-function surrogate [D2.5, D3.5, D4.4].

The sign and the normalisation of every policy gradient in this library stand here, once: a
surrogate is an *objective* (its gradient points uphill), it is a sum over the steps of a trajectory
and a mean over trajectories.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from logpi.core.arrays import AnyArray, masked_mean, masked_variance


def score_function_surrogate(
    log_prob: Float[Array, "time env"],
    weight: Float[Array, "time env"],
    mask: Bool[AnyArray, "time env"],
) -> Float[Array, ""]:
    """L(θ) = 1/N Σ_{i=1}^N Σ_t w_{t,i} log π(a_{t,i}|s_{t,i}; θ),

    so that ∇L = 1/N Σ_i Σ_t w_{t,i} ∇ log π(a_{t,i}|s_{t,i}; θ).

    With w_t = γ^t (R_t - b(s_t)), the weight of `reinforce_weight`, E[∇L] = ∇J exactly [D4.4]. The
    weight is not differentiated [D2.2].
    """
    terms = jnp.where(mask, jax.lax.stop_gradient(weight) * log_prob, 0.0)
    return jnp.sum(terms) / mask.shape[1]


def reinforce_weight(
    return_: Float[Array, "time env"],
    baseline: Float[Array, "time env"],
    power: Float[Array, "time env"],
) -> Float[Array, "time env"]:
    """w_t = γ^t (R_t - b_t), `power` being γ^t [D4.3].

    Where `return_` is the whole R(τ) instead of R_t, γ^t is in it already and `power` is 1 [D3.5].
    """
    return power * (return_ - baseline)


def whiten(
    weight: Float[Array, "time env"], mask: Bool[AnyArray, "time env"]
) -> Float[Array, "time env"]:
    """BIASED: weights shifted and scaled to mean 0 and standard deviation 1 over the steps of the
    batch.

    The mean and the deviation contain the sample that they are applied to, so the expectation is no
    longer ∇J.
    """
    deviation = jnp.sqrt(masked_variance(weight, mask))
    return (weight - masked_mean(weight, mask)) / (deviation + 1e-8)
