"""τ: what was observed, done and paid, for many trajectories side by side [D3.1]."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

Out = TypeVar("Out")
# Trajectories are of JAX arrays in compiled programs, and of NumPy arrays where Python steps the environment.
AnyArray: TypeAlias = Array | np.ndarray
Scalar: TypeAlias = Float[Array, ""]
# An option may change while a run goes on; in a compiled program it is then an array.
Number: TypeAlias = float | Scalar

# Rows (steps x trajectories) that one pass of the networks sees: large enough for the matrix products to run at
# full speed, small enough for the activations to stay in the cache.
ROWS_PER_CHUNK = 4096


def float_dtype() -> np.dtype:
    """The kind of real number in use: float32, or float64 where JAX's x64 is on."""
    return jax.dtypes.canonicalize_dtype(float)


class Trajectory(NamedTuple):
    """Arrays `[time, env, ...]`; column i is one trajectory, padded after its end.

    Action `action[t]` is taken on `observation[t]` and answered by `reward[t]`, the r_{t+1} of the derivation.
    `terminated` and `truncated` mark the last step of an episode and are never merged: a terminated episode has no
    future, a truncated one was cut. `mask` is True where a step belongs to the trajectory, `step` is t within its
    episode.

    A stream is a column of several episodes, cut into rollouts: after the last step of an episode, and after the last
    of the rollout, one row that is no step holds the observation that was reached. `paid` is the sum of an episode's
    rewards up to each step, which may have begun in an earlier rollout. `remembered` is what a policy with a memory
    knew before row 0.
    """

    observation: AnyArray
    action: AnyArray
    reward: Float[AnyArray, "time env"]
    terminated: Bool[AnyArray, "time env"]
    truncated: Bool[AnyArray, "time env"]
    mask: Bool[AnyArray, "time env"]
    step: Int[AnyArray, "time env"]
    paid: Float[AnyArray, "time env"] | None = None
    remembered: Float[AnyArray, "env state"] | None = None

    @property
    def used(self) -> Int[Array, ""]:
        """Number of leading time rows after which there are no more steps; in a stream rows between may have none."""
        rows = jnp.arange(1, len(self.mask) + 1)
        return jnp.max(jnp.where(jnp.any(self.mask, axis=1), rows, 0))


def beside(flag: Bool[AnyArray, "*steps"], x: AnyArray) -> Bool[AnyArray, "..."]:
    """`flag` with as many axes as `x`, whose leading ones it has."""
    return flag.reshape(*flag.shape, *[1] * (x.ndim - flag.ndim))


def _chunk_length(trees: PyTree) -> int:
    time, env = jax.tree.leaves(trees)[0].shape[:2]
    return max(1, min(time, ROWS_PER_CHUNK // env))


def _chunks(trees: PyTree, used: Int[Array, ""]) -> tuple[Callable[[Array], PyTree], Int[Array, ""], int]:
    """How to take chunk i of padded `trees`, how many chunks hold data, and the padded length."""
    length = _chunk_length(trees)
    time = jax.tree.leaves(trees)[0].shape[0]
    padded = -(-time // length) * length
    trees = jax.tree.map(lambda x: jnp.pad(x, [(0, padded - time)] + [(0, 0)] * (x.ndim - 1)), trees)

    def take(index: Array) -> PyTree:
        return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, index * length, length), trees)

    return take, (used + length - 1) // length, padded


def sum_over_time(function: Callable[[PyTree], Out], trees: PyTree, used: Int[Array, ""], whole: bool = False) -> Out:
    """Σ of `function(chunk)` over the chunks of time rows that hold data.

    One compiled program serves episodes of every length: the number of chunks is a run-time value, so short episodes
    in a long buffer cost what short episodes cost. `whole`: one chunk of everything, for what looks back in time.
    """
    if whole:
        return function(trees)
    take, count, _ = _chunks(trees, used)
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(lambda: function(take(jnp.int32(0)))))
    return jax.lax.fori_loop(0, count, lambda i, total: jax.tree.map(jnp.add, total, function(take(i))), zero)


def map_over_time(
    function: Callable[[PyTree], Float[Array, "chunk env"]], trees: PyTree, used: Int[Array, ""]
) -> Float[Array, "time env"]:
    """`function` of every chunk, side by side again; zero in the rows after `used`."""
    take, count, padded = _chunks(trees, used)
    time, env = jax.tree.leaves(trees)[0].shape[:2]
    length = _chunk_length(trees)
    dtype = jax.eval_shape(lambda: function(take(jnp.int32(0)))).dtype

    def write(i: Array, out: Array) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(out, function(take(i)), i * length, axis=0)

    return jax.lax.fori_loop(0, count, write, jnp.zeros((padded, env), dtype))[:time]


def masked_mean(x: Float[AnyArray, "*steps"], mask: Bool[AnyArray, "*steps"]) -> Float[Array, ""]:
    """Mean over the steps that belong to a trajectory; 0 where none does."""
    return jnp.sum(jnp.where(mask, x, 0.0)) / jnp.maximum(jnp.sum(mask), 1)


def masked_variance(x: Float[AnyArray, "*steps"], mask: Bool[AnyArray, "*steps"]) -> Float[Array, ""]:
    """Variance over the steps that belong to a trajectory."""
    return masked_mean((x - masked_mean(x, mask)) ** 2, mask)


def explained_variance(
    target: Float[AnyArray, "*steps"], predicted: Float[AnyArray, "*steps"], mask: Bool[AnyArray, "*steps"]
) -> Float[Array, ""]:
    """1 - Var(target - predicted) / Var(target) over the steps that belong to a trajectory; NaN for equal targets."""
    spread = masked_variance(target, mask)
    return jnp.where(spread > 0, 1 - masked_variance(target - predicted, mask) / spread, jnp.nan)
