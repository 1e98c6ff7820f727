"""Whole episodes of compiled environments [D4.1]."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from logpi.core.arrays import beside
from logpi.core.trajectory import Trajectory
from logpi.environments.spec import CompiledEnvironment
from logpi.networks.policy import Policy
from logpi.sampling.noise import compiled_noise, two_keys_a_row


class _Now(NamedTuple):
    """Where the copies stand after t steps."""

    state: PyTree
    observation: Array
    running: Bool[Array, " env"]
    memory: Array


class _Rows(NamedTuple):
    """What the rows of a trajectory hold, one row or all of them."""

    observation: Array
    action: Array
    reward: Float[Array, "time env"]
    terminated: Bool[Array, "time env"]
    truncated: Bool[Array, "time env"]
    mask: Bool[Array, "time env"]
    step: Int[Array, "time env"]


class _Loop(NamedTuple):
    """A loop over time: the next step, where the copies stand, and the rows so far."""

    t: Int[Array, ""]
    now: _Now
    rows: _Rows


def sample_episodes(
    environment: CompiledEnvironment,
    policy: Policy,
    key: PRNGKeyArray,
    count: int,
    drawn: Bool[Array, ""] | None = None,
) -> Trajectory:
    """One episode in each of `count` copies, `[max_episode_steps, env]`.

    Actions are drawn from the policy; where `drawn` is False the most probable one is taken.

    The loop ends when the longest episode has ended. Copies that have ended are stepped on with the
    others; nothing of that is kept, since it may overflow.
    """
    horizon = environment.spec.max_episode_steps
    noise_keys, step_keys = two_keys_a_row(key, horizon)
    memory = jnp.asarray(policy.initial_memory(count))

    def noise_at(t: Array) -> Array:
        noise = compiled_noise(policy, noise_keys[t], (count,))
        if drawn is None:
            return noise
        return jnp.where(drawn, noise, 0.0)

    def step(t: Array, now: _Now) -> tuple[_Now, _Rows]:
        state, observation, running, remembered = now
        remembered = policy.next_memory(observation, remembered)
        action = policy(observation, remembered).sample(noise_at(t))
        keys = jax.random.split(step_keys[t], count)
        state, reached, reward, terminated, truncated = jax.vmap(environment.step)(
            keys, state, policy.execute(action)
        )
        row = _Rows(
            observation=jnp.where(beside(running, observation), observation, 0)[None],
            action=action[None],
            reward=jnp.where(running, reward, 0.0)[None],
            terminated=(terminated & running)[None],
            truncated=(truncated & running)[None],
            mask=running[None],
            step=jnp.full((1, count), t),
        )
        still_running = running & ~terminated & ~truncated
        return _Now(state, reached, still_running, remembered), row

    def body(loop: _Loop) -> _Loop:
        now, row = step(loop.t, loop.now)

        def write(rows: Array, row: Array) -> Array:
            return jax.lax.dynamic_update_slice_in_dim(rows, row, loop.t, 0)

        return _Loop(loop.t + 1, now, jax.tree.map(write, loop.rows, row))

    def unfinished(loop: _Loop) -> Bool[Array, ""]:
        return (loop.t < horizon) & jnp.any(loop.now.running)

    reset_keys = jax.random.split(jax.random.fold_in(key, horizon), count)
    state, observation = jax.vmap(environment.reset)(reset_keys)
    now = _Now(state, observation, jnp.ones(count, bool), memory)
    row = jax.eval_shape(step, jnp.int32(0), now)[1]
    nothing = jax.tree.map(lambda x: jnp.zeros((horizon, *x.shape[1:]), x.dtype), row)
    rows = jax.lax.while_loop(unfinished, body, _Loop(jnp.int32(0), now, nothing)).rows
    return Trajectory(**rows._asdict(), memory=memory)
