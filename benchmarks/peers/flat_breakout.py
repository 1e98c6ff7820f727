"""`flat_breakout.py:FLAT_BREAKOUT` is Breakout-MinAtar of gymnax with its picture as 400 numbers in a
row, which is what PureJaxRL and rejax give their networks."""

import dataclasses

import gymnasium as gym

from logpi import CompiledEnvironment
from logpi.environments.registry import make_environment


def flatten(picture: CompiledEnvironment) -> CompiledEnvironment:
    """The environment with its observations as vectors."""

    def reset(key):
        state, observation = picture.reset(key)
        return state, observation.ravel()

    def step(key, state, action):
        state, observation, *rest = picture.step(key, state, action)
        return state, observation.ravel(), *rest

    space = gym.spaces.flatten_space(picture.spec.observation_space)
    spec = dataclasses.replace(picture.spec, name="flat-breakout", observation_space=space)
    return CompiledEnvironment(spec, reset, step)


FLAT_BREAKOUT = flatten(make_environment("gymnax:Breakout-MinAtar"))
