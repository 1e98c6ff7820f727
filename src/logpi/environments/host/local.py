"""Copies of a Gymnasium environment in this process."""

import contextlib
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy import ndarray

from logpi.environments.host.group import (
    EnvironmentFailure,
    describe,
    observation_layout,
    reset_answer,
    step_answer,
)
from logpi.environments.spec import HostEnvironment


def native_actions(actions: ndarray) -> Sequence[Any]:
    """Actions one by one as environments expect them: Python ints for Discrete, arrays for Box."""
    if actions.ndim == 1 and actions.dtype.kind == "i":
        return actions.tolist()
    return list(actions)


class LocalGroup:
    """The copies of this process."""

    repeatable = True

    def __init__(self, environment: HostEnvironment, count: int, first: Sequence[gym.Env] = ()):
        assert environment.make is not None
        self._environments = [*first, *(environment.make() for _ in range(count - len(first)))]
        space = environment.spec.observation_space
        stored, self._shape = observation_layout(space)
        if isinstance(space, gym.spaces.Box):
            self._dtype = np.dtype(space.dtype)
        else:
            self._dtype = stored
        action = environment.spec.action_space
        if isinstance(action, gym.spaces.Box):
            self._action_dtype = action.dtype
        else:
            self._action_dtype = None
        self._masked = environment.spec.masked
        self.observation = np.zeros((count, *self._shape), stored)
        self.reward = np.zeros(count)
        self.terminated = np.zeros(count, bool)
        self.truncated = np.zeros(count, bool)

    def reset(self, seeds: Sequence[int], rows: Sequence[int]) -> None:
        for seed, i in zip(seeds, rows, strict=True):
            try:
                answer = self._environments[i].reset(seed=seed)
            except (Exception, SystemExit) as error:
                raise EnvironmentFailure(i, f"reset raised {describe(error)}") from error
            self.observation[i] = self._checked(i, reset_answer(i, answer))

    def step(self, actions: ndarray, active: Sequence[int]) -> None:
        if self._action_dtype is not None:
            actions = actions.astype(self._action_dtype, copy=False)
        native = native_actions(actions)
        for i in active:
            try:
                answer = self._environments[i].step(native[i])
            except (Exception, SystemExit) as error:
                raise EnvironmentFailure(i, f"step raised {describe(error)}") from error
            observation, reward, terminated, truncated = step_answer(i, answer, self._masked)
            self.reward[i] = reward
            self.terminated[i] = terminated
            self.truncated[i] = truncated
            self.observation[i] = self._checked(i, observation)

    def _checked(self, index: int, observation: Any) -> Any:
        """The observation, if its shape and kind of number are what its space declares."""
        if (
            type(observation) is ndarray
            and observation.shape == self._shape
            and observation.dtype == self._dtype
        ):
            return observation
        try:
            array = np.asarray(observation)
        except ValueError as error:
            raise EnvironmentFailure(
                index, f"observation is no array: {describe(error)}"
            ) from error
        if array.shape != self._shape:
            raise EnvironmentFailure(
                index, f"observation has shape {array.shape}, its space declares {self._shape}"
            )
        if not np.can_cast(array.dtype, self._dtype, "same_kind"):
            raise EnvironmentFailure(
                index, f"observation has dtype {array.dtype}, its space declares {self._dtype}"
            )
        return array

    def close(self) -> None:
        for environment in self._environments:
            # no run is lost for what an environment does when it is done with
            with contextlib.suppress(Exception, SystemExit):
                environment.close()
