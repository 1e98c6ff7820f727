"""Streams of episodes of Gymnasium environments, cut into rollouts of one length [D4.1].

An episode that is under way when a rollout ends goes on in the next one. What a resumed run needs to stand where it
stood is kept with the learner: the number of each copy's episode and the actions taken in it, which are taken again.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import gymnasium as gym
import jax
import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from logpi.envs.base import EnvironmentSpec
from logpi.envs.host import EnvironmentFailure, Group
from logpi.errors import LogpiError
from logpi.head import draw_noise
from logpi.policy import Policy
from logpi.randomness import Stream, episode_seed, numpy_generator
from logpi.rollout import Interrupted
from logpi.trajectory import Trajectory, float_dtype

# Time steps for which noise is drawn at once.
NOISE_ROWS = 16


class Unfinished(NamedTuple):
    """The episodes under way, one per copy; `ended` where the next row begins another."""

    episode: Int[ndarray, " env"]
    step: Int[ndarray, " env"]
    paid: Float[ndarray, " env"]
    ended: Bool[ndarray, " env"]
    action: ndarray
    remembered: Float[ndarray, "env state"] | None


def first_episodes(spec: EnvironmentSpec, policy: Policy, count: int) -> Unfinished:
    """Episode 0 of every copy, before its first action."""
    noise = np.zeros((count, policy.head.size), float_dtype())
    action = jax.eval_shape(lambda p, n: p.head(n).sample(n), policy, noise)
    log = np.zeros((count, spec.max_episode_steps, *action.shape[1:]), action.dtype)
    zeros = np.zeros(count, np.int32)
    paid, ended = np.zeros(count, float_dtype()), np.zeros(count, bool)
    return Unfinished(zeros, zeros, paid, ended, log, policy.blank(count))


class HostStreams:
    """Steps every copy for a fixed number of rows; a copy whose episode has ended is reset in the row after."""

    def __init__(self, spec: EnvironmentSpec, group: Group, rows: int, seed: int, interrupted: Callable[[], bool]):
        self._spec, self._group, self._rows = spec, group, rows
        self._seed, self._interrupted = seed, interrupted

    def restore(self, policy: Policy, unfinished: Unfinished) -> None:
        """Bring the environments to where `unfinished` left them, by taking its actions again.

        Where that would not lead there, the copies start new episodes.

        **Raises:** `LogpiError` where an environment fails.
        """
        self._now = now = jax.tree.map(np.array, unfinished)
        if not self._group.repeatable:
            now.step[:], now.paid[:], now.ended[:] = 0, 0.0, False
        self._reset(range(len(now.step)))
        for t in range(int(now.step.max())):
            if self._interrupted():
                raise Interrupted
            self._step(policy.head.execute(now.action[:, t]), np.flatnonzero(t < now.step).tolist())

    def move(self, group: Group, policy: Policy) -> bool:
        """Go on in another group of the same copies, where the episodes under way are played again.

        Whether that leads to what is seen now; else everything stays where it is.
        """
        before, self._group = self._group, group
        try:
            self.restore(policy, self._now)
            same = np.array_equal(group.observation, before.observation)
        except LogpiError:
            same = False
        if not same:
            self._group = before
        return same

    def sample(self, policy: Policy, batch: int) -> tuple[Trajectory, Unfinished]:
        """One rollout, arrays `[rows + 1, env]`, and the episodes under way at its end.

        **Raises:** `LogpiError` that names environment, episode and step where the environment fails or gives a value
        that is not finite; `Interrupted`.
        """
        group, now, count = self._group, self._now, len(self._now.step)
        shape, last = (self._rows + 1, count), self._spec.max_episode_steps - 1
        dtype = jax.dtypes.canonicalize_dtype(group.observation.dtype)
        observation = np.zeros((*shape, *group.observation.shape[1:]), dtype)
        action = np.zeros((*shape, *now.action.shape[2:]), now.action.dtype)
        reward, paid, step = np.zeros(shape), np.zeros(shape), np.zeros(shape, np.int32)
        terminated, ended, mask = (np.zeros(shape, bool) for _ in range(3))
        noise = standard_noise(policy, count, self._seed, Stream.TRAINING, batch)
        policy, remembered, everyone = policy.on_host(), now.remembered, list(range(count))
        for t in range(self._rows):
            if self._interrupted():
                raise Interrupted
            observation[t] = group.observation
            remembered = policy.remember(observation[t], remembered, now.step)
            action[t] = policy(observation[t], remembered).sample(next(noise))
            mask[t], step[t] = ~now.ended, now.step
            over = np.flatnonzero(now.ended).tolist()
            self._step(policy.execute(action[t]), np.flatnonzero(mask[t]).tolist() if over else everyone)
            reward[t], terminated[t] = group.reward, group.terminated
            now.paid[:] = paid[t] = np.where(mask[t], now.paid + reward[t], 0.0)
            now.ended[:] = ended[t] = mask[t] & (group.terminated | group.truncated | (now.step == last))
            now.step[:] = (now.step + 1) * mask[t]
            if over:
                now.episode[over] += 1
                self._reset(over)
        observation[-1], step[-1] = group.observation, now.step
        t, i = np.nonzero(mask)
        now.action[i, step[t, i]] = action[t, i]  # in the order of time: an episode writes over the one before it
        reward, terminated = np.where(mask, reward, 0.0), terminated & mask
        self._require_valid(observation, reward, mask, step)
        real = float_dtype()
        flags = (terminated, ended & ~terminated, mask)
        rollout = Trajectory(observation, action, reward.astype(real), *flags, step, paid.astype(real), now.remembered)
        self._now = now._replace(remembered=remembered)
        return rollout, jax.tree.map(np.copy, self._now)

    def _reset(self, copies: Any) -> None:
        if not len(copies):
            return
        try:
            seeds = [episode_seed(self._seed, Stream.TRAINING, i, int(self._now.episode[i])) for i in copies]
            self._group.reset(seeds, copies)
        except EnvironmentFailure as failure:
            raise self._fault(failure) from failure

    def _step(self, actions: Any, copies: list[int]) -> None:
        try:
            self._group.step(actions, copies)
        except EnvironmentFailure as failure:
            raise self._fault(failure) from failure

    def _fault(self, failure: EnvironmentFailure) -> LogpiError:
        i = failure.index
        return fault(self._spec, i, int(self._now.episode[i]), int(self._now.step[i]), failure.message)

    def _require_valid(self, observation: ndarray, reward: ndarray, mask: ndarray, step: ndarray) -> None:
        """The observations that were reached are looked at too: the critic values them."""
        wrong = first_invalid(self._spec, observation, reward, np.ones_like(mask), mask)
        if wrong is not None:
            t, i, message = wrong
            episode = int(self._now.episode[i] - np.sum(~mask[t:-1, i]))  # each row without a step began another
            raise fault(self._spec, i, episode, int(step[t, i]), message)


def standard_noise(
    policy: Policy, count: int, seed: int, stream: Stream, batch: int, deterministic: bool = False
) -> Iterator[ndarray]:
    """Noise of the policy's laws, a row `[env, size]` for each time step; zeros for the most probable action."""
    dtype = float_dtype()
    if deterministic:
        yield from itertools.repeat(np.zeros((count, policy.head.size), dtype))
    random = numpy_generator(seed, stream, batch)
    draw = lambda law, shape: getattr(random, law)(size=shape).astype(dtype)
    while True:
        yield from draw_noise(policy.head, (NOISE_ROWS, count), draw)


def first_invalid(
    spec: EnvironmentSpec, observation: ndarray, reward: ndarray, seen: ndarray, acted: ndarray
) -> tuple[int, int, str] | None:
    """(time, environment, message) of the first value that is not finite or lies outside its Discrete space.

    In the rows that were `seen`; where one `acted`, an action must also be allowed.
    """
    checks: list[tuple[str, Any, Any]] = [
        ("observation", observation, np.isfinite(observation)),
        ("reward", reward, np.isfinite(reward)),
    ]
    space = spec.observation_space
    if isinstance(space, gym.spaces.Discrete):
        inside = (observation >= space.start) & (observation < space.start + space.n)
        checks.append(("observation", observation, inside))
    if spec.masked:
        actions = observation[..., : spec.action_space.n] > 0  # type: ignore[attr-defined]
        checks.append(("action_mask", observation, actions.any(-1, keepdims=True)))
    for field, values, valid in checks:
        wrong = ~valid.reshape(*valid.shape[:2], -1).all(-1) & (acted if field == "action_mask" else seen)
        if wrong.any():
            t, i = map(int, np.argwhere(wrong)[0])
            if field == "action_mask":
                return t, i, "action_mask allows no action"
            what = "is not finite" if np.issubdtype(values.dtype, np.floating) else f"lies outside {space}"
            return t, i, f"{field} {what}: {np.take(values[t], i, axis=0)}"
    return None


def fault(spec: EnvironmentSpec, index: int, episode: int, t: int, message: str) -> LogpiError:
    """The error that says where."""
    return LogpiError(f"{spec.name}: environment {index}, episode {episode}, step {t}: {message}")
