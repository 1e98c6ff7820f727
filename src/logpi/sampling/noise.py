"""The standard noise by which actions are drawn: a function of (seed, stream, batch)."""

import itertools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PRNGKeyArray
from numpy import ndarray

from logpi.core.arrays import float_dtype
from logpi.core.randomness import Stream, numpy_generator
from logpi.networks.heads import draw_noise
from logpi.networks.policy import Policy

# Time steps for which noise is drawn at once on the host.
NOISE_ROWS = 16


def no_noise(policy: Policy, count: int) -> Iterator[ndarray]:
    """Zeros for every time step, with which the most probable action is taken."""
    return itertools.repeat(np.zeros((count, policy.head.size), float_dtype()))


def host_noise(
    policy: Policy, count: int, seed: int, stream: Stream, batch: int
) -> Iterator[ndarray]:
    """Noise of the policy's laws, a row `[env, size]` for each time step."""
    random = numpy_generator(seed, stream, batch)

    def draw(law: str, shape: tuple[int, ...]) -> ndarray:
        return getattr(random, law)(size=shape).astype(float_dtype())

    while True:
        yield from draw_noise(policy.head, (NOISE_ROWS, count), draw)


def compiled_noise(policy: Policy, key: PRNGKeyArray, leading: tuple[int, ...]) -> Array:
    """Noise of the policy's laws, `[*leading, size]`, each part from a key of its own."""
    later = (jax.random.fold_in(key, number) for number in itertools.count())
    keys = itertools.chain([key], later)

    def draw(law: str, shape: tuple[int, ...]) -> Array:
        return getattr(jax.random, law)(next(keys), shape)

    return jnp.asarray(draw_noise(policy.head, leading, draw))


def two_keys_a_row(key: PRNGKeyArray, rows: int) -> Key[Array, "2 rows"]:
    """Drawn at once: a row that draws its own keys pays a loop of small kernels for each."""

    def split(t: Array) -> Array:
        return jax.random.split(jax.random.fold_in(key, t))

    return jax.vmap(split, out_axes=1)(jnp.arange(rows))
