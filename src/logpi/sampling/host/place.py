"""Where shares are played: in this process, in a worker process, or in an actor of Ray."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

from logpi.environments.spec import HostEnvironment
from logpi.networks.policy import Policy
from logpi.sampling.host.shares import Shares
from logpi.sampling.host.stage import Stage


class Request(NamedTuple):
    """What a place is asked to do: a method of `Stage`, with its arguments."""

    method: str
    policy: Policy
    arguments: tuple[Any, ...]

    def perform(self, stage: Stage) -> Any:
        """What the method returns."""
        return getattr(stage, self.method)(self.policy, *self.arguments)


class PlaceLost(Exception):
    """A place has died, hangs or fails; the message says what is known of it."""


@runtime_checkable
class Place(Protocol):
    """One process that plays some shares of a run."""

    @property
    def shares(self) -> Shares:
        """What it plays."""
        ...

    def ask(self, request: Request) -> None:
        """Have something done; does not wait for it."""
        ...

    def answer(self) -> Any:
        """What was asked for last, once it is there.

        **Raises:** `EnvironmentFault` where an environment fails; `PlaceLost`; `Interrupted`.
        """
        ...

    def is_ready(self) -> bool:
        """Whether it would begin at once with what it is asked for."""
        ...

    def close(self) -> None:
        """Release the environments, and end the process if there is one."""
        ...


class Here:
    """The process that trains: what it is asked for is done when the answer is wanted."""

    def __init__(
        self,
        environment: HostEnvironment,
        shares: Shares,
        seed: int,
        interrupted: Callable[[], bool],
    ):
        self.shares = shares
        self._stage = Stage(environment, shares, seed, interrupted)
        self._request: Request | None = None

    def ask(self, request: Request) -> None:
        self._request = request

    def answer(self) -> Any:
        assert self._request is not None
        return self._request.perform(self._stage)

    def is_ready(self) -> bool:
        return True

    def close(self) -> None:
        self._stage.close()
