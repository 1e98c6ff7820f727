"""Every random number is a function of the run's seed and of what it is for, so any part of a run can be replayed."""

from enum import IntEnum

import jax
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray, UInt32


class Stream(IntEnum):
    """What random numbers are for. The values are part of the meaning of a seed: never renumber them."""

    INITIALISATION = 0
    TRAINING = 1
    EVALUATION = 2
    MINIBATCHES = 3


def numpy_generator(seed: int, stream: Stream, *indices: int) -> np.random.Generator:
    """Random numbers on the host, for (run seed, stream, indices)."""
    return np.random.default_rng([seed, stream, *indices])


def episode_seed(seed: int, stream: Stream, environment: int, episode: int) -> int:
    """The seed with which `environment` starts its `episode`."""
    return int(np.random.SeedSequence([seed, stream, environment, episode]).generate_state(1)[0])


def batch_key(seed: UInt32[Array, ""], stream: Stream, batch: Int[Array, ""]) -> PRNGKeyArray:
    """The JAX key for (run seed, stream, batch)."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), stream), batch)
