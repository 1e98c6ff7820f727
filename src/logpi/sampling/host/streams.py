"""Streams of episodes of Gymnasium environments, cut into rollouts of one length [D4.1].

An episode that is under way when a rollout ends goes on in the next one. What a resumed run needs
to stand where it stood is kept with the learner: the number of each copy's episode and the actions
taken in it, which are taken again.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from logpi.core.arrays import float_dtype
from logpi.core.errors import LogpiError
from logpi.core.randomness import Stream, episode_seed
from logpi.core.trajectory import Trajectory
from logpi.environments.host.group import EnvironmentFailure, Group
from logpi.environments.spec import EnvironmentSpec
from logpi.networks.policy import Policy
from logpi.sampling.host.observations import Observer
from logpi.sampling.noise import host_noise
from logpi.sampling.seam import Interrupted
from logpi.sampling.validity import error_at, first_invalid


class UnfinishedReplay(NamedTuple):
    """The episodes under way, one per copy, as the actions that lead to where they stand.

    `ended` is True where the next row begins another episode.
    """

    episode: Int[ndarray, " env"]
    step: Int[ndarray, " env"]
    paid: Float[ndarray, " env"]
    ended: Bool[ndarray, " env"]
    action: ndarray
    memory: Float[ndarray, "env state"]


class HostStreams:
    """Steps every copy for `rows` rows. A copy whose episode has ended is reset in the next one."""

    def __init__(
        self,
        spec: EnvironmentSpec,
        group: Group,
        rows: int,
        seed: int,
        interrupted: Callable[[], bool],
    ):
        self._spec = spec
        self._group = group
        self._rows = rows
        self._seed = seed
        self._interrupted = interrupted
        self._count = len(group.reward)
        self._everyone = list(range(self._count))
        self._observer = Observer(spec)

    @property
    def time(self) -> int:
        return self._rows + 1

    def begin(self, policy: Policy) -> UnfinishedReplay:
        """Episode 0 of every copy, before its first action."""
        count = self._count
        noise = np.zeros((count, policy.head.size), float_dtype())
        action = jax.eval_shape(lambda p, n: p.head(n).sample(n), policy, noise)
        longest = self._spec.max_episode_steps
        return UnfinishedReplay(
            episode=np.zeros(count, np.int32),
            step=np.zeros(count, np.int32),
            paid=np.zeros(count, float_dtype()),
            ended=np.zeros(count, bool),
            action=np.zeros((count, longest, *action.shape[1:]), action.dtype),
            memory=policy.initial_memory(count),
        )

    def restore(self, policy: Policy, unfinished: UnfinishedReplay) -> None:
        """Bring the environments to where `unfinished` left them, by taking its actions again.

        Where that would not lead there, the copies start new episodes.

        **Raises:** `LogpiError` where an environment fails; `Interrupted`.
        """
        self._now = now = jax.tree.map(np.array, unfinished)
        if not self._group.repeatable:
            now.step[:] = 0
            now.paid[:] = 0.0
            now.ended[:] = False
        self._reset(range(self._count))
        for t in range(int(now.step.max())):
            if self._interrupted():
                raise Interrupted
            under_way = np.flatnonzero(t < now.step).tolist()
            self._step(policy.execute(now.action[:, t]), under_way)

    def skipped(self, unfinished: UnfinishedReplay) -> UnfinishedReplay:
        """Every copy at the beginning of an episode that it has not played."""
        nothing = np.zeros(self._count, int)
        return unfinished._replace(
            episode=np.asarray(unfinished.episode) + self._rows + 1,
            step=nothing.astype(np.int32),
            paid=nothing.astype(float_dtype()),
            ended=nothing.astype(bool),
            memory=np.zeros_like(unfinished.memory),
        )

    def move(self, group: Group, policy: Policy, batch: int) -> bool:
        """Go on in another group, if playing the episodes under way again leads to what is seen
        now.
        """
        before = self._group
        self._group = group
        try:
            self.restore(policy, self._now)
            alike = np.array_equal(group.observation, before.observation)
        except LogpiError:
            alike = False
        if not alike:
            self._group = before
        return alike

    def sample(self, policy: Policy, batch: int) -> tuple[Trajectory, UnfinishedReplay]:
        """One rollout, arrays `[rows + 1, env]`, and the episodes under way at its end.

        **Raises:** `LogpiError` that names environment, episode and step where the environment
        fails or gives a value that is not valid; `Interrupted`.
        """
        now = self._now
        rollout = self._empty_rollout()
        seen = np.asarray(rollout.observation)
        noise = host_noise(policy, self._count, self._seed, Stream.TRAINING, batch)
        acting = policy.on_host()
        memory = now.memory
        for t in range(self._rows):
            if self._interrupted():
                raise Interrupted
            observation = seen[t]
            self._see(into=observation)
            memory = acting.next_memory(observation, memory, now.step)
            action = acting(observation, memory).sample(next(noise))
            rollout.action[t] = action
            self._step_running(rollout, t, acting.execute(action))
        self._see(into=seen[-1])
        rollout.step[-1] = now.step
        self._remember_actions(rollout)
        rollout = rollout._replace(
            reward=np.where(rollout.mask, rollout.reward, 0.0),
            terminated=rollout.terminated & rollout.mask,
        )
        self._require_valid(rollout)
        self._now = now._replace(memory=memory)
        assert rollout.paid is not None
        real = float_dtype()
        sampled = rollout._replace(
            reward=rollout.reward.astype(real), paid=rollout.paid.astype(real)
        )
        return sampled, jax.tree.map(np.copy, self._now)

    def _empty_rollout(self) -> Trajectory:
        row = self._group.observation
        taken = self._now.action
        shape = (self.time, self._count)
        dtype = jax.dtypes.canonicalize_dtype(row.dtype)
        return Trajectory(
            observation=np.zeros((*shape, *row.shape[1:]), dtype),
            action=np.zeros((*shape, *taken.shape[2:]), taken.dtype),
            reward=np.zeros(shape),
            terminated=np.zeros(shape, bool),
            truncated=np.zeros(shape, bool),
            mask=np.zeros(shape, bool),
            step=np.zeros(shape, np.int32),
            memory=self._now.memory,
            paid=np.zeros(shape),
        )

    def _step_running(self, rollout: Trajectory, t: int, actions: ndarray) -> None:
        """Step the copies whose episodes are under way, and reset the others; fill row t."""
        now = self._now
        group = self._group
        running = ~now.ended
        over = np.flatnonzero(now.ended).tolist()
        rollout.mask[t] = running
        rollout.step[t] = now.step
        active = self._everyone
        if over:
            active = np.flatnonzero(running).tolist()
        self._step(actions, active)
        paid = np.where(running, now.paid + group.reward, 0.0)
        at_limit = now.step == self._spec.max_episode_steps - 1
        ended = running & (group.terminated | group.truncated | at_limit)
        rollout.reward[t] = group.reward
        rollout.terminated[t] = group.terminated
        rollout.truncated[t] = ended & ~group.terminated
        rollout.paid[t] = paid  # pyright: ignore[reportOptionalSubscript]
        now.paid[:] = paid
        now.ended[:] = ended
        now.step[:] = (now.step + 1) * running
        if over:
            now.episode[over] += 1
            self._reset(over)

    def _remember_actions(self, rollout: Trajectory) -> None:
        """The actions of the episodes under way; an episode writes over the one before it."""
        t, copy = np.nonzero(rollout.mask)  # in the order of time
        self._now.action[copy, rollout.step[t, copy]] = rollout.action[t, copy]

    def _reset(self, copies: Sequence[int]) -> None:
        """Start the present episodes of these copies."""
        episode = self._now.episode
        seeds = [
            episode_seed(self._seed, Stream.TRAINING, copy, int(episode[copy])) for copy in copies
        ]
        try:
            self._group.reset(seeds, copies)
        except EnvironmentFailure as failure:
            raise self._error(failure) from failure

    def _step(self, actions: ndarray, copies: list[int]) -> None:
        try:
            self._group.step(actions, copies)
        except EnvironmentFailure as failure:
            raise self._error(failure) from failure

    def _see(self, into: ndarray) -> None:
        """What policies see of all copies now."""
        try:
            self._observer.copy(self._group.observation, into)
        except EnvironmentFailure as failure:
            raise self._error(failure) from failure

    def _error(self, failure: EnvironmentFailure) -> LogpiError:
        copy = failure.index
        episode = int(self._now.episode[copy])
        step = int(self._now.step[copy])
        return error_at(self._spec, copy, episode, step, failure.message)

    def _require_valid(self, rollout: Trajectory) -> None:
        """The observations that were reached are looked at too: the critic values them."""
        mask = np.asarray(rollout.mask)
        seen = np.ones_like(mask)
        observation = np.asarray(rollout.observation)
        reward = np.asarray(rollout.reward)
        wrong = first_invalid(self._spec, observation, reward, seen, mask)
        if wrong is not None:
            row, copy, message = wrong
            begun_since = np.sum(~mask[row:-1, copy])  # each row without a step began another
            episode = int(self._now.episode[copy] - begun_since)
            raise error_at(self._spec, copy, episode, int(rollout.step[row, copy]), message)
