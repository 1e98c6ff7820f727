"""τ: what was observed, done and paid, for many trajectories side by side [D3.1]."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from logpi.core.arrays import AnyArray

Out = TypeVar("Out")

# Rows (steps x trajectories) that one pass of the networks sees: large enough for the matrix
# products to run at full speed, small enough for the activations to stay in the cache.
ROWS_PER_CHUNK = 4096


class Trajectory(NamedTuple):
    """Arrays `[time, env, ...]`; column i is one trajectory, padded after its end.

    Action `action[t]` is taken on `observation[t]` and answered by `reward[t]`, the r_{t+1} of the
    derivation. `terminated` and `truncated` mark the last step of an episode and are never merged:
    a terminated episode has no future, a truncated one was cut. `mask` is True where a step belongs
    to the trajectory, `step` is t within its episode. `memory` is what the policy remembers before
    row 0, `[env, 0]` for a policy without a memory.

    In a *stream* a column holds one episode after another, cut into rollouts of fixed length. After
    the last step of an episode, and of the rollout, one extra row (mask False) holds the
    observation that was reached. `paid` is the return of the current episode so far; the episode
    may have begun in an earlier rollout.
    """

    observation: AnyArray
    action: AnyArray
    reward: Float[AnyArray, "time env"]
    terminated: Bool[AnyArray, "time env"]
    truncated: Bool[AnyArray, "time env"]
    mask: Bool[AnyArray, "time env"]
    step: Int[AnyArray, "time env"]
    memory: Float[AnyArray, "env state"]
    paid: Float[AnyArray, "time env"] | None = None

    @property
    def used(self) -> Int[Array, ""]:
        """The number of leading time rows after which there are no more steps.

        In a stream some of these rows may have none.
        """
        rows = jnp.arange(1, len(self.mask) + 1)
        return jnp.max(jnp.where(jnp.any(self.mask, axis=1), rows, 0))


class _Chunks(NamedTuple):
    """Arrays `[time, env, ...]`, padded so that they divide into chunks of `length` rows."""

    arrays: PyTree
    length: int

    @staticmethod
    def of(arrays: PyTree) -> "_Chunks":
        time, env = jax.tree.leaves(arrays)[0].shape[:2]
        length = max(1, min(time, ROWS_PER_CHUNK // env))
        missing = -time % length

        def pad(x: Array) -> Array:
            return jnp.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1))

        return _Chunks(jax.tree.map(pad, arrays), length)

    def take(self, index: Array | int) -> PyTree:
        """Chunk number `index`."""

        def slice_of(x: Array) -> Array:
            return jax.lax.dynamic_slice_in_dim(x, index * self.length, self.length)

        return jax.tree.map(slice_of, self.arrays)

    def holding(self, used: Int[Array, ""]) -> Int[Array, ""]:
        """How many chunks hold data."""
        return (used + self.length - 1) // self.length


def sum_over_time(function: Callable[[PyTree], Out], arrays: PyTree, used: Int[Array, ""]) -> Out:
    """Σ of `function(chunk)` over the chunks of time rows that hold data.

    One compiled program serves episodes of every length: the number of chunks is a run-time value,
    so short episodes in a long buffer cost what short episodes cost.
    """
    chunks = _Chunks.of(arrays)
    first = jax.eval_shape(lambda: function(chunks.take(jnp.int32(0))))
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), first)

    def add(i: Array, total: Out) -> Out:
        return jax.tree.map(jnp.add, total, function(chunks.take(i)))

    return jax.lax.fori_loop(0, chunks.holding(used), add, zero)


def map_over_time(
    function: Callable[[PyTree], Float[Array, "chunk env"]], arrays: PyTree, used: Int[Array, ""]
) -> Float[Array, "time env"]:
    """`function` of every chunk, side by side again; zero in the rows after `used`."""
    chunks = _Chunks.of(arrays)
    time, env = jax.tree.leaves(arrays)[0].shape[:2]
    rows = jax.tree.leaves(chunks.arrays)[0].shape[0]
    dtype = jax.eval_shape(lambda: function(chunks.take(jnp.int32(0)))).dtype

    def write(i: Array, out: Array) -> Array:
        found = function(chunks.take(i))
        return jax.lax.dynamic_update_slice_in_dim(out, found, i * chunks.length, axis=0)

    return jax.lax.fori_loop(0, chunks.holding(used), write, jnp.zeros((rows, env), dtype))[:time]
