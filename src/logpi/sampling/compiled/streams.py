"""Streams of episodes of compiled environments, cut into rollouts of one length [D4.1]."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from logpi.core.arrays import beside
from logpi.core.trajectory import Trajectory
from logpi.environments.spec import CompiledEnvironment
from logpi.networks.policy import Policy
from logpi.sampling.noise import compiled_noise, two_keys_a_row


class UnfinishedState(NamedTuple):
    """The episodes under way, one per copy, as the states in which they stand.

    `ended` is True where the next row begins another episode.
    """

    state: PyTree
    observation: Array
    ended: Bool[Array, " env"]
    step: Int[Array, " env"]
    paid: Float[Array, " env"]
    memory: Float[Array, "env state"]


class _Row(NamedTuple):
    """What a row of a rollout holds."""

    observation: Array
    action: Array
    reward: Float[Array, " env"]
    terminated: Bool[Array, " env"]
    truncated: Bool[Array, " env"]
    mask: Bool[Array, " env"]
    step: Int[Array, " env"]
    paid: Float[Array, " env"]


def begin_streams(
    environment: CompiledEnvironment, policy: Policy, count: int, key: PRNGKeyArray
) -> UnfinishedState:
    """The first episode of every copy, before its first action."""
    reset = jax.jit(jax.vmap(environment.reset))
    state, observation = reset(jax.random.split(key, count))
    return UnfinishedState(
        state=state,
        observation=observation,
        ended=jnp.zeros(count, bool),
        step=jnp.zeros(count, jnp.int32),
        paid=jnp.zeros(count),
        memory=jnp.asarray(policy.initial_memory(count)),
    )


def sample_rollout(
    environment: CompiledEnvironment,
    policy: Policy,
    unfinished: UnfinishedState,
    rows: int,
    key: PRNGKeyArray,
) -> tuple[Trajectory, UnfinishedState]:
    """`rows` steps of every stream, arrays `[rows + 1, env]`; after an end the next row resets."""
    count = len(unfinished.ended)
    noise = compiled_noise(policy, jax.random.fold_in(key, rows), (rows, count))
    step_keys, reset_keys = two_keys_a_row(key, rows)

    def step(now: UnfinishedState, at: tuple[Array, Array, Array]) -> tuple[UnfinishedState, _Row]:
        noise, step_key, reset_key = at
        running = ~now.ended
        memory = policy.next_memory(now.observation, now.memory, now.step)
        action = policy(now.observation, memory).sample(noise)
        state, observation, reward, terminated, truncated = jax.vmap(environment.step)(
            jax.random.split(step_key, count), now.state, policy.execute(action)
        )

        def with_resets() -> tuple[PyTree, Array]:
            fresh = jax.vmap(environment.reset)(jax.random.split(reset_key, count))

            def choose(new: Array, old: Array) -> Array:
                return jnp.where(beside(now.ended, new), new, old)

            return jax.tree.map(choose, fresh, (state, observation))

        def without() -> tuple[PyTree, Array]:
            return state, observation

        state, observation = jax.lax.cond(jnp.any(now.ended), with_resets, without)
        reward = jnp.where(running, reward, 0.0)
        row = _Row(
            observation=now.observation,
            action=action,
            reward=reward,
            terminated=terminated & running,
            truncated=truncated & running,
            mask=running,
            step=now.step,
            paid=jnp.where(running, now.paid + reward, 0.0),
        )
        after = UnfinishedState(
            state=state,
            observation=observation,
            ended=row.terminated | row.truncated,
            step=jnp.where(running, now.step + 1, 0),
            paid=row.paid,
            memory=memory,
        )
        return after, row

    after, body = jax.lax.scan(step, unfinished, (noise, step_keys, reset_keys))
    nothing = jax.tree.map(lambda x: jnp.zeros_like(x[0]), body)
    last = nothing._replace(observation=after.observation, step=after.step)
    columns = jax.tree.map(lambda x, end: jnp.concatenate([x, end[None]]), body, last)
    return Trajectory(**columns._asdict(), memory=unfinished.memory), after
