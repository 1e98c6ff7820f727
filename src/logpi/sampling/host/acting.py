"""A policy acts from Python: NumPy's forward pass, share by share."""

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from logpi.networks.policy import Policy
from logpi.sampling.host.shares import by_share, side_by_side


class Acting:
    """A policy with NumPy parameters, for rows `[copy, ...]` that act in shares of `size` copies.

    Each share is one matrix of a stack, and NumPy multiplies a stack matrix by matrix: the numbers
    of a share are the same however many others there are.
    """

    def __init__(self, policy: Policy, size: int):
        self._policy = policy.on_host()
        self._size = size

    def next_memory(
        self,
        observation: ndarray,
        memory: Float[ndarray, "copy state"],
        step: Int[ndarray, " copy"],
    ) -> Float[ndarray, "copy state"]:
        """m_t from o_t and m_{t-1}, which is forgotten where `step` is 0."""
        if not self._policy.memory.recurrent:
            return memory
        seen = by_share(observation, self._size)
        before = by_share(memory, self._size)
        remembered = self._policy.next_memory(seen, before, by_share(step, self._size))
        return side_by_side(remembered, len(memory))

    def sample(
        self,
        observation: ndarray,
        memory: Float[ndarray, "copy state"],
        noise: Float[ndarray, "copy size"],
    ) -> ndarray:
        """An action for each copy, drawn with standard noise."""
        seen = by_share(observation, self._size)
        if self._policy.memory.recurrent:
            memory = by_share(memory, self._size)
        law = self._policy(seen, memory)
        action = law.sample(by_share(noise, self._size))
        return side_by_side(np.asarray(action), len(noise))

    def execute(self, action: ndarray) -> ndarray:
        """What the environments receive for sampled actions."""
        return np.asarray(self._policy.execute(action))
