"""`jumanji:ID`: the environments of Jumanji inside the compiled program."""

from functools import partial
from importlib import import_module
from importlib.metadata import version
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np

from logpi.core.arrays import float_dtype
from logpi.core.errors import LogpiError
from logpi.environments.options import EnvironmentOptions
from logpi.environments.spec import (
    UNDECLARED_LIMIT,
    CompiledEnvironment,
    EnvironmentSpec,
    near_names,
)
from logpi.environments.views import MASK


def jumanji_environment(name: str, options: EnvironmentOptions) -> CompiledEnvironment:
    """The environment with its defaults; all that it shows in one row, the mask of a single choice
    first.

    **Raises:** `LogpiError` where Jumanji is missing, does not know the environment, or its actions
    have a mask that is not of a single choice.
    """
    options.require_no_wrapper(f"jumanji:{name}")
    try:
        jumanji: Any = import_module("jumanji")
    except ImportError as error:
        raise LogpiError(
            f"jumanji:{name} cannot be made ({error}): pip install 'logpi[jumanji]'"
        ) from None
    known = list(jumanji.registered_environments())
    if name not in known:
        raise LogpiError(f"Jumanji has no environment {name!r}; {near_names(name, known)}")
    environment: Any = options.make(partial(jumanji.make, name), f"jumanji:{name}")
    limit = (
        options.max_episode_steps or getattr(environment, "time_limit", None) or UNDECLARED_LIMIT
    )
    action_space = _action_space(name, environment.action_spec)
    shape = jax.eval_shape(environment.reset, jax.random.key(0))[1].observation
    mask = getattr(shape, MASK, None)
    masked = mask is not None
    if masked and not (
        isinstance(action_space, gym.spaces.Discrete) and mask.shape == (action_space.n,)
    ):
        raise LogpiError(
            f"jumanji:{name} masks actions {action_space}; supported are masks of a single choice"
        )

    def seen(observation: Any) -> jax.Array:
        leaves = []
        if masked:
            leaves.append(getattr(observation, MASK))
            observation = observation._replace(**{MASK: None})
        leaves += jax.tree.leaves(observation)
        return jnp.concatenate([jnp.ravel(leaf).astype(float_dtype()) for leaf in leaves])

    def reset(key):
        state, first = environment.reset(key)
        return (state, jnp.int32(0)), seen(first.observation)

    def step(key, state, action):
        inner, t = state
        after, now = environment.step(inner, action.astype(environment.action_spec.dtype))
        terminated = now.last() & (now.discount == 0)
        truncated = (now.last() | (t + 1 >= limit)) & ~terminated
        return (
            (after, t + 1),
            seen(now.observation),
            now.reward.astype(float_dtype()),
            terminated,
            truncated,
        )

    size = jax.eval_shape(seen, shape).shape
    spec = EnvironmentSpec(
        name=f"jumanji:{name}",
        observation_space=gym.spaces.Box(-np.inf, np.inf, size, np.float32),
        action_space=action_space,
        max_episode_steps=int(limit),
        reward_threshold=None,
        identity={"jumanji": version("jumanji"), **options.identity()},
        masked=masked,
    )
    return CompiledEnvironment(spec, reset, step)


def _action_space(name: str, spec: Any) -> gym.Space:
    match type(spec).__name__:
        case "DiscreteArray":
            return gym.spaces.Discrete(int(spec.num_values))
        case "MultiDiscreteArray":
            return gym.spaces.MultiDiscrete(np.asarray(spec.num_values))
        case "BoundedArray" if np.issubdtype(spec.dtype, np.floating):
            low, high = (
                np.broadcast_to(np.asarray(x, np.float32), spec.shape)
                for x in (spec.minimum, spec.maximum)
            )
            return gym.spaces.Box(low, high, spec.shape, np.float32)
        case other:
            raise LogpiError(
                f"jumanji:{name} has actions {other}; supported: discrete, multi-discrete, bounded"
                " floats"
            )
