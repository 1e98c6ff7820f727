"""`flat_breakout.py:FLAT_BREAKOUT` is Breakout-MinAtar of gymnax with its picture as 400 numbers in a
row, which is what PureJaxRL and rejax give their networks."""

import dataclasses

import gymnasium as gym
import numpy as np

from logpi import CompiledEnvironment
from logpi.environments.registry import make_environment


def flatten(picture: CompiledEnvironment) -> CompiledEnvironment:
    """The environment with its observations as vectors of numbers from 0 to 1."""
    size = int(np.prod(picture.spec.observation_space.shape))

    def reset(key):
        state, observation = picture.reset(key)
        return state, observation.reshape(size)

    def step(key, state, action):
        state, observation, *rest = picture.step(key, state, action)
        return state, observation.reshape(size), *rest

    space = gym.spaces.Box(0, 1, (size,), np.float32)
    spec = dataclasses.replace(picture.spec, name="flat-breakout", observation_space=space)
    return CompiledEnvironment(spec, reset, step)


FLAT_BREAKOUT = flatten(make_environment("gymnax:Breakout-MinAtar"))
