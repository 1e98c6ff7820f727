"""Episodes of compiled environments: sampling and update inside one program."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray, UInt32
from numpy import ndarray

from logpi.algorithm import Algorithm, Reinforce
from logpi.envs.base import CompiledEnvironment
from logpi.errors import LogpiError
from logpi.head import draw_noise
from logpi.learner import Learner, with_environment
from logpi.policy import Policy
from logpi.randomness import Stream, batch_key
from logpi.rollout import Advance, Episodes, Interrupted, compile_program
from logpi.trajectory import Trajectory, beside
from logpi.update import update

# Updates whose metrics one call of the compiled program can hold.
UPDATES_PER_CALL = 64
# Episodes that are evaluated at once, always as many: how many there are decides which they are.
EVALUATED_AT_ONCE = 100


class Unfinished(NamedTuple):
    """The episodes under way, one per copy; `ended` where the next row begins another."""

    state: Any
    observation: Array
    ended: Bool[Array, " env"]
    step: Int[Array, " env"]
    paid: Float[Array, " env"]
    remembered: Float[Array, "env state"] | None


class CompiledSampler:
    """Sampling and update inside one compiled program, many updates a call."""

    def __init__(self, environment: CompiledEnvironment, count: int, seed: int, interrupted: Callable[[], bool]):
        self._environment, self._count, self._seed, self._interrupted = environment, count, seed, interrupted

    def close(self) -> None:
        pass

    def sample(
        self, policy: Policy, key: PRNGKeyArray, deterministic: bool = False, count: int | None = None
    ) -> Trajectory:
        """One episode in each of `count` copies, by default as many as in training, `[max_episode_steps, env]`.

        Ends when the longest episode has ended.
        Copies that have ended are stepped on with the others; nothing of that is kept, since it may overflow.
        """
        environment, count = self._environment, count or self._count
        horizon = environment.spec.max_episode_steps
        state, observation = jax.vmap(environment.reset)(jax.random.split(jax.random.fold_in(key, horizon), count))
        noise_keys, step_keys = _keys(key, horizon)

        def step(t, state, observation, running, remembered):
            remembered = policy.remember(observation, remembered)
            noise = jnp.zeros((count, policy.head.size)) if deterministic else _noise(policy, noise_keys[t], (count,))
            action = policy(observation, remembered).sample(noise)
            state, later, reward, terminated, truncated = jax.vmap(environment.step)(
                jax.random.split(step_keys[t], count), state, policy.execute(action)
            )
            row = Trajectory(
                observation=jnp.where(beside(running, observation), observation, 0)[None],
                action=action[None],
                reward=jnp.where(running, reward, 0.0)[None],
                terminated=(terminated & running)[None],
                truncated=(truncated & running)[None],
                mask=running[None],
                step=jnp.full((1, count), t),
            )
            return state, later, running & ~terminated & ~truncated, remembered, row

        def body(carry):
            t, rows, *now = carry
            *now, row = step(t, *now)
            rows = jax.tree.map(lambda x, new: jax.lax.dynamic_update_slice_in_dim(x, new, t, 0), rows, row)
            return t + 1, rows, *now

        now = (state, observation, jnp.ones(count, bool), jax.tree.map(jnp.asarray, policy.blank(count)))
        row = jax.eval_shape(step, jnp.int32(0), *now)[-1]
        rows = jax.tree.map(lambda x: jnp.zeros((horizon, *x.shape[1:]), x.dtype), row)
        running = lambda carry: (carry[0] < horizon) & jnp.any(carry[4])
        return jax.lax.while_loop(running, body, (jnp.int32(0), rows, *now))[1]

    def begin(self, config: Algorithm, learner: Learner) -> Learner:
        if isinstance(config, Reinforce):
            return learner
        key = batch_key(jnp.uint32(self._seed), Stream.TRAINING, jnp.int32(-1))
        state, observation = jax.jit(jax.vmap(self._environment.reset))(jax.random.split(key, self._count))
        count = self._count
        paid, flag, step = jnp.zeros(count), jnp.zeros(count, bool), jnp.zeros(count, jnp.int32)
        remembered = jax.tree.map(jnp.asarray, learner.policy.blank(count))
        return with_environment(learner, Unfinished(state, observation, flag, step, paid, remembered))

    def rollout(
        self, policy: Policy, unfinished: Unfinished, rows: int, key: PRNGKeyArray
    ) -> tuple[Trajectory, Unfinished]:
        """`rows` steps of every stream, arrays `[rows + 1, env]`; where an episode has ended, the row after resets."""
        environment, count = self._environment, self._count
        noise = _noise(policy, jax.random.fold_in(key, rows), (rows, count))
        step_keys, reset_keys = _keys(key, rows)

        def step(now: Unfinished, at: tuple[Array, Array, Array]) -> tuple[Unfinished, tuple[Array, ...]]:
            noise, step_key, reset_key = at
            running = ~now.ended
            remembered = policy.remember(now.observation, now.remembered, now.step)
            action = policy(now.observation, remembered).sample(noise)
            state, observation, reward, terminated, truncated = jax.vmap(environment.step)(
                jax.random.split(step_key, count), now.state, policy.execute(action)
            )

            def with_resets() -> tuple[Any, Array]:
                fresh = jax.vmap(environment.reset)(jax.random.split(reset_key, count))
                choose = lambda new, old: jnp.where(beside(now.ended, new), new, old)
                return jax.tree.map(choose, fresh, (state, observation))

            state, observation = jax.lax.cond(jnp.any(now.ended), with_resets, lambda: (state, observation))
            reward, terminated, truncated = jnp.where(running, reward, 0.0), terminated & running, truncated & running
            paid = jnp.where(running, now.paid + reward, 0.0)
            row = (now.observation, action, reward, terminated, truncated, running, now.step, paid)
            steps = jnp.where(running, now.step + 1, 0)
            return Unfinished(state, observation, terminated | truncated, steps, paid, remembered), row

        after, body = jax.lax.scan(step, unfinished, (noise, step_keys, reset_keys))
        nothing = [jnp.zeros_like(x[0]) for x in body]
        last = (after.observation, *nothing[1:-2], after.step, nothing[-1])
        columns = [jnp.concatenate([x, end[None]]) for x, end in zip(body, last, strict=True)]
        return Trajectory(*columns)._replace(remembered=unfinished.remembered), after

    def evaluate(self, policy: Policy, episodes: int, deterministic: bool) -> Episodes:
        @jax.jit
        def run(policy: Policy, batch: Array) -> tuple[Array, Array]:
            key = batch_key(jnp.uint32(self._seed), Stream.EVALUATION, batch)
            trajectory = self.sample(policy, key, deterministic, EVALUATED_AT_ONCE)
            return jnp.sum(trajectory.reward, axis=0), jnp.sum(trajectory.mask, axis=0)

        batches = [run(policy, np.int32(batch)) for batch in range(-(-episodes // EVALUATED_AT_ONCE))]
        returns, lengths = (np.concatenate([np.asarray(batch[part]) for batch in batches]) for part in (0, 1))
        return Episodes(returns[:episodes].astype(float), lengths[:episodes])

    def advance(self, config: Algorithm, learner: Learner, budget: int) -> Advance:
        """One program that samples and updates until a number of steps is made."""
        program = partial(self._many_updates, config, budget)
        compiled = compile_program(program, learner, np.uint32(0), np.int32(0))

        def advance(learner: Learner, steps: int) -> tuple[Learner, list[dict[str, float]]]:
            if self._interrupted():
                raise Interrupted
            limit = np.int32(min(steps, np.iinfo(np.int32).max))
            first = int(learner.batch)
            learner, updates, table, fault = compiled(learner, np.uint32(self._seed), limit)
            unit = "episode" if isinstance(config, Reinforce) else "rollout"
            self._require_finite(np.asarray(fault), f"{unit} {first + int(updates) - 1}")
            rows = {name: np.asarray(column) for name, column in table.items()}
            return learner, [{name: float(rows[name][i]) for name in rows} for i in range(int(updates))]

        return advance

    def _many_updates(
        self, config: Algorithm, budget: int, learner: Learner, seed: UInt32[Array, ""], limit: Int[Array, ""]
    ):
        """Updates until `limit` steps are made, the table of metrics is full, or a value is not finite."""

        def one(learner: Learner):
            key = batch_key(seed, Stream.TRAINING, learner.batch)
            if isinstance(config, Reinforce):
                trajectory, unfinished = self.sample(learner.policy, key), None
            else:
                trajectory, unfinished = self.rollout(learner.policy, learner.environment, config.rollout_steps, key)
            learner, metrics = update(config, learner, trajectory, budget)
            return with_environment(learner, unfinished), metrics, _first_fault(trajectory)

        def body(carry):
            learner, count, steps, table, _ = carry
            learner, metrics, fault = one(learner)
            table = jax.tree.map(lambda column, new: column.at[count].set(new), table, metrics)
            return learner, count + 1, steps + metrics["steps"], table, fault

        def unfinished(carry):
            _, count, steps, _, fault = carry
            return (count < UPDATES_PER_CALL) & (steps < limit) & (fault[0] < 0)

        metrics = jax.eval_shape(one, learner)[1]
        table = jax.tree.map(lambda x: jnp.zeros((UPDATES_PER_CALL, *x.shape), x.dtype), metrics)
        start = (learner, jnp.int32(0), jnp.int32(0), table, jnp.full(3, -1))
        learner, count, _, table, fault = jax.lax.while_loop(unfinished, body, start)
        return learner, count, table, fault

    def _require_finite(self, fault: Int[ndarray, "3"], when: str) -> None:
        field, step, index = map(int, fault)
        if field >= 0:
            name = ("observation", "reward")[field]
            where = f"environment {index}, {when}, step {step}"
            raise LogpiError(f"{self._environment.spec.name}: {where}: {name} is not finite")


def _keys(key: PRNGKeyArray, rows: int) -> Key[Array, "2 rows"]:
    """Two keys for each row. Drawn at once: a row that draws its own pays a loop of small kernels for every key."""
    return jax.vmap(lambda t: jax.random.split(jax.random.fold_in(key, t)), out_axes=1)(jnp.arange(rows))


def _noise(policy: Policy, key: PRNGKeyArray, leading: tuple[int, ...]) -> Array:
    """Noise of the policy's laws, `[*leading, size]`, each part from a key of its own."""
    keys = itertools.chain([key], (jax.random.fold_in(key, i) for i in itertools.count()))
    return jnp.asarray(draw_noise(policy.head, leading, lambda law, shape: getattr(jax.random, law)(next(keys), shape)))


def _first_fault(trajectory: Trajectory) -> Int[Array, "3"]:
    """(0 for observation or 1 for reward, step in its episode, environment) of the first value that is not finite.

    -1s for none. The observations that a stream has reached are looked at too: the critic values them.
    """
    time, env = trajectory.mask.shape
    finite = [jnp.isfinite(x).reshape(time, env, -1).all(-1) for x in (trajectory.observation, trajectory.reward)]
    wrong = ~jnp.stack(finite, axis=-1).ravel()
    first = jnp.argmax(wrong)
    t, index = first // 2 // env, first // 2 % env
    place = jnp.stack([first % 2, jnp.asarray(trajectory.step)[t, index], index])
    return jnp.where(wrong[first], place, -1).astype(jnp.int32)
