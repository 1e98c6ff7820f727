"""Whole episodes of Gymnasium environments, one in each copy [D4.1]."""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from logpi.core.arrays import beside, float_dtype
from logpi.core.randomness import Stream, episode_seed
from logpi.core.trajectory import Trajectory
from logpi.environments.host.group import EnvironmentFailure, Group
from logpi.environments.spec import EnvironmentSpec
from logpi.networks.policy import Policy
from logpi.sampling.host.observations import Observer
from logpi.sampling.noise import host_noise, no_noise
from logpi.sampling.seam import Episodes, Interrupted
from logpi.sampling.validity import error_at, first_invalid


class Played(NamedTuple):
    """What was done and paid, `[max_episode_steps, env]`, and the length of each episode.

    Rewards are 0 after the end of an episode.
    """

    action: ndarray
    reward: Float[ndarray, "time env"]
    terminated: Bool[ndarray, "time env"]
    lengths: Int[ndarray, " env"]


class HostEpisodes:
    """Plays one episode in each copy of a group. A copy whose episode has ended waits."""

    def __init__(
        self,
        spec: EnvironmentSpec,
        group: Group,
        seed: int,
        interrupted: Callable[[], bool],
    ):
        self._spec = spec
        self._group = group
        self._seed = seed
        self._interrupted = interrupted
        self._count = len(group.reward)
        self._observer = Observer(spec)

    @property
    def time(self) -> int:
        return self._spec.max_episode_steps

    def begin(self, policy: Policy) -> None:
        return None

    def restore(self, policy: Policy, unfinished: None) -> None:
        pass

    def skipped(self, unfinished: None) -> None:
        return None

    def sample(self, policy: Policy, batch: int) -> tuple[Trajectory, None]:
        """One episode in each copy, arrays `[max_episode_steps, env]`.

        **Raises:** `LogpiError` that names environment, episode and step where the environment
        fails or gives a value that is not valid; `Interrupted`.
        """
        noise = host_noise(policy, self._count, self._seed, Stream.TRAINING, batch)
        played = self.play(policy, Stream.TRAINING, batch, noise, self._count)
        step = np.arange(self.time, dtype=np.int32)[:, None]
        mask = step < played.lengths
        last = step == played.lengths - 1
        trajectory = Trajectory(
            observation=self._seen(mask),
            action=played.action,
            reward=played.reward.astype(float_dtype()),
            terminated=played.terminated & mask,
            truncated=last & ~played.terminated,
            mask=mask,
            step=np.broadcast_to(step, mask.shape),
            memory=policy.initial_memory(self._count),
        )
        return trajectory, None

    def evaluate(self, policy: Policy, numbers: range, deterministic: bool) -> Episodes:
        """The episodes of these numbers, at most one a copy, from seeds that training never
        uses.
        """
        count = len(numbers)
        noise = no_noise(policy, count)
        if not deterministic:
            noise = self._noise_of_each(policy, numbers)
        played = self.play(policy, Stream.EVALUATION, numbers.start, noise, count)
        return Episodes(played.reward.sum(axis=0), played.lengths)

    def _noise_of_each(self, policy: Policy, numbers: range) -> Iterator[ndarray]:
        """Each episode of an evaluation has its own noise, however many are played at once."""
        stream = Stream.EVALUATION
        each = [host_noise(policy, 1, self._seed, stream, number) for number in numbers]
        return map(np.concatenate, zip(*each, strict=True))

    def play(
        self, policy: Policy, stream: Stream, batch: int, noise: Iterator[ndarray], started: int
    ) -> Played:
        """Episodes in the first `started` copies; `_observation` has what was seen.

        `batch` is the number of the episode in training, of the first of them in an evaluation.
        """
        shape = (self.time, started)
        reward = np.zeros(shape)
        terminated = np.zeros(shape, bool)
        lengths = np.zeros(started, int)
        active = list(range(started))
        actions: list[ndarray] = []
        acting = policy.on_host()
        memory = policy.initial_memory(started)
        group = self._group
        t = 0
        try:
            self._start(group, stream, batch)
            while active:
                if self._interrupted():
                    raise Interrupted
                observation = self._observation[t, :started]
                self._observer.copy(group.observation[:started], into=observation)
                memory = acting.next_memory(observation, memory)
                action = acting(observation, memory).sample(next(noise))
                actions.append(action)
                group.step(self._for_all(acting.execute(action)), active)
                reward[t] = group.reward[:started]
                terminated[t] = group.terminated[:started]
                t += 1
                lengths[active] = t
                if t == self.time:
                    break
                ended = group.terminated | group.truncated
                active = [copy for copy in active if not ended[copy]]
        except EnvironmentFailure as failure:
            self._require_valid(reward, lengths, t + 1, batch)
            index = failure.index
            raise error_at(self._spec, index, batch, t, failure.message) from failure
        self._require_valid(reward, lengths, t, batch)
        reward = np.where(np.arange(self.time)[:, None] < lengths, reward, 0.0)
        return Played(self._in_rows(actions), reward, terminated, lengths)

    def _for_all(self, actions: ndarray) -> ndarray:
        """A row for each copy of the group; those that play no episode take no step."""
        idle = self._count - len(actions)
        if not idle:
            return actions
        return np.concatenate([actions, np.repeat(actions[-1:], idle, axis=0)])

    def _in_rows(self, actions: list[ndarray]) -> ndarray:
        """The actions as one array of as many rows as an episode may have."""
        first = actions[0]
        dtype = jax.dtypes.canonicalize_dtype(first.dtype)
        rows = np.zeros((self.time, *first.shape), dtype)
        rows[: len(actions)] = actions
        return rows

    @cached_property
    def _observation(self) -> ndarray:
        """Where observations are written while episodes are played."""
        row = self._group.observation
        dtype = jax.dtypes.canonicalize_dtype(row.dtype)
        return np.zeros((self.time, *row.shape), dtype)

    def _seen(self, mask: Bool[ndarray, "time env"]) -> ndarray:
        """A copy of the observations that were acted on; 0 after an end, where anything may
        stand.
        """
        seen = np.zeros_like(self._observation)
        rows = int(mask.any(axis=1).sum())
        where = beside(mask[:rows], seen)
        np.copyto(seen[:rows], self._observation[:rows], where=where)
        return seen

    def _require_valid(self, reward: ndarray, lengths: ndarray, rows: int, batch: int) -> None:
        """Looks at the `rows` that were played alone: images of Atari's 27,000 steps would fill the
        memory.
        """
        mask = np.arange(rows)[:, None] < lengths
        observation = self._observation[:rows, : len(lengths)]
        wrong = first_invalid(self._spec, observation, reward[:rows], mask, mask)
        if wrong is not None:
            raise error_at(self._spec, wrong.copy, batch, wrong.row, wrong.message)

    def _start(self, group: Group, stream: Stream, batch: int) -> None:
        """Every copy at the beginning of its episode."""
        copies = range(self._count)
        if stream is Stream.TRAINING:
            seeds = [episode_seed(self._seed, stream, copy, batch) for copy in copies]
        else:
            seeds = [episode_seed(self._seed, stream, batch + copy, 0) for copy in copies]
        group.reset(seeds, copies)

    def move(self, group: Group, policy: Policy, batch: int) -> bool:
        """Go on in another group, if the episodes of the batch start alike in both."""
        try:
            for each in (group, self._group):
                self._start(each, Stream.TRAINING, batch)
        except EnvironmentFailure:
            return False
        alike = np.array_equal(group.observation, self._group.observation)
        if alike:
            self._group = group
        return alike
