"""The standard noise by which actions are drawn: a function of (seed, stream, batch)."""

import itertools
from collections.abc import Iterator, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PRNGKeyArray
from numpy import ndarray

from logpi.core.arrays import float_dtype
from logpi.networks.heads import Head, draw_noise
from logpi.networks.policy import Policy

# Time steps for which noise is drawn at once on the host.
NOISE_ROWS = 16


def no_noise(head: Head, count: int) -> Iterator[ndarray]:
    """Zeros for every time step, with which the most probable action is taken."""
    return itertools.repeat(np.zeros((count, head.size), float_dtype()))


def host_noise(head: Head, randoms: Sequence[np.random.Generator], width: int) -> Iterator[ndarray]:
    """Noise of the laws of a head, a row `[env, size]` for each time step.

    Each generator draws for `width` neighbours, and its numbers do not depend on the others.
    """
    while True:
        drawn = [
            np.asarray(draw_noise(head, (NOISE_ROWS, width), partial(_draw, random)))
            for random in randoms
        ]
        yield from np.concatenate(drawn, axis=1)


def _draw(random: np.random.Generator, law: str, shape: tuple[int, ...]) -> ndarray:
    return getattr(random, law)(size=shape).astype(float_dtype())


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
