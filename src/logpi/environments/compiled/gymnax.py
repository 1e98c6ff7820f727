"""`gymnax:ID`: the environments of gymnax 1.x inside the compiled program."""

import dataclasses
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np

from logpi.core.arrays import float_dtype
from logpi.core.errors import LogpiError
from logpi.environments.options import EnvironmentOptions
from logpi.environments.spec import CompiledEnvironment, EnvironmentSpec, near_names


def gymnax_environment(name: str, options: EnvironmentOptions) -> CompiledEnvironment:
    """The environment with its default parameters, but for those that `options` name.

    gymnax's own `step` resets by itself; here `step_env` is used, so that an episode ends where it
    ends.

    **Raises:** `LogpiError` where gymnax is missing or too old, or does not know the environment.
    """
    options.require_no_wrapper(f"gymnax:{name}")
    try:
        import gymnax
    except ImportError as error:
        raise LogpiError(
            f"gymnax:{name} cannot be made ({error}): pip install 'logpi[compiled]'"
        ) from None
    if int(version("gymnax").split(".")[0]) < 1:
        raise LogpiError(
            f"gymnax {version('gymnax')} is too old, 1.0 or later is needed: pip install"
            " 'logpi[compiled]'"
        )
    known = list(gymnax.registered_envs)
    if name not in known:
        raise LogpiError(f"gymnax has no environment {name!r}; {near_names(name, known)}")
    make = partial(_make, gymnax.make, name, options.max_episode_steps)
    environment, parameters = options.make(make, f"gymnax:{name}")

    def reset(key):
        observation, state = environment.reset_env(key, parameters)
        return state, observation

    def step(key, state, action):
        observation, state, reward, terminated, _ = environment.step_env(
            key, state, action, parameters
        )
        truncated = environment.is_truncated(state, parameters) & ~terminated
        return state, observation, jnp.asarray(reward, float_dtype()), terminated, truncated

    spec = EnvironmentSpec(
        name=f"gymnax:{name}",
        observation_space=_space(environment.observation_space(parameters)),
        action_space=_space(environment.action_space(parameters)),
        max_episode_steps=int(parameters.max_steps_in_episode),
        reward_threshold=None,
        identity={"gymnax": version("gymnax"), **options.identity()},
    )
    return CompiledEnvironment(spec, reset, step)


def _make(
    make: Callable[..., Any], name: str, max_episode_steps: int | None, **kwargs: Any
) -> tuple[Any, Any]:
    """The environment and its parameters. An argument is one of these, or the constructor's."""
    known = {field.name for field in dataclasses.fields(make(name)[1])}
    own = {key: value for key, value in kwargs.items() if key in known}
    if max_episode_steps is not None:
        own["max_steps_in_episode"] = max_episode_steps
    rest = {key: value for key, value in kwargs.items() if key not in known}
    environment, parameters = make(name, **rest)
    return environment, parameters.replace(**own)


def _space(space: Any) -> gym.Space:
    """gymnax's space as Gymnasium's, so that one set of encoders and heads serves both."""
    match type(space).__name__:
        case "Discrete":
            return gym.spaces.Discrete(int(space.n))
        case "Box":
            dtype = jax.dtypes.canonicalize_dtype(space.dtype)
            low = np.broadcast_to(np.asarray(space.low, dtype), space.shape)
            high = np.broadcast_to(np.asarray(space.high, dtype), space.shape)
            return gym.spaces.Box(low, high, space.shape, dtype.type)
        case other:
            raise LogpiError(f"gymnax space {other} is not supported; supported: Box, Discrete")
