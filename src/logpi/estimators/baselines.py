"""b(s_t): what may be subtracted from a return without changing the expectation of ∇ log π times
it.

E[b ∇ log π(a_t|s_t)] = 0 for every b that does not depend on a_t or on what follows it.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from logpi.core.arrays import AnyArray, Number
from logpi.core.trajectory import Trajectory, map_over_time
from logpi.networks.critic import ValueFunction


def leave_one_out(
    return_: Float[Array, "time env"], mask: Bool[AnyArray, "time env"]
) -> Float[Array, "time env"]:
    """b_{t,i} = mean of R_{t,j} over the other trajectories j ≠ i that are still running at t; 0
    where there are none.

    Own returns stay out: with them the gradient would shrink by (N-1)/N (Kool, van Hoof & Welling
    2019).
    """
    running = jnp.where(mask, return_, 0.0)
    others = jnp.sum(mask, axis=1, keepdims=True) - mask
    total = jnp.sum(running, axis=1, keepdims=True) - running
    return total / jnp.maximum(others, 1)


def shrunk_value(
    value: Float[Array, "time env"],
    trust: Number,
    return_: Float[Array, "time env"],
    mask: Bool[AnyArray, "time env"],
) -> Float[Array, "time env"]:
    """b_t = c V(s_t, t) + (1 - c) leave-one-out mean, c being the `trust` in V.

    While V explains nothing, trajectories that are all paid the same weigh exactly 0, where V's
    error would weigh them at random and Adam would take that noise for a direction.
    """
    return trust * value + (1 - trust) * leave_one_out(return_, mask)


def measure_trust(
    value: Float[Array, "time env"],
    return_: Float[Array, "time env"],
    mask: Bool[AnyArray, "time env"],
) -> Float[Array, ""]:
    """c in [0, 1], the slope of R on V, both as differences to the other trajectories at the same
    t.

    It is for the next batch: measured on other samples than those it is used on, it leaves the
    baseline independent of the action.
    """

    def difference(x: Float[Array, "time env"]) -> Float[Array, "time env"]:
        return jnp.where(mask, x - leave_one_out(x, mask), 0.0)

    value = difference(value)
    return_ = difference(return_)
    spread = jnp.sum(value * value)
    slope = jnp.sum(value * return_) / jnp.where(spread > 0, spread, 1.0)
    return jnp.clip(slope, 0.0, 1.0)


def value_baseline(value: ValueFunction, trajectory: Trajectory) -> Float[Array, "time env"]:
    """b_t = V(s_t, t; w), with the w of before this batch was seen."""

    def predict(chunk: tuple[AnyArray, AnyArray]) -> Float[Array, "chunk env"]:
        observation, step = chunk
        return value(observation, step)

    return map_over_time(predict, (trajectory.observation, trajectory.step), trajectory.used)
