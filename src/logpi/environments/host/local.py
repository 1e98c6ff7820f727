"""Copies of a Gymnasium environment in this process."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy import ndarray

from logpi.core.foreign import describe, faults_ignored
from logpi.core.signals import CLOSING, TookTooLong, at_most, has_alarm, set_alarm
from logpi.environments.host.group import (
    EnvironmentFailure,
    Group,
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


class _Alarm:
    """The code inside is left by `TookTooLong` after so many seconds, if this thread can be."""

    def __init__(self, seconds: float | None):
        if has_alarm():
            self._seconds = seconds
        else:
            self._seconds = None

    def __enter__(self) -> None:
        if self._seconds is not None:
            set_alarm(self._seconds)

    def __exit__(self, *_: object) -> None:
        if self._seconds is not None:
            set_alarm(0.0)


class LocalGroup:
    """The copies of this process."""

    repeatable = True

    def __init__(self, environment: HostEnvironment, count: int):
        assert environment.make is not None
        self._environments = [environment.make() for _ in range(count)]
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
        self._limit = environment.step_limit
        self._alarm = _Alarm(self._limit)
        self.observation = np.zeros((count, *self._shape), stored)
        self.reward = np.zeros(count)
        self.terminated = np.zeros(count, bool)
        self.truncated = np.zeros(count, bool)

    def reset(self, seeds: Sequence[int], rows: Sequence[int]) -> None:
        i = 0
        try:
            with self._alarm:
                for seed, i in zip(seeds, rows, strict=True):
                    try:
                        answer = self._environments[i].reset(seed=seed)
                    except (KeyboardInterrupt, TookTooLong):
                        raise
                    except BaseException as error:
                        raise EnvironmentFailure(i, f"reset raised {describe(error)}") from error
                    self.observation[i] = self._checked(i, reset_answer(i, answer))
        except TookTooLong:  # wherever it was
            raise self._too_long(i, "reset") from None

    def step(self, actions: ndarray, active: Sequence[int]) -> None:
        if self._action_dtype is not None:
            actions = actions.astype(self._action_dtype, copy=False)
        native = native_actions(actions)
        i = 0
        try:
            with self._alarm:
                for i in active:
                    try:
                        answer = self._environments[i].step(native[i])
                    except (KeyboardInterrupt, TookTooLong):
                        raise
                    except BaseException as error:
                        raise EnvironmentFailure(i, f"step raised {describe(error)}") from error
                    observation, reward, terminated, truncated = step_answer(
                        i, answer, self._masked
                    )
                    self.reward[i] = reward
                    self.terminated[i] = terminated
                    self.truncated[i] = truncated
                    self.observation[i] = self._checked(i, observation)
        except TookTooLong:  # wherever it was
            raise self._too_long(i, "step") from None

    def _too_long(self, index: int, what: str) -> EnvironmentFailure:
        return EnvironmentFailure(
            index, f"{what} took longer than {self._limit:g} s (--step-limit)"
        )

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
        while self._environments:
            environment = self._environments.pop()
            with faults_ignored(), at_most(CLOSING):
                environment.close()


def make_group(environment: HostEnvironment, count: int) -> Group:
    """So many copies, in this process or in a pool of the environment's package."""
    if environment.pool is not None:
        return environment.pool(count)
    return LocalGroup(environment, count)
