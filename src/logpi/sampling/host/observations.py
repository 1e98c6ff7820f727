"""From what environments give to what policies see."""

import numpy as np
from numpy import ndarray

from logpi.core.quantities import LARGEST
from logpi.environments.host.group import EnvironmentFailure
from logpi.environments.spec import EnvironmentSpec
from logpi.sampling.validity import how_wrong


class Observer:
    """Copies observations, from the origin of their space, into arrays of single precision."""

    def __init__(self, spec: EnvironmentSpec):
        shape = spec.observation_space.shape
        self._origin: ndarray | None = None
        if spec.origin is not None and shape is not None:
            self._origin = np.reshape(spec.origin, shape)

    def copy(self, observation: ndarray, into: ndarray) -> None:
        """A row for each environment.

        **Raises:** `EnvironmentFailure` for a number that single precision does not hold.
        """
        if observation.dtype != np.float64:
            into[:] = observation
            return
        try:
            with np.errstate(over="raise"):
                if self._origin is None:
                    into[:] = observation
                else:
                    np.subtract(observation, self._origin, out=into, casting="same_kind")
        except FloatingPointError:
            beyond = np.abs(observation).reshape(len(observation), -1).max(axis=1) > LARGEST
            index = int(np.flatnonzero(beyond)[0])
            message = f"observation {how_wrong(observation[index])}"
            raise EnvironmentFailure(index, message) from None
