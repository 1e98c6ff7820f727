"""The sampler of Gymnasium environments: batches that several places play, and the update."""

import sys
from collections.abc import Callable
from time import perf_counter
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int, PyTree
from numpy import ndarray
from threadpoolctl import threadpool_limits

from logpi.core.machine import machine_memory
from logpi.core.trajectory import Trajectory
from logpi.environments.host.group import observation_layout
from logpi.environments.spec import HostEnvironment
from logpi.methods.learner import Learner
from logpi.methods.method import Method
from logpi.methods.update import trajectory_shapes
from logpi.networks.policy import Policy
from logpi.sampling.host.placement import Placement
from logpi.sampling.host.program import UpdateProgram
from logpi.sampling.host.shares import Shares
from logpi.sampling.host.unfinished import UnfinishedReplay, no_episodes
from logpi.sampling.seam import (
    FEWEST_EVALUATED,
    STOP_AT_FAULTS,
    Advance,
    Episodes,
    Faults,
    Rollouts,
)
from logpi.sampling.validity import EnvironmentFault

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
        if environment.pool is None:
            self._shares = Shares(range(count), rollouts.share_size)
        else:  # it steps its copies together
            self._shares = Shares(range(count), count)
        self._placement = Placement(environment, self._shares, seed, rollouts, interrupted, faults)
        self._blas = threadpool_limits(1, "blas")  # its threads would hinder more than they help

    def close(self) -> None:
        self._blas.restore_original_limits()
        self._placement.close()

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
                played = self._placement.evaluate(policy, numbers, deterministic, beside)
            except EnvironmentFault as fault:
                faults += 1
                self._placement.recover(fault, faults, "new copies play its episodes again")
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
        self._placement.stand_anew()
        left = budget - _steps_made(learner)
        return HostTraining(self._placement, program, rows, time, left)


class Batch(NamedTuple):
    """What was played for a learner, the episodes that it leaves unfinished, and the faults of
    environments before it was whole.
    """

    learner: Learner
    trajectory: Trajectory
    unfinished: UnfinishedReplay | None
    faults: int


class HostTraining:
    """A batch and an update at each call, until the `left` steps are made."""

    def __init__(
        self,
        placement: Placement,
        program: UpdateProgram,
        rows: int | None,
        time: int,
        left: int,
    ):
        self._placement = placement
        self._program = program
        self._rows = rows
        self._time = time
        self._left = left

    def __call__(self, learner: Learner, steps: int) -> tuple[Learner, list[dict[str, float]]]:
        """One update, and its metrics."""
        self._placement.reconsider(learner, self._rows, self._left)
        begun = perf_counter()
        batch = self._play(learner)
        sampled = perf_counter()
        is_compiled = self._program.is_compiled(batch.trajectory)
        before = batch.learner._replace(environment=None)
        updated, metrics = self._program(before, batch.trajectory)
        made = int(metrics["steps"])
        self._left -= made
        if is_compiled:
            self._placement.measure(sampled - begun, perf_counter() - begun, made)
        own = {"faults": batch.faults, "lost": self._placement.count_lost()}
        return updated._replace(environment=batch.unfinished), [metrics | own]

    def _play(self, learner: Learner) -> Batch:
        """The next batch of the learner; where environments fail, what `on_fault` asks for."""
        faults = 0
        while True:
            try:
                trajectory, unfinished = self._placement.sample(learner, self._rows, self._time)
                return Batch(learner, trajectory, unfinished, faults)
            except EnvironmentFault as fault:
                faults += 1
                on_fault = self._placement.on_fault
                self._placement.recover(fault, faults, _REMEDIES[on_fault])
                if on_fault == "skip":
                    learner = _skip_batch(learner, self._rows)


def _steps_made(learner: Learner) -> int:
    """Environment steps of all batches so far."""
    low, high = np.asarray(learner.steps).tolist()
    return low + 2**32 * high


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
