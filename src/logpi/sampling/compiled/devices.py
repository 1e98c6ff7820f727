"""The copies of a compiled environment, divided among several devices of JAX."""

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from logpi.core.errors import LogpiError
from logpi.core.trajectory import Trajectory
from logpi.methods.learner import Learner

Tree = TypeVar("Tree")
_COPIES = "copies"


class Devices:
    """`count` devices: each holds the networks, and a part of the copies with what they play.

    XLA divides the program by where its arrays are, and sums gradients over the devices. Processes
    that `jax.distributed` has joined run one program on the devices of all of them.

    **Raises:** `LogpiError` where there are not so many, the copies cannot be divided among them,
    or a process of several would have nothing to do.
    """

    def __init__(self, count: int, copies: int):
        found = jax.devices()
        if count > len(found):
            kind = found[0].device_kind
            fewer = "a run that has begun goes on with fewer by --resume-if-exists --devices N"
            raise LogpiError(f"--devices {count}: JAX finds {len(found)} here ({kind}); {fewer}")
        if copies % count:
            raise LogpiError(
                f"--devices {count} cannot share {copies} copies of the environment equally"
            )
        if jax.process_count() > 1 and count < len(found):
            joined = f"{jax.process_count()} processes with {len(found)} devices are joined"
            raise LogpiError(f"--devices {count}: {joined}, give --devices {len(found)}")
        self._mesh = Mesh(found[:count], (_COPIES,))
        if jax.process_count() > 1:
            self._meet()

    def _meet(self) -> None:
        """Joins the devices of all processes, as soon as the last process is here.

        JAX joins devices at the first sum over them, and gives up where a process is 30 s late.
        Here each waits for all before that sum, and may then compile for as long as it takes.
        """
        with multihost_utils.live_devices(jax.devices()):
            here = np.zeros(len(jax.local_devices()), np.int32)
            by_copy = jax.make_array_from_process_local_data(self._by_copy, here)
            jax.jit(jnp.sum)(by_copy).block_until_ready()
            self.agree(0)

    def place(self, learner: Learner) -> Learner:
        """The learner where its program wants it."""
        placed = jax.device_put(learner._replace(environment=None), self._everywhere)
        return placed._replace(environment=jax.device_put(learner.environment, self._by_copy))

    def divide(self, trajectory: Trajectory, unfinished: PyTree) -> tuple[Trajectory, PyTree]:
        """A batch of which each device has the columns of its copies, inside of a program."""
        memory = _held(trajectory.memory, self._by_copy)
        by_column = NamedSharding(self._mesh, PartitionSpec(None, _COPIES))
        columns = _held(trajectory._replace(memory=None), by_column)
        return columns._replace(memory=memory), _held(unfinished, self._by_copy)

    def hold(self, learner: Learner) -> Learner:
        """The learner where `place` puts it, inside of a program."""
        held = _held(learner._replace(environment=None), self._everywhere)
        return held._replace(environment=_held(learner.environment, self._by_copy))

    def hand_out(self, results: Tree) -> Tree:
        """What a program gives back, where each process can read all of it."""
        if jax.process_count() > 1:
            return _held(results, self._everywhere)
        return results

    def agree(self, number: int) -> int:
        """The number that the first process has; processes measure time each by itself."""
        if jax.process_count() > 1:
            return int(multihost_utils.broadcast_one_to_all(np.int32(number)))
        return number

    @property
    def _everywhere(self) -> NamedSharding:
        return NamedSharding(self._mesh, PartitionSpec())

    @property
    def _by_copy(self) -> NamedSharding:
        return NamedSharding(self._mesh, PartitionSpec(_COPIES))


def _held(tree: Tree, sharding: NamedSharding) -> Tree:
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, sharding), tree)
