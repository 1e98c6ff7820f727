"""Shares: the fixed number of copies that act together [D4.1].

The last bits of a matrix product depend on how many rows it has. So the copies of a run act in
shares of one size, each with products of its own, wherever they are played: what a share does is a
function of the parameters, the number of the batch and its own number.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from logpi.core.randomness import Stream, numpy_generator
from logpi.networks.heads import Head
from logpi.sampling.noise import host_noise


@dataclass(frozen=True)
class Shares:
    """Consecutive shares of a run's copies, which one place plays side by side.

    The last of a run may have fewer copies than its `size`; it acts as if it had all of them.
    """

    copies: range
    size: int

    @property
    def count(self) -> int:
        """How many copies there are."""
        return len(self.copies)

    @property
    def numbers(self) -> range:
        """The number of each share, counted over the whole run."""
        return range(self.copies.start // self.size, -(-self.copies.stop // self.size))

    def split(self, parts: int) -> "list[Shares]":
        """The shares in at most so many parts of nearly equal size, none of them empty."""
        numbers = self.numbers
        parts = min(parts, len(numbers))
        bounds = [numbers.start + len(numbers) * part // parts for part in range(parts + 1)]
        return [
            Shares(range(first * self.size, min(last * self.size, self.copies.stop)), self.size)
            for first, last in itertools.pairwise(bounds)
        ]

    @property
    def columns(self) -> slice:
        """Where these copies stand among all of a run."""
        return slice(self.copies.start, self.copies.stop)


def noise_of_shares(head: Head, shares: Shares, seed: int, batch: int) -> Iterator[ndarray]:
    """Noise for a batch, a row `[copy, size]` for each time step: every share draws its own."""
    randoms = [numpy_generator(seed, Stream.TRAINING, batch, share) for share in shares.numbers]
    for row in host_noise(head, randoms, shares.size):
        yield row[: shares.count]


def by_share(x: ndarray, size: int) -> ndarray:
    """Rows `[copy, ...]` as `[share, size, ...]`; rows of zeros where the last share lacks some."""
    missing = -len(x) % size
    if missing:
        x = np.concatenate([x, np.zeros((missing, *x.shape[1:]), x.dtype)])
    return x.reshape(len(x) // size, size, *x.shape[1:])


def side_by_side(x: ndarray, count: int) -> ndarray:
    """The first `count` rows of `[share, size, ...]`, as `[copy, ...]` again."""
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])[:count]
