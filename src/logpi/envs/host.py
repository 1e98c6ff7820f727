"""Several copies of a Gymnasium environment, stepped together: in this process or in worker processes."""

import contextlib
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from logpi.envs.base import HostEnvironment


class EnvironmentFailure(Exception):
    """Environment `index` of a group failed or broke its own declaration; the rollout adds episode and step."""

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
    """The dtype and shape in which observations of a space are stored: as numbers if they are too large for 32 bits."""
    if isinstance(space, gym.spaces.Discrete):
        return np.dtype(np.int32), ()
    assert space.shape is not None
    if isinstance(space, gym.spaces.Box) and _exceeds_32_bits(space):
        return np.dtype(np.float64), space.shape
    return np.dtype(space.dtype), space.shape


def _exceeds_32_bits(space: gym.spaces.Box) -> bool:
    bounds = np.append(space.low, space.high).astype(float)
    return space.dtype.kind in "iu" and bool((np.abs(bounds) >= 2**31).any())


def native_actions(actions: ndarray) -> Sequence[Any]:
    """Actions one by one as environments expect them: Python ints for Discrete, arrays for Box."""
    return actions.tolist() if actions.ndim == 1 and actions.dtype.kind == "i" else list(actions)


class LocalGroup:
    """The copies of this process."""

    repeatable = True

    def __init__(self, environment: HostEnvironment, count: int, first: Sequence[gym.Env] = ()):
        assert environment.make is not None
        self._environments = [*first, *(environment.make() for _ in range(count - len(first)))]
        space = environment.spec.observation_space
        stored, self._shape = observation_layout(space)
        self._dtype = np.dtype(space.dtype) if isinstance(space, gym.spaces.Box) else stored
        action = environment.spec.action_space
        self._action_dtype = action.dtype if isinstance(action, gym.spaces.Box) else None
        self.observation = np.zeros((count, *self._shape), stored)
        self.reward = np.zeros(count)
        self.terminated, self.truncated = np.zeros(count, bool), np.zeros(count, bool)

    def reset(self, seeds: Sequence[int], rows: Sequence[int]) -> None:
        for seed, i in zip(seeds, rows, strict=True):
            try:
                observation, _ = self._environments[i].reset(seed=seed)
            except (Exception, SystemExit) as error:
                raise EnvironmentFailure(i, f"reset raised {_describe(error)}") from error
            self.observation[i] = self._checked(i, observation)

    def step(self, actions: ndarray, active: Sequence[int]) -> None:
        if self._action_dtype is not None:
            actions = actions.astype(self._action_dtype, copy=False)
        native = native_actions(actions)
        for i in active:
            try:
                observation, reward, terminated, truncated, _ = self._environments[i].step(native[i])
                self.reward[i], self.terminated[i], self.truncated[i] = reward, terminated, truncated
            except (Exception, SystemExit) as error:
                raise EnvironmentFailure(i, f"step raised {_describe(error)}") from error
            self.observation[i] = self._checked(i, observation)

    def _checked(self, index: int, observation: Any) -> Any:
        """The observation, if its shape and kind of number are what its space declares."""
        if type(observation) is ndarray and observation.shape == self._shape and observation.dtype == self._dtype:
            return observation
        try:
            array = np.asarray(observation)
        except ValueError as error:
            raise EnvironmentFailure(index, f"observation is no array: {_describe(error)}") from error
        if array.shape != self._shape:
            raise EnvironmentFailure(index, f"observation has shape {array.shape}, its space declares {self._shape}")
        if not np.can_cast(array.dtype, self._dtype, "same_kind"):
            raise EnvironmentFailure(index, f"observation has dtype {array.dtype}, its space declares {self._dtype}")
        return array

    def close(self) -> None:
        for environment in self._environments:
            with contextlib.suppress(Exception):  # no run is lost for what an environment does when it is done with
                environment.close()


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
