"""The update as a compiled program, which is compiled while the first batch is sampled."""

from concurrent.futures import Future, ThreadPoolExecutor

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from logpi.core.module import Module
from logpi.core.programs import compile_program
from logpi.core.threads import COMPILER
from logpi.core.trajectory import Trajectory
from logpi.methods.learner import Learner
from logpi.methods.method import Method
from logpi.methods.update import update


class MetricsRow(Module):
    """Metrics in one array, since each array that is read costs 10 µs; their names are no data."""

    names: tuple[str, ...] = eqx.field(static=True)
    values: Float[Array, " metrics"]

    def by_name(self) -> dict[str, float]:
        """The metrics as numbers."""
        return dict(zip(self.names, self.values.tolist(), strict=True))


class UpdateProgram:
    """`update` for learners of these shapes, and trajectories of as many rows as `trajectory` has.
    That of other trajectories is compiled when the first of them comes.
    """

    def __init__(self, method: Method, budget: int, learner: Learner, trajectory: PyTree):
        def measured_update(learner: Learner, trajectory: Trajectory) -> tuple[Learner, MetricsRow]:
            learner, metrics = update(method, learner, trajectory, budget)
            values = jnp.stack([value.astype(float) for value in metrics.values()])
            return learner, MetricsRow(tuple(metrics), values)

        self._update = measured_update
        self._compiling = {len(trajectory.mask): self._compile(learner, trajectory)}

    def _compile(self, learner: Learner, trajectory: PyTree) -> Future[jax.stages.Compiled]:
        thread = ThreadPoolExecutor(1, thread_name_prefix=COMPILER)
        compiling = thread.submit(compile_program, self._update, learner, trajectory)
        thread.shutdown(wait=False)
        return compiling

    def is_compiled(self, trajectory: Trajectory) -> bool:
        """Whether the update of such a trajectory starts at once."""
        rows = len(trajectory.mask)
        return rows in self._compiling and self._compiling[rows].done()

    def __call__(
        self, learner: Learner, trajectory: Trajectory
    ) -> tuple[Learner, dict[str, float]]:
        """The learner after the update, and its metrics; waits until the program is compiled."""
        rows = len(trajectory.mask)
        if rows not in self._compiling:
            self._compiling[rows] = self._compile(learner, trajectory)
        learner, metrics = self._compiling[rows].result()(learner, trajectory)
        return learner, metrics.by_name()
