"""What plays the batches of some copies on the host: whole episodes, or a part of streams."""

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import PyTree
from numpy import ndarray

from logpi.core.trajectory import Trajectory
from logpi.networks.policy import Policy
from logpi.sampling.host.unfinished import Standing


class Part(NamedTuple):
    """What some copies have played of a batch, and where the episodes under way stand; None where a
    batch leaves none.
    """

    trajectory: Trajectory
    standing: Standing | None

    def used(self) -> "Part":
        """Without the rows after the last step of whole episodes, which need not be sent."""
        if self.standing is not None:
            return self
        rows = int(np.asarray(self.trajectory.mask).any(axis=1).sum())
        memory = self.trajectory.memory
        cut = jax.tree.map(lambda x: x[:rows], self.trajectory)
        return Part(cut._replace(memory=memory), None)


@runtime_checkable
class Player(Protocol):
    """Plays batches of one run in one group of environment copies."""

    def restore(self, policy: Policy, unfinished: PyTree) -> None:
        """Bring the copies to where `unfinished` left them; None where batches leave no episode
        unfinished.

        **Raises:** `EnvironmentFault` where an environment fails; `Interrupted`.
        """
        ...

    def show(self, batch: int) -> ndarray:
        """What the copies show before this batch, from where they stand, `[copy, ...]`.

        **Raises:** `EnvironmentFault` where an environment fails.
        """
        ...

    def sample(self, policy: Policy, batch: int) -> Part:
        """A batch as NumPy arrays `[time, copy, ...]`.

        **Raises:** `EnvironmentFault` that names environment, episode and step where the
        environment fails or gives a value that is not valid; `Interrupted`.
        """
        ...
