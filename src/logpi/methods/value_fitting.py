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


def fit_value(
    value: ValueFunction,
    state: optax.OptState,
    trajectory: Trajectory,
    target: Float[Array, "time env"],
    learning_rate: Number,
    minibatches: tuple[int, int],
) -> tuple[ValueFunction, optax.OptState, Float[Array, ""]]:
    """Adam steps on mean ((V - target) / scale)², `minibatches` being (how many, steps in each).

    The scale is the deviation of the targets. Returns V, Adam's state and the last loss.
    """
    value = restandardise(value, target, trajectory.mask)
    parameters, rebuild = as_vector(value)
    optimizer = optax.scale_by_adam()

    def loss(parameters: Vector, at: tuple[Array, Array]) -> Float[Array, ""]:
        value = rebuild(parameters)
        predicted = value(trajectory.observation[at], trajectory.step[at])
        return jnp.mean(((predicted - target[at]) / value.units.scale) ** 2)

    def step(carry, at):
        parameters, state = carry
        error, gradient = jax.value_and_grad(loss)(parameters, at)
        direction, state = optimizer.update(gradient, state)
        return (parameters - learning_rate * jnp.asarray(direction), state), error

    rows = spread_rows(trajectory, minibatches)
    (parameters, state), losses = jax.lax.scan(step, (parameters, state), rows)
    return rebuild(parameters), state, losses[-1]


def spread_rows(
    trajectory: Trajectory, shape: tuple[int, int]
) -> tuple[Int[Array, "..."], Int[Array, "..."]]:
    """(time, env) of minibatches that cover the steps of the batch evenly.

    The trajectories start in row 0. Step number ⌊count · frac(j φ)⌋ for j = 0, 1, …: a Weyl
    sequence, whose every stretch is spread evenly and which needs no random numbers.
    """
    lengths = jnp.sum(trajectory.mask, axis=0)
    ends = jnp.cumsum(lengths)
    number = jnp.arange(shape[0] * shape[1], dtype=jnp.uint32).reshape(shape)
    fraction = (number * GOLDEN).astype(jnp.float32) / 2.0**32
    row = jnp.minimum((fraction * ends[-1]).astype(jnp.int32), ends[-1] - 1)
    env = jnp.searchsorted(ends, row, side="right", method="scan_unrolled")
    return row - (ends - lengths)[env], env
