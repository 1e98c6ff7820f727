"""What plays a batch on the host: whole episodes, or a part of streams of them."""

from typing import Protocol, runtime_checkable

from jaxtyping import PyTree

from logpi.core.trajectory import Trajectory
from logpi.environments.host.group import Group
from logpi.networks.policy import Policy


@runtime_checkable
class Player(Protocol):
    """Plays batches of one run with one group of environment copies."""

    @property
    def time(self) -> int:
        """Rows of the trajectories that `sample` returns."""
        ...

    def begin(self, policy: Policy) -> PyTree:
        """The unfinished episodes before the first batch; None where batches leave none."""
        ...

    def restore(self, policy: Policy, unfinished: PyTree) -> None:
        """Bring the environments to where `unfinished` left them.

        **Raises:** `LogpiError` where an environment fails; `Interrupted`.
        """
        ...

    def sample(self, policy: Policy, batch: int) -> tuple[Trajectory, PyTree]:
        """One batch as NumPy arrays, and the episodes that it leaves unfinished.

        **Raises:** `LogpiError` that names environment, episode and step where the environment
        fails or gives a value that is not valid; `Interrupted`.
        """
        ...

    def skipped(self, unfinished: PyTree) -> PyTree:
        """What stands in the place of `unfinished` where the batch after it is thrown away."""
        ...

    def move(self, group: Group, policy: Policy, batch: int) -> bool:
        """Go on in another group of the same copies, if that leads to what is seen now.

        Where it does not, everything stays as it is, and False is returned.
        """
        ...
