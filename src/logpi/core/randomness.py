"""Every random number is a function of the run's seed and of what it is for, so any part of a run
can be replayed.
"""

from enum import IntEnum

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray, UInt32


class Stream(IntEnum):
    """What random numbers are for. The values are part of the meaning of a seed: never renumber
    them.
    """

    INITIALISATION = 0
    TRAINING = 1
    EVALUATION = 2
    MINIBATCHES = 3
    IMITATION = 4


def numpy_generator(seed: int, stream: Stream, *indices: int) -> np.random.Generator:
    """Random numbers on the host, for (run seed, stream, indices)."""
    return np.random.default_rng([seed, stream, *indices])


def episode_seed(seed: int, stream: Stream, environment: int, episode: int) -> int:
    """The seed with which `environment` starts its `episode`."""
    return int(np.random.SeedSequence([seed, stream, environment, episode]).generate_state(1)[0])


def batch_key(seed: UInt32[Array, ""], stream: Stream, batch: Int[Array, ""]) -> PRNGKeyArray:
    """The JAX key for (run seed, stream, batch)."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), stream), batch)


def random_order(key: PRNGKeyArray, count: int) -> Int[Array, " count"]:
    """0 … count - 1 in random order, by one sort of numbers with random high bits and the index in
    the low ones.

    A CPU sorts plain numbers ten times as fast as pairs: 0.28 ms for 8,192,
    `jax.random.permutation` 2.8. Where the high bits are equal the lower index comes first, which
    matters to no one who divides the order into parts.
    """
    low = (count - 1).bit_length()
    numbers = jax.random.bits(key, (count,), jnp.uint32) >> low << low | jnp.arange(
        count, dtype=jnp.uint32
    )
    return (jax.lax.sort(numbers, is_stable=False) & (2**low - 1)).astype(jnp.int32)
