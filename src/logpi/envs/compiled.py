"""Whether a compiled environment of the user's own keeps to its interface, before anything is compiled from it."""

from typing import Any

import gymnasium as gym
import jax
import numpy as np

from logpi.envs.base import CompiledEnvironment
from logpi.errors import LogpiError

ANSWER = ("state", "observation", "reward", "terminated", "truncated")


def require_sound(environment: CompiledEnvironment, source: str) -> None:
    """`reset` and `step` are traced, not run.

    **Raises:** `LogpiError` where they fail or return something else than what the space and the interface say.
    """
    key = jax.eval_shape(lambda: jax.random.key(0))
    state, observation = _traced(source, "reset", ("state", "observation"), environment.reset, key)
    action = jax.tree.map(np.asarray, environment.spec.action_space.sample())
    after, reached, *rest = _traced(source, "step", ANSWER, environment.step, key, state, action)
    for where, found in (("reset", observation), ("step", reached)):
        declared = _shape(environment.spec.observation_space)
        if found.shape != declared:
            raise LogpiError(f"{source}: {where} gives an observation of shape {found.shape}, its space has {declared}")
    form = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)
    if jax.tree.structure(state) != jax.tree.structure(after) or form(state) != form(after):
        raise LogpiError(f"{source}: step must give a state like that of reset: {form(state)}, not {form(after)}")
    for name, value in zip(ANSWER[2:], rest, strict=True):
        if value.shape != () or (name != "reward" and value.dtype != bool):
            kind = "a number" if name == "reward" else "True or False"
            raise LogpiError(f"{source}: step gives {name} as {value.dtype} of shape {value.shape}, not {kind}")


def _traced(source: str, name: str, parts: tuple[str, ...], function: Any, *arguments: Any) -> Any:
    try:
        answer = jax.eval_shape(function, *arguments)
    except Exception as error:
        raise LogpiError(f"{source}: {name} raised {type(error).__name__}: {str(error).splitlines()[0]}") from error
    if not isinstance(answer, tuple) or len(answer) != len(parts):
        raise LogpiError(f"{source}: {name} must return {', '.join(parts)}")
    return answer


def _shape(space: gym.Space) -> tuple[int, ...]:
    return () if isinstance(space, gym.spaces.Discrete) else tuple(space.shape or ())
