"""`vector:ID`: the vector environment that a package registers itself, which steps all copies at
once.
"""

from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy import ndarray

from logpi.core.errors import LogpiError
from logpi.core.foreign import faults_ignored
from logpi.environments.host.group import observation_layout
from logpi.environments.options import EnvironmentOptions
from logpi.environments.spec import (
    ATARI_LIMIT,
    EnvironmentSpec,
    HostEnvironment,
    near_names,
    origin_of,
)


def vector_environment(name: str, options: EnvironmentOptions) -> HostEnvironment:
    """The environment as its package makes it.

    **Raises:** `LogpiError` where the package has none, or it does not fit: no time limit or
    another than its own, another way of resetting than at the next step, nested spaces.
    """
    options.require_no_wrapper(f"vector:{name}")
    registered = gym.registry.get(name)
    if registered is None or not registered.vector_entry_point:
        known = [key for key, spec in gym.registry.items() if spec.vector_entry_point]
        raise LogpiError(
            f"no package registers a vector environment {name!r}; {near_names(name, known)}"
        )
    first = _made(name, 1, options)
    limit = registered.max_episode_steps or (ATARI_LIMIT if name.startswith("ALE/") else None)
    space = first.single_observation_space
    mode = first.metadata.get("autoreset_mode")
    origin = None
    if isinstance(space, gym.spaces.Box):
        origin = origin_of(space, first.reset(seed=0)[0][0])
    first.close()
    if limit is None:
        raise LogpiError(
            f"vector:{name} declares no time limit, and its copies cannot be cut one by one; use"
            f" {name}"
        )
    if options.max_episode_steps not in (None, limit):
        raise LogpiError(
            f"vector:{name} has a time limit of its own, {limit}; use {name} for another"
        )
    if mode != AutoresetMode.NEXT_STEP:
        raise LogpiError(
            f"vector:{name} resets in the mode {mode}; it must be {AutoresetMode.NEXT_STEP}"
        )
    if not isinstance(space, gym.spaces.Box | gym.spaces.Discrete):
        raise LogpiError(f"vector:{name} observes {space}; supported: Box, Discrete; use {name}")
    spec = EnvironmentSpec(
        name=f"vector:{name}",
        observation_space=space,
        action_space=first.single_action_space,
        max_episode_steps=limit,
        reward_threshold=registered.reward_threshold,
        identity={"gymnasium": version("gymnasium"), **options.identity()},
        origin=origin,
    )

    def pool(count: int) -> VectorGroup:
        return VectorGroup(_made(name, count, options))

    return HostEnvironment(spec, None, None, options, pool)


def _made(name: str, count: int, options: EnvironmentOptions) -> VectorEnv[Any, Any, Any]:
    make = partial(gym.make_vec, name, num_envs=count, vectorization_mode="vector_entry_point")
    return options.make(make, f"vector:{name}")


class VectorGroup:
    """All copies draw from one generator, seeded where all of them start together: with every batch
    of episodes.

    A copy whose episode has ended is reset by the vector environment itself, in the step after. So
    streams are repeatable from their start, and a run that is resumed goes on with other episodes
    of the same law.
    """

    repeatable = False

    def __init__(self, vector: VectorEnv[Any, Any, Any]):
        self._vector = vector
        count = vector.num_envs
        dtype, shape = observation_layout(vector.single_observation_space)
        self._latest: Any = None
        self.observation = np.zeros((count, *shape), dtype)
        self.reward = np.zeros(count)
        self.terminated = np.zeros(count, bool)
        self.truncated = np.zeros(count, bool)

    def reset(self, seeds: Sequence[int], rows: Sequence[int]) -> None:
        if len(rows) == len(self.reward):
            self._latest, _ = self._vector.reset(seed=seeds[0] % 2**31)  # some take 32 bits
        self.observation[rows] = np.asarray(self._latest)[rows]

    def step(self, actions: ndarray, active: Sequence[int]) -> None:
        space = self._vector.action_space
        taken = np.asarray(actions, space.dtype)
        self._latest, *found, _ = self._vector.step(taken)
        if len(active) < len(self.reward):
            here = active
        else:
            here = slice(None)
        self.observation[here] = np.asarray(self._latest)[here]
        for kept, new in zip((self.reward, self.terminated, self.truncated), found, strict=True):
            kept[here] = np.asarray(new)[here]

    def close(self) -> None:
        with faults_ignored():
            self._vector.close()
        del self._vector
