"""The sampler of Gymnasium environments: it wires the places that play, and the update."""

import sys
from collections.abc import Callable
from time import perf_counter

import jax
import numpy as np
from jaxtyping import Int, PyTree
from numpy import ndarray
from threadpoolctl import threadpool_limits

from logpi.core.errors import LogpiError
from logpi.core.machine import machine_memory, usable_cores
from logpi.environments.host.group import observation_layout
from logpi.environments.spec import HostEnvironment
from logpi.methods.learner import Learner
from logpi.methods.method import Method
from logpi.methods.update import trajectory_shapes
from logpi.networks.policy import Policy
from logpi.sampling.host.choice import Choice
from logpi.sampling.host.place import Here
from logpi.sampling.host.places import Open, Places
from logpi.sampling.host.process import WorkerProcess
from logpi.sampling.host.program import UpdateProgram
from logpi.sampling.host.ray_actors import Cluster, RayActor
from logpi.sampling.host.shares import Shares
from logpi.sampling.host.unfinished import no_episodes
from logpi.sampling.seam import (
    FEWEST_EVALUATED,
    STOP_AT_FAULTS,
    Advance,
    Episodes,
    Faults,
    Rollouts,
)
from logpi.sampling.validity import EnvironmentFault

# So many faults without a batch between them end a run.
MOST_FAULTS = 5
# A batch may take this share of the machine's memory.
MEMORY_OF_A_BATCH = 0.75
_REMEDIES = {
    "stop": "",
    "replay": "new copies play its batch again",
    "skip": "its batch is thrown away",
}


class HostSampler:
    """Steps Gymnasium environments from Python, in the places that `rollouts` names."""

    def __init__(
        self,
        environment: HostEnvironment,
        count: int,
        seed: int,
        rollouts: Rollouts,
        interrupted: Callable[[], bool],
        faults: Faults = STOP_AT_FAULTS,
    ):
        self._environment = environment
        self._rollouts = rollouts
        self._seed = seed
        self._interrupted = interrupted
        self._faults = faults
        self._lost = 0  # places replaced by others since the metrics of the last batch
        if environment.pool is None:
            self._shares = Shares(range(count), rollouts.share_size)
        else:  # it steps its copies together
            self._shares = Shares(range(count), count)
        self._cluster: Cluster | None = None
        self._workers = rollouts.workers or 0
        most = len(self._shares.numbers) - 1
        if rollouts.ray is not None:
            self._cluster = Cluster(rollouts.ray)
            most = len(self._shares.numbers)
            self._workers = rollouts.workers or min(self._cluster.cpus, most)
        if self._workers > most:
            self._tell_of_idle_workers(most)
            self._workers = most
        try:
            self._places = self._open(self._workers)
        except BaseException:
            if self._cluster is not None:
                self._cluster.close()
            raise
        self._blas = threadpool_limits(1, "blas")  # its threads would hinder more than they help
        self._coming: Places | None = None
        self._stands = False  # whether all copies are where the next batch begins
        parts = min(usable_cores(), len(self._shares.numbers))
        self._choice: Choice | None = None
        self._is_window_over = False
        is_asked_for = rollouts.workers is not None or rollouts.ray is not None
        if not is_asked_for and parts > 1 and isinstance(environment.source, str):
            self._choice = Choice(parts)

    def close(self) -> None:
        self._blas.restore_original_limits()
        self._places.close()
        if self._coming is not None:
            self._coming.close()
        if self._cluster is not None:
            self._cluster.close()

    def evaluate(
        self,
        policy: Policy,
        episodes: int,
        deterministic: bool,
        most_steps: int | None = None,
        beside: bool = False,
    ) -> Episodes:
        returns = np.zeros(0)
        lengths = np.zeros(0, int)
        faults = 0
        while True:
            first = len(lengths)
            affordable = _affordable(lengths, most_steps, self._environment.spec.max_episode_steps)
            started = min(self._shares.count, episodes - first, affordable)
            if started < 1:
                return Episodes(returns, lengths)
            numbers = range(first, first + started)
            try:
                played = self._places.evaluate(policy, numbers, deterministic, beside)
            except EnvironmentFault as fault:
                faults += 1
                self._recover(fault, faults, "new copies play its episodes again")
                continue
            returns = np.append(returns, played.returns)
            lengths = np.append(lengths, played.lengths)

    def begin(self, method: Method, learner: Learner) -> Learner:
        if method.rows is None:
            return learner
        spec = self._environment.spec
        return learner._replace(environment=no_episodes(learner.policy, spec, self._shares.count))

    def advance(self, method: Method, learner: Learner, budget: int) -> Advance:
        """Sampling from Python, then the compiled update."""
        rows = method.rows
        time = self._environment.spec.max_episode_steps if rows is None else rows + 1
        dtype, shape = observation_layout(self._environment.spec.observation_space)
        seen = np.zeros((self._shares.count, *shape), dtype)
        shapes = trajectory_shapes(learner.policy, seen, time, has_paid=rows is not None)
        _require_memory(shapes)
        program = UpdateProgram(method, budget, learner._replace(environment=None), shapes)
        self._stands = False
        left = budget - _steps_made(learner)

        def advance(learner: Learner, steps: int) -> tuple[Learner, list[dict[str, float]]]:
            nonlocal left
            if self._stands and (self._is_window_over or self._coming is not None):
                self._is_window_over = False
                self._reconsider(learner, rows, left)
            begun = perf_counter()
            faults = 0
            while True:
                policy = learner.policy
                under_way = learner.environment
                try:
                    if not self._stands:
                        self._places.restore(policy, under_way, rows)
                    trajectory, unfinished = self._places.sample(
                        policy, under_way, int(learner.batch), rows, time
                    )
                    self._stands = True
                    break
                except EnvironmentFault as fault:
                    faults += 1
                    self._recover(fault, faults, _REMEDIES[self._faults.on_fault])
                    if self._faults.on_fault == "skip":
                        learner = _skip_batch(learner, rows)
            sampled = perf_counter()
            is_compiled = program.is_compiled(trajectory)
            updated, metrics = program(learner._replace(environment=None), trajectory)
            left -= int(metrics["steps"])
            if self._choice is not None and is_compiled:
                done = perf_counter()
                alone = self._places.is_alone
                self._is_window_over = self._choice.add(
                    sampled - begun, done - begun, int(metrics["steps"]), alone
                )
            own = {"faults": faults, "lost": self._lost}
            self._lost = 0
            return updated._replace(environment=unfinished), [metrics | own]

        return advance

    def _open(self, workers: int) -> Places:
        """Places for all copies: so many actors, or this process and so many workers."""
        if self._cluster is not None:
            parts = self._shares.split(workers)
            return Places([(self._actor, part) for part in parts], self._tell_loss)
        here, *others = self._shares.split(workers + 1)
        opened: list[tuple[Open, Shares]] = [(self._here, here)]
        opened += [(self._worker, part) for part in others]
        return Places(opened, self._tell_loss)

    def _tell_loss(self, message: str) -> None:
        """Count a place that is lost, and tell of it; the copies of a new one have not begun."""
        self._lost += 1
        self._stands = False
        self._faults.tell(message)

    def _here(self, shares: Shares) -> Here:
        return Here(self._environment, shares, self._seed, self._interrupted)

    def _worker(self, shares: Shares) -> WorkerProcess:
        mixed = self._rollouts.mixed_hardware
        return WorkerProcess(self._environment, shares, self._seed, self._interrupted, mixed)

    def _actor(self, shares: Shares) -> RayActor:
        assert self._cluster is not None
        mixed = self._rollouts.mixed_hardware
        return RayActor(
            self._cluster, self._environment, shares, self._seed, self._interrupted, mixed
        )

    def _tell_of_idle_workers(self, busy: int) -> None:
        shares = f"{self._shares.count} copies are {len(self._shares.numbers)} shares"
        idle = f"{busy} of {self._workers} workers have something to do"
        self._faults.tell(f"{shares} of {self._shares.size}: {idle}; lower --share-size for more")

    def _recover(self, fault: EnvironmentFault, number: int, then: str) -> None:
        """New copies in new processes, in the place of those of which one has failed; `then` tells
        what follows.

        **Raises:** the fault where it ends the run.
        """
        on_fault = self._faults.on_fault
        if on_fault == "stop":
            raise fault
        if number == MOST_FAULTS:
            raise EnvironmentFault(f"{fault}; {number} faults in a row, --on-fault {on_fault}")
        self._faults.tell(f"{fault}; {then}")
        self._places.close()
        self._places = self._open(self._workers)
        self._stands = False

    def _reconsider(self, learner: Learner, rows: int | None, left: int) -> None:
        """Start workers where they may pay, take them when they are ready, and give them up where
        training is slower with them. What is played does not change.
        """
        choice = self._choice
        if choice is None:
            return
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


def _steps_made(learner: Learner) -> int:
    """Environment steps of all batches so far."""
    low, high = np.asarray(learner.steps).tolist()
    return low + 2**32 * high


def _steps_under_way(learner: Learner) -> int:
    """Steps that copies made anew would have to take again."""
    if learner.environment is None:
        return 0
    return int(np.sum(learner.environment.standing.step))


def _require_memory(batch: PyTree) -> None:
    """Refuse arrays that the machine cannot hold: Linux grants them, and ends the process once they
    are written.

    **Raises:** `MemoryError`.
    """
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(batch))
    memory = machine_memory()
    if size > MEMORY_OF_A_BATCH * memory:
        remedy = "lower --max-episode-steps or the number of copies"
        sizes = f"{size / 2**30:,.1f} GiB, this machine has {memory / 2**30:,.1f} GiB"
        raise MemoryError(f"a batch takes {sizes}: {remedy}")


def _skip_batch(learner: Learner, rows: int | None) -> Learner:
    """The learner before the next batch: that of this one is thrown away as a whole, so that which
    episodes count does not depend on which copy has failed.
    """
    unfinished = learner.environment
    if rows is not None:
        unfinished = unfinished.skipped(rows)
    return learner._replace(batch=learner.batch + 1, environment=unfinished)


def _affordable(lengths: Int[ndarray, " episode"], most_steps: int | None, longest: int) -> int:
    """How many more episodes fit into `most_steps`, if they are as long as those that were
    played; before any was, if they are as long as they can be, but two at least.
    """
    if most_steps is None:
        return sys.maxsize
    if not len(lengths):
        return max(FEWEST_EVALUATED, most_steps // longest)
    return int((most_steps - lengths.sum()) // lengths.mean())
