"""R(τ), reward-to-go [D0.2, D0.3, D4.2]; beyond the end of a rollout with a critic; after an older
policy [D1.3].
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from logpi.core.arrays import AnyArray, Number, Scalar, float_dtype
from logpi.core.trajectory import Trajectory


def reward_to_go(trajectory: Trajectory, discount: Number) -> Float[Array, "time env"]:
    """R_t = Σ_{k=t+1}^{T} γ^{k-t-1} r_k, by the recursion R_t = r_{t+1} + γ R_{t+1} [D4.2].

    Zero after the end of a trajectory. A truncated episode is a whole episode of the finite-horizon
    objective: nothing is added for a future that is not part of it.
    """
    ended = trajectory.terminated | trajectory.truncated
    reward = jnp.where(trajectory.mask, trajectory.reward, 0.0)
    carried = jnp.where(ended, 0.0, discount)

    def step(later: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        reward, carried = now
        return_ = reward + carried * later
        return return_, return_

    start = jnp.zeros_like(reward[0])
    return jax.lax.scan(step, start, (reward, carried), reverse=True)[1]


def whole_return(trajectory: Trajectory, discount: Number) -> Float[Array, "time env"]:
    """R(τ) = Σ_t γ^t r_{t+1}, the same number at every step of a trajectory that starts in row 0
    [D0.3].
    """
    return jnp.broadcast_to(reward_to_go(trajectory, discount)[0], trajectory.reward.shape)


def discount_power(step: Int[AnyArray, "time env"], discount: Number) -> Float[Array, "time env"]:
    """γ^t, with 0^0 = 1 [D4.3]."""
    return jnp.power(jnp.asarray(discount, float_dtype()), step)


def advantages(
    trajectory: Trajectory,
    value: Float[Array, "time env"],
    discount: Number,
    trace_decay: Number,
    ratio: Float[Array, "time env"] | Scalar | float = 1.0,
) -> Float[Array, "time env"]:
    """A_t = ρ_t (δ_t + γλ A_{t+1}), δ_t = r_{t+1} + γ V(s_{t+1}) - V(s_t).

    ρ = 1, on-policy: GAE(λ) (Schulman et al. 2016, eq. 16).
    ρ = min(π/π_old, c), for a stream of an older policy: V-trace (Espeholt et al. 2018, eq. 1),
    whose target is V_t + A_t.
    ρ = π/π_old: each reward has the weight of the decisions from t to it [D1.3].

    Rows are those of a stream: the row after a step holds the observation that it led to, with
    `mask` False where an episode or the rollout has ended there. So V(s_{t+1}) is the next row of
    `value`, the true successor's even after a truncation; after a termination it is 0; and A is 0
    in a row that is no step, which ends the sum there.
    """
    future = jnp.where(trajectory.terminated, 0.0, jnp.roll(value, -1, axis=0))
    error = jnp.asarray(trajectory.reward) + discount * future - value
    steps = (error, jnp.broadcast_to(ratio, error.shape), jnp.asarray(trajectory.mask))

    def step(later: Array, now: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        error, ratio, mask = now
        advantage = jnp.where(mask, ratio * (error + discount * trace_decay * later), 0.0)
        return advantage, advantage

    return jax.lax.scan(step, jnp.zeros_like(error[0]), steps, reverse=True)[1]


def lambda_return(
    trajectory: Trajectory, value: Float[Array, "time env"], discount: Number, trace_decay: Number
) -> Float[Array, "time env"]:
    """V_t + Σ_k (γλ)^k δ_{t+k} of whole episodes, whose future is nothing however they end; R_t
    where λ = 1.
    """
    whole = trajectory._replace(terminated=trajectory.terminated | trajectory.truncated)
    return value + advantages(whole, value, discount, trace_decay)


def earlier_ratio(
    trajectory: Trajectory, log_ratio: Float[Array, "time env"]
) -> Float[Array, "time env"]:
    """Π_{k<t} π(a_k|s_k) / π_old(a_k|s_k) of trajectories that start in row 0: how much likelier π
    is to reach step t.

    With it E_old[Π_{k<t} ρ_k A_t ∇ log π] is what E[A_t ∇ log π] is on-policy, A_t being that of
    `advantages` with ρ: per-decision importance sampling (Precup, Sutton & Singh 2000), exact for
    any π_old > 0 [D1.3].
    """
    log_ratio = jnp.where(trajectory.mask, log_ratio, 0.0)
    return jnp.exp(jnp.cumsum(log_ratio, axis=0) - log_ratio)


def cut_ratio(log_ratio: Float[Array, "time env"], limit: Number) -> Float[Array, "time env"]:
    """ρ = min(π/π_old, limit), that of V-trace."""
    return jnp.minimum(jnp.exp(log_ratio), limit)


def off_policy_weight(
    trajectory: Trajectory,
    value: Float[Array, "time env"],
    log_ratio: Float[Array, "time env"],
    discount: Number,
    ratio_limit: float,
) -> Float[Array, "time env"]:
    """γ^t Π_{k<t} ρ_k A_t, which multiplies ∇ log π in trajectories of an older policy
    [D1.3, D4.4]; ρ and A as in `advantages`, λ = 1.

    With a limit it is V-trace, BIASED: ρ is cut, and the product over earlier steps is left out.
    """
    advantage = advantages(trajectory, value, discount, 1.0, cut_ratio(log_ratio, ratio_limit))
    if ratio_limit == math.inf:
        advantage = earlier_ratio(trajectory, log_ratio) * advantage
    return discount_power(trajectory.step, discount) * advantage
