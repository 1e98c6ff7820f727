"""Which numbers are quantities, and which bounds are bounds."""

import gymnasium as gym
import numpy as np

# No quantity is as large: its square leaves single precision.
LARGEST = 1e18
BEYOND = f"beyond {LARGEST:g}, where squares leave single precision"


def bounds_of(space: gym.spaces.Box) -> tuple[np.ndarray, np.ndarray]:
    """The bounds of a Box in double precision; one beyond `LARGEST` is infinite."""
    low = np.asarray(space.low, float)
    high = np.asarray(space.high, float)
    return np.where(low < -LARGEST, -np.inf, low), np.where(high > LARGEST, np.inf, high)
