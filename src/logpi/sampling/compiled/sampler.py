"""The sampler of compiled environments: sampling and update inside one program, many updates a
call.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree, UInt32

from logpi.core.randomness import Stream, batch_key
from logpi.core.trajectory import Trajectory
from logpi.environments.spec import CompiledEnvironment
from logpi.methods.learner import Learner
from logpi.methods.method import Method
from logpi.methods.update import update
from logpi.networks.policy import Policy
from logpi.sampling.compiled.devices import Devices
from logpi.sampling.compiled.episodes import sample_episodes
from logpi.sampling.compiled.streams import begin_streams, sample_rollout
from logpi.sampling.seam import Advance, Episodes, Interrupted
from logpi.sampling.validity import NOTHING_WRONG, first_not_finite, require_finite

# Updates whose metrics one call of the compiled program can hold.
UPDATES_PER_CALL = 64
# Episodes that are evaluated at once, always as many: how many there are decides which they are.
EVALUATED_AT_ONCE = 10
# The batch before the first one, whose key starts the streams.
BEFORE = -1


class _Loop(NamedTuple):
    """A loop of updates: the learner, how many were made, their steps, their metrics, and where the
    last batch had a value that is not finite.
    """

    learner: Learner
    made: Int[Array, ""]
    steps: Int[Array, ""]
    table: dict[str, Array]
    fault: Int[Array, "3"]


class CompiledSampler:
    """Samples environments whose `reset` and `step` are JAX functions."""

    def __init__(
        self,
        environment: CompiledEnvironment,
        count: int,
        seed: int,
        interrupted: Callable[[], bool],
        devices: int = 1,
    ):
        self._environment = environment
        self._count = count
        self._seed = seed
        self._interrupted = interrupted
        self._devices = Devices(devices, count)

    def close(self) -> None:
        pass

    def evaluate(
        self,
        policy: Policy,
        episodes: int,
        deterministic: bool,
        most_steps: int | None = None,
        beside: bool = False,
    ) -> Episodes:
        batches = range(-(-episodes // EVALUATED_AT_ONCE))
        drawn = np.bool_(not deterministic)
        seed = np.uint32(self._seed)
        played = [
            _evaluate_batch(self._environment, policy, seed, np.int32(n), drawn) for n in batches
        ]
        returns = np.concatenate([np.asarray(return_) for return_, _ in played])
        lengths = np.concatenate([np.asarray(length) for _, length in played])
        return Episodes(returns[:episodes].astype(float), lengths[:episodes])

    def begin(self, method: Method, learner: Learner) -> Learner:
        if method.rows is None:
            return learner
        key = batch_key(jnp.uint32(self._seed), Stream.TRAINING, jnp.int32(BEFORE))
        unfinished = begin_streams(self._environment, learner.policy, self._count, key)
        return learner._replace(environment=unfinished)

    def advance(self, method: Method, learner: Learner, budget: int) -> Advance:
        """One program that samples and updates until a number of steps is made."""
        program = partial(self.many_updates, method, budget)
        placed = self._devices.place(learner)
        compiled = self._environment.compiler(program, placed, np.uint32(0), np.int32(0))
        unit = "episode" if method.rows is None else "rollout"

        def advance(learner: Learner, steps: int) -> tuple[Learner, list[dict[str, float]]]:
            if self._devices.agree(self._interrupted()):
                raise Interrupted
            limit = np.int32(self._devices.agree(min(steps, np.iinfo(np.int32).max)))
            first = int(learner.batch)
            placed = self._devices.place(learner)
            learner, count, table, fault = compiled(placed, np.uint32(self._seed), limit)
            made = int(count)
            last = f"{unit} {first + made - 1}"
            require_finite(self._environment.spec, np.asarray(fault), last)
            columns = {name: np.asarray(column) for name, column in table.items()}
            return learner, [_row(columns, number) for number in range(made)]

        return advance

    def _sample(
        self, method: Method, learner: Learner, seed: UInt32[Array, ""]
    ) -> tuple[Trajectory, PyTree]:
        """A batch, and the episodes that it leaves unfinished."""
        key = batch_key(seed, Stream.TRAINING, learner.batch)
        environment = self._environment
        if method.rows is None:
            return sample_episodes(environment, learner.policy, key, self._count), None
        under_way = learner.environment
        return sample_rollout(environment, learner.policy, under_way, method.rows, key)

    def many_updates(
        self,
        method: Method,
        budget: int,
        learner: Learner,
        seed: UInt32[Array, ""],
        limit: Int[Array, ""],
    ) -> tuple[Learner, Array, dict[str, Array], Array]:
        """Updates until `limit` steps are made, the table of metrics is full, or a value is not
        finite.
        """

        def one(learner: Learner) -> tuple[Learner, dict[str, Array], Array]:
            batch = self._sample(method, learner, seed)
            trajectory, unfinished = self._devices.divide(*batch)
            updated, metrics = update(method, learner, trajectory, budget)
            fault = first_not_finite(trajectory)
            updated = self._devices.hold(updated._replace(environment=unfinished))
            return updated, metrics, fault

        def body(loop: _Loop) -> _Loop:
            learner, metrics, fault = one(loop.learner)

            def write(column: Array, new: Array) -> Array:
                return column.at[loop.made].set(new)

            table = jax.tree.map(write, loop.table, metrics)
            return _Loop(learner, loop.made + 1, loop.steps + metrics["steps"], table, fault)

        def unfinished(loop: _Loop) -> Bool[Array, ""]:
            room = loop.made < UPDATES_PER_CALL
            return room & (loop.steps < limit) & (loop.fault[0] < 0)

        metrics = jax.eval_shape(one, learner)[1]
        table = jax.tree.map(lambda x: jnp.zeros((UPDATES_PER_CALL, *x.shape), x.dtype), metrics)
        nothing = jnp.array(NOTHING_WRONG, jnp.int32)
        start = _Loop(learner, jnp.int32(0), jnp.int32(0), table, nothing)
        done = jax.lax.while_loop(unfinished, body, start)
        return self._devices.hand_out((done.learner, done.made, done.table, done.fault))


@partial(jax.jit, static_argnames="environment")
def _evaluate_batch(
    environment: CompiledEnvironment,
    policy: Policy,
    seed: UInt32[Array, ""],
    batch: Int[Array, ""],
    drawn: Bool[Array, ""],
) -> tuple[Float[Array, " episode"], Int[Array, " episode"]]:
    """Returns and lengths of some episodes; runs of one environment share the compiled program."""
    played = evaluated_episodes(environment, policy, seed, batch, drawn)
    return jnp.sum(played.reward, axis=0), jnp.sum(played.mask, axis=0)


def evaluated_episodes(
    environment: CompiledEnvironment,
    policy: Policy,
    seed: UInt32[Array, ""],
    batch: Int[Array, ""],
    drawn: Bool[Array, ""],
) -> Trajectory:
    """`EVALUATED_AT_ONCE` episodes, from keys that training never uses."""
    key = batch_key(seed, Stream.EVALUATION, batch)
    return sample_episodes(environment, policy, key, EVALUATED_AT_ONCE, drawn)


def _row(columns: dict[str, np.ndarray], number: int) -> dict[str, float]:
    """The metrics of one update."""
    return {name: float(column[number]) for name, column in columns.items()}
