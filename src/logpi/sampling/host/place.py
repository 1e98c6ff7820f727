"""Where shares are played: in this process, in a worker process, or in an actor of Ray."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import jax
from numpy import ndarray

from logpi.core.errors import LogpiError
from logpi.core.foreign import describe
from logpi.environments.spec import HostEnvironment
from logpi.networks.policy import Policy
from logpi.sampling.host.player import Part
from logpi.sampling.host.role import Role
from logpi.sampling.host.shares import Shares
from logpi.sampling.host.stage import Stage
from logpi.sampling.validity import EnvironmentFault

# Seconds that another process has beyond the limit of a step, to say itself what took too long.
GRACE = 5.0
# Seconds that another process has to start: it may read its packages from a slow disk.
STARTING = 300.0
# Seconds after which a waiting process looks whether it has been asked to stop.
LOOK = 0.1


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


class Outcome(NamedTuple):
    """What has become of a request, as it travels from another process."""

    kind: Literal["done", "fault", "refused", "raised"]
    value: Any

    def result(self) -> Any:
        """What was asked for.

        **Raises:** `EnvironmentFault`, `LogpiError` or `PlaceLost`, with the words of the other
        process.
        """
        match self.kind:
            case "done":
                return self.value
            case "fault":
                raise EnvironmentFault(self.value)
            case "refused":
                raise LogpiError(self.value)
            case "raised":
                raise PlaceLost(f"its process raised {self.value}")


class Worker:
    """What plays in another process; its environments are made when they are first needed."""

    def __init__(self, role: Role, interrupted: Callable[[], bool]):
        self._role = role
        self._interrupted = interrupted
        self._structure: Any = None
        self._stage: Stage | None = None

    def meet(self, policy: Policy) -> None:
        """Take the policy whose parameters will follow."""
        self._structure = jax.tree.structure(policy)

    def perform(
        self, method: str, leaves: Sequence[ndarray], arguments: tuple[Any, ...]
    ) -> Outcome:
        """What becomes of a request, whatever its environments do."""
        request = Request(method, jax.tree.unflatten(self._structure, leaves), arguments)
        try:
            if self._stage is None:
                role = self._role
                self._stage = Stage(
                    role.make_environment(), role.shares, role.seed, self._interrupted
                )
            value = request.perform(self._stage)
        except EnvironmentFault as fault:
            return Outcome("fault", str(fault))
        except LogpiError as error:
            return Outcome("refused", str(error))
        except BrokenPipeError:  # nobody waits for it any more
            raise
        except Exception as error:
            return Outcome("raised", describe(error))
        if isinstance(value, Part):
            value = value.used()
        return Outcome("done", value)

    def close(self) -> None:
        """Release the environments."""
        if self._stage is not None:
            self._stage.close()


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
