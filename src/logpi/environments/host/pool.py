"""`envpool:ID`: EnvPool steps all copies together in C++ threads."""

from collections.abc import Sequence
from functools import partial
from importlib import import_module
from importlib.metadata import version
from typing import Any

import gymnasium as gym
import numpy as np
from numpy import ndarray

from logpi.core.errors import LogpiError
from logpi.core.foreign import faults_ignored
from logpi.environments.host.group import observation_layout
from logpi.environments.options import EnvironmentOptions, call_factory
from logpi.environments.spec import EnvironmentSpec, HostEnvironment, near_names, origin_of


def _envpool(name: str) -> Any:
    try:
        envpool: Any = import_module("envpool")
    except ImportError as error:
        raise LogpiError(
            f"envpool:{name} cannot be made ({error}): pip install 'logpi[envpool]'"
        ) from None
    known = envpool.list_all_envs()
    if name not in known:
        raise LogpiError(f"EnvPool has no environment {name!r}; {near_names(name, known)}")
    return envpool


def pool_environment(name: str, options: EnvironmentOptions) -> HostEnvironment:
    """The environment with EnvPool's defaults, but for what `options` say.

    **Raises:** `LogpiError` where EnvPool is missing or does not know the environment.
    """
    envpool = _envpool(name)
    options.require_no_wrapper(f"envpool:{name}")
    own = dict(options.kwargs)
    if options.max_episode_steps is not None:
        own["max_episode_steps"] = options.max_episode_steps
    made = call_factory(
        lambda: envpool.make(name, env_type="gymnasium", num_envs=1, **own), f"envpool:{name}"
    )
    config = made.spec.config
    spec = EnvironmentSpec(
        name=f"envpool:{name}",
        observation_space=made.observation_space,
        action_space=made.action_space,
        max_episode_steps=int(config.max_episode_steps),
        reward_threshold=getattr(config, "reward_threshold", None),
        identity={"envpool": version("envpool"), **options.identity()},
        origin=origin_of(made.observation_space, made.reset()[0][0]),
    )

    def pool(count: int) -> PoolGroup:
        return PoolGroup(envpool, name, spec, count, own)

    return HostEnvironment(spec, None, None, options, pool)


class PoolGroup:
    """The copies of one pool. Only the first episode of a copy can be given its seed: EnvPool keeps
    its own numbers.

    So a run is repeatable from its start, and one that is resumed goes on with other episodes of
    the same law.
    """

    repeatable = False

    def __init__(
        self, envpool: Any, name: str, spec: EnvironmentSpec, count: int, options: dict[str, Any]
    ):
        self._make = partial(envpool.make, name, env_type="gymnasium", num_envs=count, **options)
        self._pool: Any = None
        dtype, shape = observation_layout(spec.observation_space)
        if isinstance(spec.action_space, gym.spaces.Discrete):
            self._action_dtype = np.int32
        else:
            self._action_dtype = np.float64
        self.observation = np.zeros((count, *shape), dtype)
        self.reward = np.zeros(count)
        self.terminated = np.zeros(count, bool)
        self.truncated = np.zeros(count, bool)

    def reset(self, seeds: Sequence[int], rows: Sequence[int]) -> None:
        if self._pool is None:
            self._pool = self._make(env_seed=[seed % 2**31 for seed in seeds])
        chosen = np.asarray(rows, np.int32)
        observation, info = self._pool.reset(chosen)
        self.observation[info["env_id"]] = observation

    def step(self, actions: ndarray, active: Sequence[int]) -> None:
        chosen = np.asarray(active, np.int32)
        taken = np.ascontiguousarray(actions[chosen], self._action_dtype)
        observation, reward, terminated, truncated, info = self._pool.step(taken, chosen)
        rows = info["env_id"]
        self.observation[rows] = observation
        self.reward[rows] = reward
        self.terminated[rows] = terminated
        self.truncated[rows] = truncated

    def close(self) -> None:
        if self._pool is not None:
            with faults_ignored():
                self._pool.close()
            self._pool = None
