"""What a method is to samplers and runs: they ask it, and never ask which one it is."""

from typing import ClassVar, Protocol, runtime_checkable

from logpi.core.arrays import Number
from logpi.core.trajectory import Trajectory
from logpi.environments.spec import EnvironmentSpec
from logpi.methods.learner import Learner, Metrics


@runtime_checkable
class Method(Protocol):
    """A method is its options, frozen; its loss and its step are functions of them.

    `target` names what the expected gradient of its loss is the gradient of, as `logpi check` names
    targets.
    """

    target: ClassVar[str]

    @property
    def anneal(self) -> tuple[str, ...]: ...
    @property
    def reference(self) -> str | None: ...
    @property
    def network(self) -> str | None: ...
    @property
    def hidden(self) -> tuple[int, ...] | None: ...
    @property
    def memory(self) -> str: ...
    @property
    def memory_size(self) -> int: ...
    @property
    def learning_rate(self) -> Number: ...
    @property
    def copies(self) -> int:
        """Environment copies that are stepped side by side."""
        ...

    @property
    def rows(self) -> int | None:
        """Steps of each copy in a batch; None where whole episodes are played."""
        ...

    def make_learner(self, spec: EnvironmentSpec, seed: int) -> Learner:
        """The learner before its first batch."""
        ...

    def update(self, learner: Learner, trajectory: Trajectory) -> tuple[Learner, Metrics]:
        """One update from a batch."""
        ...

    def require_usable(self, learner: Learner) -> None:
        """Refuse what the options name and training cannot serve, before a run folder is made.

        **Raises:** `LogpiError`.
        """
        ...
