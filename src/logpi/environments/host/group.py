"""Several copies of a Gymnasium environment, stepped together: in this process or in worker
processes.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray


class EnvironmentFailure(Exception):
    """Environment `index` of a group failed or broke its own declaration; the rollout adds episode
    and step.
    """

    def __init__(self, index: int, message: str):
        super().__init__(message)
        self.index = index
        self.message = message


@runtime_checkable
class Group(Protocol):
    """n copies of one environment. The arrays are written in place: row i belongs to copy i.

    `repeatable`: the same seed and the same actions give the same episode.
    """

    repeatable: bool
    observation: ndarray
    reward: Float[ndarray, " n"]
    terminated: Bool[ndarray, " n"]
    truncated: Bool[ndarray, " n"]

    def reset(self, seeds: Sequence[int], rows: Sequence[int]) -> None:
        """Start one episode in each of the copies `rows`, from the seed beside it."""
        ...

    def step(self, actions: ndarray, active: Sequence[int]) -> None:
        """Step the copies in `active`; the rows of the others keep what they had."""
        ...

    def close(self) -> None:
        """Release what the copies hold."""
        ...


def observation_layout(space: gym.Space) -> tuple[np.dtype, tuple[int, ...]]:
    """The dtype and shape in which observations of a space are stored: as numbers if they are too
    large for 32 bits.
    """
    if isinstance(space, gym.spaces.Discrete):
        return np.dtype(np.int32), ()
    assert space.shape is not None
    if isinstance(space, gym.spaces.Box) and _exceeds_32_bits(space):
        return np.dtype(np.float64), space.shape
    return np.dtype(space.dtype), space.shape


def _exceeds_32_bits(space: gym.spaces.Box) -> bool:
    bounds = np.append(space.low, space.high).astype(float)
    return space.dtype.kind in "iu" and bool((np.abs(bounds) >= 2**31).any())


def describe(error: BaseException) -> str:
    """An exception in one line: its kind and its message."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
