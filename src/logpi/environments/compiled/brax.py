"""`brax:NAME`: the environments of Brax inside the compiled program."""

import warnings
from functools import partial
from importlib import import_module
from importlib.metadata import version
from typing import Any

import gymnasium as gym
import jax.numpy as jnp
import numpy as np

from logpi.core.errors import LogpiError
from logpi.environments.options import EnvironmentOptions
from logpi.environments.spec import CompiledEnvironment, EnvironmentSpec, near_names

# Brax's own training wrapper cuts an episode after so many steps.
EPISODE_STEPS = 1000


def brax_environment(name: str, options: EnvironmentOptions) -> CompiledEnvironment:
    """The environment with its default backend, for actions in [-1, 1].

    **Raises:** `LogpiError` where Brax is missing or does not know the environment.
    """
    options.require_no_wrapper(f"brax:{name}")
    try:
        with warnings.catch_warnings(action="ignore"):
            envs: Any = import_module("brax.envs")
    except ImportError as error:
        raise LogpiError(
            f"brax:{name} cannot be made ({error}): pip install 'logpi[brax]'"
        ) from None
    known = list(envs._envs)
    if name not in known:
        raise LogpiError(f"Brax has no environment {name!r}; {near_names(name, known)}")
    with warnings.catch_warnings(action="ignore"):
        environment = options.make(partial(envs.get_environment, name), f"brax:{name}")
    limit = options.max_episode_steps or EPISODE_STEPS

    def reset(key):
        state = environment.reset(key)
        return (state, jnp.int32(0)), state.obs

    def step(key, state, action):
        inner, t = state
        after = environment.step(inner, action)
        terminated = after.done > 0
        truncated = (t + 1 >= limit) & ~terminated
        return (after, t + 1), after.obs, after.reward, terminated, truncated

    spec = EnvironmentSpec(
        name=f"brax:{name}",
        observation_space=gym.spaces.Box(
            -np.inf, np.inf, (environment.observation_size,), np.float32
        ),
        action_space=gym.spaces.Box(-1, 1, (environment.action_size,), np.float32),
        max_episode_steps=limit,
        reward_threshold=None,
        identity={"brax": version("brax"), **options.identity()},
    )
    return CompiledEnvironment(spec, reset, step)
