"""Observations and actions of any Gymnasium space as one array, an action mask first."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces.utils import flatten, flatten_space

from logpi.core.errors import LogpiError
from logpi.core.foreign import faults_ignored
from logpi.environments.spec import MASK, space_to_json


class MaskFirst(gym.ObservationWrapper):
    """[action mask, flattened observation]; the mask comes from `info["action_mask"]` or a Dict
    observation.
    """

    def __init__(self, environment: gym.Env):
        super().__init__(environment)
        space = environment.observation_space
        assert isinstance(environment.action_space, gym.spaces.Discrete)
        self._inside = isinstance(space, gym.spaces.Dict) and MASK in space.spaces
        self.unflattened: gym.Space | None = None
        if isinstance(space, gym.spaces.Dict) and self._inside:
            mask = space[MASK]
            space = gym.spaces.Dict(
                {key: part for key, part in space.spaces.items() if key != MASK}
            )
            self.unflattened = gym.spaces.Dict([(MASK, mask), *space.items()])
        self._rest = space
        flat = flatten_space(space)
        count = int(environment.action_space.n)
        assert isinstance(flat, gym.spaces.Box)
        low, high = (
            np.append(np.full(count, x), bound) for x, bound in ((0, flat.low), (1, flat.high))
        )
        self._dtype = np.promote_types(flat.dtype, np.float32).type
        self.observation_space = gym.spaces.Box(
            low.astype(self._dtype), high.astype(self._dtype), dtype=self._dtype
        )

    def reset(self, **options: Any) -> Any:
        observation, info = self.env.reset(**options)
        return self._joined(observation, info), info

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._joined(observation, info), reward, terminated, truncated, info

    def _joined(self, observation: Any, info: dict[str, Any]) -> Any:
        if self._inside:
            mask = observation[MASK]
            observation = {k: v for k, v in observation.items() if k != MASK}
        else:
            mask = info[MASK]
        parts = (
            np.asarray(mask, self._dtype).ravel(),
            np.asarray(flatten(self._rest, observation), self._dtype),
        )
        return np.concatenate(parts)


class NestedAction(gym.ActionWrapper):
    """Takes the numbers of a Tuple or Dict action in one row, in the order in which Gymnasium
    flattens.
    """

    def action(self, action: Any) -> Any:
        if isinstance(action, np.ndarray):
            return _nested(self.action_space, iter(action))
        return action


def _nested(space: gym.Space, numbers: Iterator[Any]) -> Any:
    match space:
        case gym.spaces.Tuple():
            return tuple(_nested(part, numbers) for part in space.spaces)
        case gym.spaces.Dict():
            return {key: _nested(part, numbers) for key, part in space.spaces.items()}
        case gym.spaces.Discrete():
            return int(next(numbers))
        case _:
            assert space.shape is not None
            row = list(itertools.islice(numbers, int(np.prod(space.shape))))
            return np.array(row, space.dtype).reshape(space.shape)


def unflattened_space(environment: gym.Env) -> gym.Space | None:
    """The space of what the environment inside of a `policy_view` gives, the mask of its actions
    first; None where nothing is flattened, the mask comes by itself, or a run folder cannot hold
    the space.
    """
    if isinstance(environment, NestedAction):
        environment = environment.env
    if isinstance(environment, gym.wrappers.FlattenObservation):
        space = environment.env.observation_space
    elif isinstance(environment, MaskFirst):
        space = environment.unflattened
    else:
        space = None
    with contextlib.suppress(LogpiError):
        if space is not None:
            space_to_json(space)
            return space
    return None


def policy_view(environment: gym.Env) -> Callable[[gym.Env], gym.Env]:
    """The wrappers through which policies look at environments like this one, and act on them.

    A Box or a Discrete stays as it is; whatever Gymnasium can flatten is flattened, without the
    parts of a Dict that it cannot; an action mask is put in front.

    **Raises:** `LogpiError` for a mask of other than Discrete actions.
    """
    observed = _observation_view(environment)
    nested = isinstance(environment.action_space, gym.spaces.Tuple | gym.spaces.Dict)
    if nested:
        return lambda environment: NestedAction(observed(environment))
    return observed


def _observation_view(environment: gym.Env) -> Callable[[gym.Env], gym.Env]:
    space = environment.observation_space
    masked = isinstance(space, gym.spaces.Dict) and MASK in space.spaces
    discrete = isinstance(environment.action_space, gym.spaces.Discrete)
    if not masked:
        # an error is reported by the first rollout, with its place
        with faults_ignored():
            masked = MASK in environment.reset(seed=0)[1]
    if masked and discrete:
        return MaskFirst
    if masked:
        raise LogpiError(
            f"an action_mask needs Discrete actions; the action space is {environment.action_space}"
        )
    flatten = gym.wrappers.FlattenObservation
    if isinstance(space, gym.spaces.Dict) and not _is_flattenable(space):
        numbers = [key for key, part in space.spaces.items() if _is_flattenable(part)]
        return lambda environment: flatten(gym.wrappers.FilterObservation(environment, numbers))
    nested = gym.spaces.Dict | gym.spaces.Tuple | gym.spaces.MultiDiscrete | gym.spaces.MultiBinary
    if isinstance(space, nested) and _is_flattenable(space):
        return flatten
    return lambda environment: environment


def _is_flattenable(space: gym.Space) -> bool:
    try:
        return space.is_np_flattenable
    except NotImplementedError:  # a space of a package's own, such as MiniGrid's sentences
        return False
