"""R(τ) and reward-to-go [D0.2, D0.3, D4.2]."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from logpi.trajectory import AnyArray, Trajectory


def reward_to_go(trajectory: Trajectory, discount: float) -> Float[Array, "time env"]:
    """R_t = Σ_{k=t+1}^{T} γ^{k-t-1} r_k, by the recursion R_t = r_{t+1} + γ R_{t+1} [D4.2].

    Zero after the end of a trajectory. A truncated episode is a whole episode of the finite-horizon objective: nothing
    is added for a future that is not part of it.
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


def whole_return(trajectory: Trajectory, discount: float) -> Float[Array, "time env"]:
    """R(τ) = Σ_t γ^t r_{t+1}, the same number at every step of a trajectory that starts in row 0 [D0.3]."""
    return jnp.broadcast_to(reward_to_go(trajectory, discount)[0], trajectory.reward.shape)


def discount_power(step: Int[AnyArray, "time env"], discount: float) -> Float[Array, "time env"]:
    """γ^t, with 0^0 = 1 [D4.3]."""
    return jnp.power(jnp.asarray(discount, jnp.result_type(float)), step)
