"""Fitting V(s, t; w) to the returns of a batch."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from logpi.algorithm import Reinforce
from logpi.policy import Units, ValueFunction, Vector, as_vector
from logpi.trajectory import Trajectory, masked_mean, masked_variance

# The scale of returns that are all 0.
LEAST_SCALE = 1e-8


def fit_value(
    config: Reinforce,
    value: ValueFunction,
    state: optax.OptState,
    trajectory: Trajectory,
    return_: Float[Array, "time env"],
) -> tuple[ValueFunction, optax.OptState, Float[Array, ""]]:
    """`value_steps` Adam steps on the squared error of V in units of the returns' deviation; the last loss."""
    parameters, whole = as_vector(restandardise(value, return_, trajectory))
    optimizer = optax.scale_by_adam()

    def loss(parameters: Vector, at: tuple[Int[Array, " batch"], Int[Array, " batch"]]) -> Float[Array, ""]:
        value = whole(parameters)
        predicted = value(trajectory.observation[at], trajectory.step[at])
        return jnp.mean(((predicted - return_[at]) / value.units.scale) ** 2)

    def step(carry, at):
        parameters, state = carry
        error, gradient = jax.value_and_grad(loss)(parameters, at)
        direction, state = optimizer.update(gradient, state)
        return (parameters - config.value_learning_rate * jnp.asarray(direction), state), error

    minibatches = spread_rows(trajectory, (config.value_steps, config.value_batch))
    (parameters, state), losses = jax.lax.scan(step, (parameters, state), minibatches)
    return whole(parameters), state, losses[-1]


def spread_rows(trajectory: Trajectory, shape: tuple[int, int]) -> tuple[Int[Array, "..."], Int[Array, "..."]]:
    """(time, env) of minibatches that cover the steps of the batch evenly; the trajectories start in row 0.

    Step number ⌊count · frac(j φ)⌋ for j = 0, 1, …: a Weyl sequence, whose every stretch is spread evenly and which
    needs no random numbers.
    """
    lengths = jnp.sum(trajectory.mask, axis=0)
    ends = jnp.cumsum(lengths)
    golden = np.uint32(2654435769)  # 2^32 / φ; the product wraps, which is the fractional part
    weyl = (jnp.arange(shape[0] * shape[1], dtype=jnp.uint32).reshape(shape) * golden).astype(jnp.float32) / 2.0**32
    row = jnp.minimum((weyl * ends[-1]).astype(jnp.int32), ends[-1] - 1)
    env = jnp.searchsorted(ends, row, side="right", method="scan_unrolled")
    return row - (ends - lengths)[env], env


def restandardise(
    value: ValueFunction, return_: Float[Array, "time env"], trajectory: Trajectory, rate: Any = 1.0
) -> ValueFunction:
    """The same function V, its offset and scale moved by `rate` to those of the new returns (PopArt, van Hasselt et al.
    2016). A batch without a step changes nothing.
    """
    old, rate = value.units, rate * jnp.any(trajectory.mask)
    mean, variance = masked_mean(return_, trajectory.mask), masked_variance(return_, trajectory.mask)
    offset = old.offset + rate * (mean - old.offset)
    scale = jnp.sqrt((1 - rate) * (old.scale**2 + rate * (mean - old.offset) ** 2) + rate * variance)
    scale = jnp.maximum(scale, 1e-3 * jnp.abs(offset) + LEAST_SCALE)  # returns that are all equal have none
    weight, bias = value.network.weights[-1], value.network.biases[-1]
    return eqx.tree_at(
        lambda v: (v.network.weights[-1], v.network.biases[-1], v.units),
        value,
        (
            weight * old.scale / scale,
            (bias * old.scale + old.offset - offset) / scale,
            Units(offset, scale, jnp.asarray(old.trust)),
        ),
    )
