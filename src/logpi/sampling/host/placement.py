"""Where the copies of a run are played: in this process, in workers, or in actors of Ray."""

from collections.abc import Callable

import numpy as np

from logpi.core.errors import LogpiError
from logpi.core.machine import usable_cores
from logpi.core.trajectory import Trajectory
from logpi.environments.spec import HostEnvironment
from logpi.methods.learner import Learner
from logpi.networks.policy import Policy
from logpi.sampling.host.choice import Choice
from logpi.sampling.host.place import Here
from logpi.sampling.host.places import Open, Places
from logpi.sampling.host.process import WorkerProcess
from logpi.sampling.host.ray_actors import Cluster, RayActor
from logpi.sampling.host.shares import Shares
from logpi.sampling.host.unfinished import UnfinishedReplay
from logpi.sampling.seam import Episodes, Faults, OnFault, Rollouts
from logpi.sampling.validity import EnvironmentFault

# So many faults without a batch between them end a run.
MOST_FAULTS = 5


class Placement:
    """The places of a run's copies. Others replace them after a fault, and where they pay; what is
    played does not depend on them.

    `faults` says what follows a fault, and is told of it, of workers that are idle, and of places
    that are lost.
    """

    def __init__(
        self,
        environment: HostEnvironment,
        shares: Shares,
        seed: int,
        rollouts: Rollouts,
        interrupted: Callable[[], bool],
        faults: Faults,
    ):
        self._environment = environment
        self._shares = shares
        self._seed = seed
        self._mixed_hardware = rollouts.mixed_hardware
        self._interrupted = interrupted
        self._faults = faults
        self._cluster: Cluster | None = None
        self._workers = rollouts.workers or 0
        most = len(shares.numbers) - 1
        if rollouts.ray is not None:
            self._cluster = Cluster(rollouts.ray)
            most = len(shares.numbers)
            self._workers = rollouts.workers or min(self._cluster.cpus, most)
        if self._workers > most:
            self._tell_of_idle_workers(most)
            self._workers = most
        self._lost = 0  # places replaced by others since they were last counted
        self._stands = False  # whether all copies are where the next batch begins
        try:
            self._places = self._open(self._workers)
        except BaseException:
            if self._cluster is not None:
                self._cluster.close()
            raise
        self._coming: Places | None = None
        self._is_window_over = False
        self._choice: Choice | None = None
        is_asked_for = rollouts.workers is not None or rollouts.ray is not None
        parts = min(usable_cores(), len(shares.numbers))
        if not is_asked_for and parts > 1 and isinstance(environment.source, str):
            self._choice = Choice(parts)

    def close(self) -> None:
        """Release everything."""
        self._places.close()
        if self._coming is not None:
            self._coming.close()
        if self._cluster is not None:
            self._cluster.close()

    def evaluate(
        self, policy: Policy, numbers: range, deterministic: bool, beside: bool
    ) -> Episodes:
        """The episodes of these numbers, at most one a copy; `beside` training, or in its copies.

        **Raises:** `EnvironmentFault`, `Interrupted`; `LogpiError` where a place is lost too often.
        """
        return self._places.evaluate(policy, numbers, deterministic, beside)

    def sample(
        self, learner: Learner, rows: int | None, time: int
    ) -> tuple[Trajectory, UnfinishedReplay | None]:
        """The learner's next batch in arrays of `time` rows, and the episodes that it leaves
        unfinished.

        **Raises:** as `evaluate`.
        """
        policy = learner.policy
        under_way = learner.environment
        if not self._stands:
            self._places.restore(policy, under_way, rows)
        batch = self._places.sample(policy, under_way, int(learner.batch), rows, time)
        self._stands = True
        return batch

    @property
    def on_fault(self) -> OnFault:
        """What follows a fault of an environment."""
        return self._faults.on_fault

    def stand_anew(self) -> None:
        """Have the copies brought to where the next batch begins: it does not follow the last."""
        self._stands = False

    def recover(self, fault: EnvironmentFault, number: int, then: str) -> None:
        """New copies in new processes, in the place of those of which one has failed, after the
        fault of this number in a row; `then` tells what follows.

        **Raises:** the fault where it ends the run.
        """
        if self.on_fault == "stop":
            raise fault
        if number == MOST_FAULTS:
            raise EnvironmentFault(f"{fault}; {number} faults in a row, --on-fault {self.on_fault}")
        self._faults.tell(f"{fault}; {then}")
        self._places.close()
        self._places = self._open(self._workers)
        self._stands = False

    def count_lost(self) -> int:
        """How many places were lost since this was last asked."""
        lost = self._lost
        self._lost = 0
        return lost

    def measure(self, sampling: float, total: float, steps: int) -> None:
        """Count a batch that waited for no compiler: seconds of sampling, of all, and its steps."""
        if self._choice is not None:
            alone = self._places.is_alone
            self._is_window_over = self._choice.add(sampling, total, steps, alone)

    def reconsider(self, learner: Learner, rows: int | None, left: int) -> None:
        """Start workers where they may pay for the steps that are left, take them when they are
        ready, and give them up where training is slower with them.
        """
        choice = self._choice
        is_time = self._is_window_over or self._coming is not None
        if choice is None or not self._stands or not is_time:
            return
        self._is_window_over = False
        if self._coming is not None:
            if self._coming.are_ready():
                self._move(learner, rows, self._coming, choice.workers)
                self._coming = None
        elif self._places.is_alone:
            if choice.is_worth_a_try(left, _steps_under_way(learner)):
                self._coming = self._open(choice.workers)
        elif choice.was_wrong:
            self._move(learner, rows, self._open(0), 0)
            self._choice = None

    def _move(self, learner: Learner, rows: int | None, other: Places, workers: int) -> None:
        """Go on in other places if their copies show what these show; else never ask again."""
        policy = learner.policy
        batch = int(learner.batch)
        try:
            other.restore(policy, learner.environment, rows)
            there = other.show(policy, batch)
            alike = np.array_equal(there, self._places.show(policy, batch))
        except LogpiError:
            alike = False
        if not alike:
            other.close()
            self._choice = None
            return
        self._places.close()
        self._places = other
        self._workers = workers
        if self._choice is not None:
            self._choice.begin_window()

    def _open(self, workers: int) -> Places:
        """Places for all copies: so many actors, or this process and so many workers."""
        if self._cluster is not None:
            parts = self._shares.split(workers)
            return Places([(self._actor, part) for part in parts], self._tell_loss)
        here, *others = self._shares.split(workers + 1)
        opened: list[tuple[Open, Shares]] = [(self._here, here)]
        opened += [(self._worker, part) for part in others]
        return Places(opened, self._tell_loss)

    def _here(self, shares: Shares) -> Here:
        return Here(self._environment, shares, self._seed, self._interrupted)

    def _worker(self, shares: Shares) -> WorkerProcess:
        mixed = self._mixed_hardware
        return WorkerProcess(self._environment, shares, self._seed, self._interrupted, mixed)

    def _actor(self, shares: Shares) -> RayActor:
        assert self._cluster is not None
        mixed = self._mixed_hardware
        return RayActor(
            self._cluster, self._environment, shares, self._seed, self._interrupted, mixed
        )

    def _tell_loss(self, message: str) -> None:
        """Count a place that is lost, and tell of it; the copies of a new one have not begun."""
        self._lost += 1
        self._stands = False
        self._faults.tell(message)

    def _tell_of_idle_workers(self, busy: int) -> None:
        shares = f"{self._shares.count} copies are {len(self._shares.numbers)} shares"
        idle = f"{busy} of {self._workers} workers have something to do"
        self._faults.tell(f"{shares} of {self._shares.size}: {idle}; lower --share-size for more")


def _steps_under_way(learner: Learner) -> int:
    """Steps that copies made anew would have to take again."""
    if learner.environment is None:
        return 0
    return int(np.sum(learner.environment.standing.step))
