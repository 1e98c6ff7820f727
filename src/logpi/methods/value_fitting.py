"""Fitting V(s, t; w) to the returns of a batch of whole episodes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from logpi.core.arrays import Number
from logpi.core.trajectory import Trajectory
from logpi.networks.critic import ValueFunction, restandardise
from logpi.networks.parameters import Vector, as_vector

# 2^32 / φ. Multiples of it, which wrap, are spread evenly over 32 bits.
GOLDEN = np.uint32(2654435769)
# More passes over a small batch would teach V its noise, and take longer than to sample it.
MOST_PASSES = 100


def fit_value(
    value: ValueFunction,
    state: optax.OptState,
    trajectory: Trajectory,
    target: Float[Array, "time env"],
    learning_rate: Number,
    minibatches: tuple[int, int],
) -> tuple[ValueFunction, optax.OptState, Float[Array, ""]]:
    """Adam steps on mean ((V - target) / scale)², `minibatches` being (how many, steps in each),
    but no more than `MOST_PASSES` over the batch.

    The scale is the deviation of the targets. Returns V, Adam's state and the last loss.
    """
    value = restandardise(value, target, trajectory.mask)
    parameters, rebuild = as_vector(value)
    optimizer = optax.scale_by_adam()

    def loss(parameters: Vector, at: tuple[Array, Array]) -> Float[Array, ""]:
        value = rebuild(parameters)
        predicted = value(trajectory.observation[at], trajectory.step[at])
        return jnp.mean(((predicted - target[at]) / value.units.scale) ** 2)

    most, size = minibatches
    lengths = jnp.sum(trajectory.mask, axis=0)
    count = jnp.clip((MOST_PASSES * jnp.sum(lengths) + size - 1) // size, 1, most)

    def step(number, carry):
        parameters, state, _ = carry
        at = spread_rows(lengths, number * size + jnp.arange(size))
        error, gradient = jax.value_and_grad(loss)(parameters, at)
        direction, state = optimizer.update(gradient, state)
        return parameters - learning_rate * jnp.asarray(direction), state, error

    start = (parameters, state, jnp.zeros_like(value.units.scale))
    parameters, state, error = jax.lax.fori_loop(0, count, step, start)
    return rebuild(parameters), state, error


def spread_rows(
    lengths: Int[Array, " env"], number: Int[Array, "..."]
) -> tuple[Int[Array, "..."], Int[Array, "..."]]:
    """(time, env) of steps that cover trajectories of these lengths evenly, for `number` = 0, 1, ….

    The trajectories start in row 0. Step number ⌊count · frac(j φ)⌋ for j = 0, 1, …: a Weyl
    sequence, whose every stretch is spread evenly and which needs no random numbers.
    """
    ends = jnp.cumsum(lengths)
    fraction = (number.astype(jnp.uint32) * GOLDEN).astype(jnp.float32) / 2.0**32
    row = jnp.minimum((fraction * ends[-1]).astype(jnp.int32), ends[-1] - 1)
    env = jnp.searchsorted(ends, row, side="right", method="scan_unrolled")
    return row - (ends - lengths)[env], env
