"""Whether a compiled environment of the user's own keeps to its interface, before anything is
compiled from it.
"""

from typing import Any

import gymnasium as gym
import jax
import numpy as np

from logpi.core.errors import LogpiError
from logpi.environments.spec import CompiledEnvironment
from logpi.networks.heads import action_head

ANSWER = ("state", "observation", "reward", "terminated", "truncated")


def require_sound(environment: CompiledEnvironment) -> None:
    """`reset` and `step` are traced, not run.

    **Raises:** `LogpiError` where they fail or return something else than what the space and the
    interface say.
    """
    source = environment.spec.name
    key = jax.eval_shape(lambda: jax.random.key(0))
    state, observation = _traced(source, "reset", ("state", "observation"), environment.reset, key)
    head = action_head(environment.spec.action_space)
    action = jax.eval_shape(
        lambda zeros: head.execute(head(zeros).sample(zeros)), np.zeros(head.size, np.float32)
    )
    after, reached, *rest = _traced(source, "step", ANSWER, environment.step, key, state, action)
    for where, found in (("reset", observation), ("step", reached)):
        declared = _shape(environment.spec.observation_space)
        shape = getattr(found, "shape", "of several arrays")
        if shape != declared:
            raise LogpiError(
                f"{source}: {where} gives an observation of shape {shape}, its space has {declared}"
            )

    def form(tree):
        return [f"{leaf.dtype}{leaf.shape}" for leaf in jax.tree.leaves(tree)]

    if jax.tree.structure(state) != jax.tree.structure(after) or form(state) != form(after):
        raise LogpiError(
            f"{source}: step must give a state like that of reset: {form(state)}, not {form(after)}"
        )
    if observation.dtype != reached.dtype:
        raise LogpiError(
            f"{source}: observations are {observation.dtype} from reset, {reached.dtype} from step"
        )
    for name, value in zip(ANSWER[2:], rest, strict=True):
        if getattr(value, "shape", None) != () or (name != "reward" and value.dtype != bool):
            kind = "a number" if name == "reward" else "True or False"
            raise LogpiError(f"{source}: step gives {name} as {value}, not as {kind}")


def _traced(source: str, name: str, parts: tuple[str, ...], function: Any, *arguments: Any) -> Any:
    try:
        answer = jax.eval_shape(function, *arguments)
    except Exception as error:
        raise LogpiError(
            f"{source}: {name} raised {type(error).__name__}: {str(error).splitlines()[0]}"
        ) from error
    if not isinstance(answer, tuple | list) or len(answer) != len(parts):
        raise LogpiError(f"{source}: {name} must return {', '.join(parts)}")
    return answer


def _shape(space: gym.Space) -> tuple[int, ...]:
    if isinstance(space, gym.spaces.Discrete):
        return ()
    return tuple(space.shape or ())
