"""Several copies of a Gymnasium environment, stepped together: in this process or in worker
processes.
"""

import numbers
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from logpi.core.checks import shown
from logpi.environments.spec import MASK, stored_dtype


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
        """Release what the copies hold, and let them go: some hold memory, and complain at the end
        of the process, until then.
        """
        ...


def observation_layout(space: gym.Space) -> tuple[np.dtype, tuple[int, ...]]:
    """The dtype and shape in which observations of a space are stored."""
    if isinstance(space, gym.spaces.Discrete):
        return stored_dtype(space), ()
    assert space.shape is not None
    return stored_dtype(space), space.shape


def reset_answer(index: int, answer: object) -> object:
    """The observation of what `reset` returned.

    **Raises:** `EnvironmentFailure` where it is no pair.
    """
    if isinstance(answer, tuple) and len(answer) == 2:
        return answer[0]
    form = "(observation, info)"
    raise EnvironmentFailure(index, f"reset returned {_kind(answer)}, it must be {form}")


def step_answer(
    index: int, answer: object, masked: bool = False
) -> tuple[object, float, bool, bool]:
    """Observation, reward, terminated and truncated of what `step` returned.

    **Raises:** `EnvironmentFailure` that names the field that is of another kind, and for an action
    mask that `reset` had not announced by one of its own (`masked`).
    """
    if not isinstance(answer, tuple) or len(answer) != 5:
        form = "(observation, reward, terminated, truncated, info)"
        raise EnvironmentFailure(index, f"step returned {_kind(answer)}, it must be {form}")
    observation, reward, terminated, truncated, info = answer
    if not masked and isinstance(info, dict) and MASK in info:
        both = "give one in the info of reset too, or in none"
        raise EnvironmentFailure(index, f"step's info has an {MASK}, reset's has none: {both}")
    if type(reward) is not float:
        reward = _as_reward(index, reward)
    if type(terminated) is not bool:
        terminated = _as_flag(index, "terminated", terminated)
    if type(truncated) is not bool:
        truncated = _as_flag(index, "truncated", truncated)
    return observation, reward, terminated, truncated


def _as_reward(index: int, reward: object) -> float:
    """A number of Python or of NumPy."""
    shape = getattr(reward, "shape", ())
    if shape != ():
        raise EnvironmentFailure(index, f"reward has shape {shape}, it must be a number")
    if isinstance(reward, numbers.Real | np.ndarray | np.bool_):
        return float(reward)
    raise EnvironmentFailure(index, f"reward is {shown(reward, 100)}, it must be a number")


def _as_flag(index: int, field: str, flag: object) -> bool:
    """True or False, also as one of NumPy's, or as 1 or 0."""
    is_number = isinstance(flag, numbers.Integral | np.bool_)
    if is_number and flag in (0, 1):
        return bool(flag)
    raise EnvironmentFailure(index, f"{field} is {shown(flag, 100)}, it must be True or False")


def _kind(answer: object) -> str:
    if isinstance(answer, tuple):
        return f"{len(answer)} values"
    return f"a {type(answer).__name__}"
