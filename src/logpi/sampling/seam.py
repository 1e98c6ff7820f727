"""What a sampler is to a run, whichever kind of environment it samples [D4.1].

For REINFORCE a batch is N episodes that were *started*, one per environment copy; all of them are
finished and counted, so that which episodes count does not depend on how they end. For the methods
that play rollouts it is N streams of episodes, cut after a fixed number of rows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

from jaxtyping import Float, Int
from numpy import ndarray

from logpi.methods.learner import Learner
from logpi.methods.method import Method
from logpi.networks.policy import Policy

# Episodes of an evaluation, however long they are: one has no interval.
FEWEST_EVALUATED = 2


class Interrupted(Exception):
    """The user asked to stop. The batch under way is dropped; after a resume it is sampled again,
    the same.
    """


OnFault: TypeAlias = Literal["stop", "replay", "skip"]


def _tell_nobody(message: str) -> None:
    """Nobody listens."""


class Faults(NamedTuple):
    """What happens where an environment fails: the run stops, the batch is played again by new
    copies, or it is thrown away; and who is told.
    """

    on_fault: OnFault = "stop"
    tell: Callable[[str], None] = _tell_nobody


STOP_AT_FAULTS = Faults()

# Copies of a share: products of four rows run as fast as larger ones, and 8 copies have two shares.
SHARE_SIZE = 4


@dataclass(frozen=True)
class Ray:
    """A cluster of Ray, on which rollouts are played (`pip install 'logpi[ray]'`).

    `address` is that of a cluster that runs, such as "auto" or "ray://HOST:10001"; by default Ray
    starts one on this machine.
    """

    address: str | None = None


@dataclass(frozen=True)
class Rollouts:
    """Where the copies of a run are played; what they play does not depend on it.

    `workers` processes beside this one, or actors of `ray`; None: as many as pay. `share_size` is
    the number of copies that act together. `mixed_hardware` lets machines take part that compute
    with other last bits. `devices` share the copies of a compiled environment; None: one.
    """

    workers: int | None = None
    share_size: int = SHARE_SIZE
    ray: Ray | None = None
    mixed_hardware: bool = False
    devices: int | None = None


LOCAL_ROLLOUTS = Rollouts()


class Episodes(NamedTuple):
    """Sums of rewards and numbers of steps of whole episodes."""

    returns: Float[ndarray, " episode"]
    lengths: Int[ndarray, " episode"]


@runtime_checkable
class Advance(Protocol):
    """The training program of a run."""

    def __call__(self, learner: Learner, steps: int) -> tuple[Learner, list[dict[str, float]]]:
        """At least one update, and more until about `steps` environment steps are made.

        Returns the learner after the updates, and the metrics of each.

        **Raises:** `LogpiError` that names environment, episode and step where an environment fails
        or gives a value that is not finite; `Interrupted`.
        """
        ...


@runtime_checkable
class Sampler(Protocol):
    """Episodes of an environment under a policy."""

    def evaluate(
        self,
        policy: Policy,
        episodes: int,
        deterministic: bool,
        most_steps: int | None = None,
        beside: bool = False,
    ) -> Episodes:
        """Fresh episodes, from seeds that training never uses.

        `most_steps` bounds their steps where Python steps the environment: fewer episodes are then
        played, but at least two. Those that are played `beside` training have copies of their own:
        training goes on as if they had not been.
        """
        ...

    def begin(self, method: Method, learner: Learner) -> Learner:
        """The learner before the first step, with the episodes under way if a batch leaves them
        unfinished.
        """
        ...

    def advance(self, method: Method, learner: Learner, budget: int) -> Advance:
        """The program for learners like `learner`, which a run of `budget` steps goes on from."""
        ...

    def close(self) -> None:
        """Release the environments."""
        ...
