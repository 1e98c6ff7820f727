"""The sampler of Gymnasium environments: it wires a group of copies, a player and the update."""

import sys
from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Int, PyTree
from numpy import ndarray

from logpi.environments.host.choice import hindered, machine_memory, make_group, usable_cores
from logpi.environments.host.local import LocalGroup
from logpi.environments.spec import HostEnvironment
from logpi.methods.learner import Learner
from logpi.methods.method import Method
from logpi.methods.update import trajectory_shapes
from logpi.networks.policy import Policy
from logpi.sampling.host.episodes import HostEpisodes
from logpi.sampling.host.player import Player
from logpi.sampling.host.program import UpdateProgram
from logpi.sampling.host.streams import HostStreams
from logpi.sampling.seam import FEWEST_EVALUATED, STOP_AT_FAULTS, Advance, Episodes, Faults
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
    """Steps Gymnasium environments from Python."""

    def __init__(
        self,
        environment: HostEnvironment,
        count: int,
        seed: int,
        workers: int | None,
        interrupted: Callable[[], bool],
        faults: Faults = STOP_AT_FAULTS,
    ):
        self._environment = environment
        self._count = count
        self._seed = seed
        self._interrupted = interrupted
        self._faults = faults
        self._workers = workers
        # workers that the user asked for stay, whatever they cost
        self._may_give_up = workers is None
        self._group = make_group(environment, count, workers, usable_cores())

    def close(self) -> None:
        self._group.close()

    def evaluate(
        self, policy: Policy, episodes: int, deterministic: bool, most_steps: int | None = None
    ) -> Episodes:
        player = self._episodes()
        returns = np.zeros(0)
        lengths = np.zeros(0, int)
        faults = 0
        while True:
            first = len(lengths)
            started = min(self._count, episodes - first, _affordable(lengths, most_steps))
            if started < 1:
                return Episodes(returns, lengths)
            try:
                played = player.evaluate(policy, range(first, first + started), deterministic)
            except EnvironmentFault as fault:
                faults += 1
                self._recover(fault, faults, "new copies play its episodes again")
                player = self._episodes()
                continue
            returns = np.append(returns, played.returns)
            lengths = np.append(lengths, played.lengths)

    def begin(self, method: Method, learner: Learner) -> Learner:
        return learner._replace(environment=self._player(method).begin(learner.policy))

    def advance(self, method: Method, learner: Learner, budget: int) -> Advance:
        """Sampling from Python, then the compiled update."""
        player: Player | None = None
        seen = self._group.observation
        has_paid = method.rows is not None
        rows = self._player(method).time
        shapes = trajectory_shapes(learner.policy, seen, rows, has_paid)
        _require_memory(shapes)
        program = UpdateProgram(method, budget, learner._replace(environment=None), shapes)

        def advance(learner: Learner, steps: int) -> tuple[Learner, list[dict[str, float]]]:
            nonlocal player
            if player is not None and self._may_give_up and hindered(self._group):
                self._give_up_workers(player, learner.policy, int(learner.batch))
            faults = 0
            while True:
                try:
                    if player is None:
                        player = self._player(method)
                        player.restore(learner.policy, learner.environment)
                    trajectory, unfinished = player.sample(learner.policy, int(learner.batch))
                    break
                except EnvironmentFault as fault:
                    faults += 1
                    self._recover(fault, faults, _REMEDIES[self._faults.on_fault])
                    if self._faults.on_fault == "skip":
                        learner = _skip_batch(learner, self._player(method))
                    player = None
            updated, metrics = program(learner._replace(environment=None), trajectory)
            return updated._replace(environment=unfinished), [metrics | {"faults": faults}]

        return advance

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
        self._group.close()
        self._group = make_group(self._environment, self._count, self._workers, usable_cores())

    def _player(self, method: Method) -> Player:
        """What plays the batches of a method."""
        if method.rows is None:
            return self._episodes()
        spec = self._environment.spec
        return HostStreams(spec, self._group, method.rows, self._seed, self._interrupted)

    def _episodes(self) -> HostEpisodes:
        return HostEpisodes(self._environment.spec, self._group, self._seed, self._interrupted)

    def _give_up_workers(self, player: Player, policy: Policy, batch: int) -> None:
        """Go on in this process alone if that leads to what the workers have; else they stay."""
        self._may_give_up = False
        self._workers = 0
        alone = LocalGroup(self._environment, self._count)
        if player.move(alone, policy, batch):
            self._group.close()
            self._group = alone
        else:
            alone.close()


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


def _skip_batch(learner: Learner, player: Player) -> Learner:
    """The learner before the next batch: that of this one is thrown away as a whole, so that which
    episodes count does not depend on which copy has failed.
    """
    unfinished = player.skipped(learner.environment)
    return learner._replace(batch=learner.batch + 1, environment=unfinished)


def _affordable(lengths: Int[ndarray, " episode"], most_steps: int | None) -> int:
    """How many more episodes fit into `most_steps`, if they are as long as those that were
    played; two before any was.
    """
    if most_steps is None:
        return sys.maxsize
    if not len(lengths):
        return FEWEST_EVALUATED
    return int((most_steps - lengths.sum()) // lengths.mean())
