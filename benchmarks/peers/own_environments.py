"""Environments that no package has, for both sides of a comparison: `own_environments.py:TenDials` for
logpi, `own_environments:TenDials-v0` for Gymnasium."""

import time

import gymnasium as gym
import numpy as np

DIALS = 10
POSITIONS = 4
STEP_SECONDS = 1e-3
PIXELS = 84


class TenDials(gym.Env):
    """Ten dials of four positions, one action each: the reward is the share of those that are set
    to the quarter of [0, 1) in which the number beside them is. An episode has 100 steps."""

    observation_space = gym.spaces.Box(0.0, 1.0, (DIALS,), np.float32)
    action_space = gym.spaces.MultiDiscrete([POSITIONS] * DIALS)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._show(), {}

    def step(self, action):
        reward = float(np.mean(action == (self._numbers * POSITIONS).astype(int)))
        return self._show(), reward, False, False, {}

    def _show(self):
        self._numbers = self.np_random.random(DIALS, np.float32)
        return self._numbers


class Busy(gym.Wrapper):
    """CartPole-v1, whose step keeps the processor busy for a millisecond more."""

    def __init__(self):
        super().__init__(gym.make("CartPole-v1"))

    def step(self, action):
        end = time.perf_counter() + STEP_SECONDS
        while time.perf_counter() < end:
            pass
        return super().step(action)


def make_busy(render_mode=None):
    """The one that a registry makes, which looks for no `metadata` in a function."""
    return Busy()


class Camera(gym.ObservationWrapper):
    """CartPole-v1 as a Dict: a picture of where cart and pole are, and their velocities."""

    observation_space = gym.spaces.Dict(
        camera=gym.spaces.Box(0, 255, (PIXELS, PIXELS, 1), np.uint8),
        velocities=gym.spaces.Box(-np.inf, np.inf, (2,), np.float32),
    )

    def __init__(self):
        super().__init__(gym.make("CartPole-v1"))

    def observation(self, observation):
        position, velocity, angle, turning = observation
        column = PIXELS * (0.5 + position / 5)
        heights = np.arange(PIXELS // 2)
        columns = np.clip(column + 3 * np.sin(angle) * heights, 0, PIXELS - 1).astype(int)
        picture = np.zeros((PIXELS, PIXELS, 1), np.uint8)
        picture[PIXELS - 1 - heights, columns] = 255
        return {"camera": picture, "velocities": np.array([velocity, turning], np.float32)}


def make_camera(render_mode=None):
    """As `make_busy`."""
    return Camera()


gym.register("TenDials-v0", TenDials, max_episode_steps=100)
gym.register("Busy-v0", make_busy)
gym.register("Camera-v0", make_camera)
