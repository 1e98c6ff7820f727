"""Streams of episodes of Gymnasium environments, cut into rollouts of one length [D4.1].

An episode that is under way when a rollout ends goes on in the next one. What a resumed run needs
to stand where it stood is kept with the learner: the number of each copy's episode and the actions
taken in it, which are taken again.
"""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from numpy import ndarray

from logpi.core.arrays import float_dtype
from logpi.core.randomness import Stream, episode_seed
from logpi.core.trajectory import Trajectory
from logpi.environments.host.group import EnvironmentFailure, Group
from logpi.environments.spec import EnvironmentSpec
from logpi.networks.policy import Policy
from logpi.sampling.host.acting import Acting
from logpi.sampling.host.observations import Observer
from logpi.sampling.host.player import Part
from logpi.sampling.host.shares import Shares, noise_of_shares
from logpi.sampling.host.unfinished import Standing, UnfinishedReplay
from logpi.sampling.seam import Interrupted
from logpi.sampling.validity import EnvironmentFault, error_at, first_invalid


class HostStreams:
    """Steps every copy for `rows` rows. A copy whose episode has ended is reset in the next one."""

    _now: Standing

    def __init__(
        self,
        spec: EnvironmentSpec,
        group: Group,
        shares: Shares,
        rows: int,
        seed: int,
        interrupted: Callable[[], bool],
    ):
        self._spec = spec
        self._group = group
        self._shares = shares
        self._rows = rows
        self._seed = seed
        self._interrupted = interrupted
        self._everyone = list(range(shares.count))
        self._observer = Observer(spec)

    def restore(self, policy: Policy, unfinished: UnfinishedReplay) -> None:
        """Bring the copies to where `unfinished` left them, by taking its actions again.

        Copies whose episodes cannot be played again start new ones.

        **Raises:** `EnvironmentFault` where an environment fails; `Interrupted`.
        """
        now = jax.tree.map(np.array, unfinished.standing)
        self._now = now
        if not self._group.repeatable:
            now.step[:] = 0
            now.paid[:] = 0.0
            now.ended[:] = False
        self._reset(self._everyone)
        for t in range(int(now.step.max())):
            if self._interrupted():
                raise Interrupted
            under_way = np.flatnonzero(t < now.step).tolist()
            self._step(policy.execute(unfinished.action[:, t]), under_way)

    def show(self, batch: int) -> ndarray:
        return self._group.observation

    def sample(self, policy: Policy, batch: int) -> Part:
        """One rollout, arrays `[rows + 1, copy]`, and where it leaves the episodes under way.

        **Raises:** `EnvironmentFault` that names environment, episode and step where the
        environment fails or gives a value that is not valid; `Interrupted`.
        """
        now = self._now
        shares = self._shares
        noise = noise_of_shares(policy.head, shares, self._seed, batch)
        acting = Acting(policy, shares.size)
        memory = now.memory
        actions: list[ndarray] = []
        rollout = self._empty_rollout()
        seen = np.asarray(rollout.observation)
        for t in range(self._rows):
            if self._interrupted():
                raise Interrupted
            observation = seen[t]
            self._see(into=observation)
            memory = acting.next_memory(observation, memory, now.step)
            action = acting.sample(observation, memory, next(noise))
            actions.append(action)
            self._step_running(rollout, t, acting.execute(action))
        actions.append(np.zeros_like(actions[-1]))
        self._see(into=seen[-1])
        rollout.step[-1] = now.step
        taken = np.stack(actions)
        rollout = rollout._replace(
            action=taken.astype(jax.dtypes.canonicalize_dtype(taken.dtype)),
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
        return Part(sampled, jax.tree.map(np.copy, self._now))

    def _empty_rollout(self) -> Trajectory:
        """A rollout without its actions."""
        row = self._group.observation
        shape = (self._rows + 1, self._shares.count)
        dtype = jax.dtypes.canonicalize_dtype(row.dtype)
        return Trajectory(
            observation=np.zeros((*shape, *row.shape[1:]), dtype),
            action=np.zeros(0),
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

    def _reset(self, copies: Sequence[int]) -> None:
        """Start the present episodes of these copies."""
        episode = self._now.episode
        first = self._shares.copies.start
        seeds = [
            episode_seed(self._seed, Stream.TRAINING, first + copy, int(episode[copy]))
            for copy in copies
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

    def _error(self, failure: EnvironmentFailure) -> EnvironmentFault:
        copy = failure.index
        episode = int(self._now.episode[copy])
        step = int(self._now.step[copy])
        number = self._shares.copies[copy]
        return error_at(self._spec, number, episode, step, failure.message)

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
            number = self._shares.copies[copy]
            raise error_at(self._spec, number, episode, int(rollout.step[row, copy]), message)
