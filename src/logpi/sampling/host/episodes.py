"""Whole episodes of Gymnasium environments, one in each copy [D4.1]."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from logpi.core.arrays import float_dtype
from logpi.core.randomness import Stream, episode_seed, numpy_generator
from logpi.core.trajectory import Trajectory
from logpi.environments.host.group import EnvironmentFailure, Group
from logpi.environments.spec import EnvironmentSpec
from logpi.networks.policy import Policy
from logpi.sampling.host.acting import Acting
from logpi.sampling.host.observations import Observer
from logpi.sampling.host.player import Part
from logpi.sampling.host.shares import Shares, noise_of_shares
from logpi.sampling.noise import host_noise, no_noise
from logpi.sampling.seam import Episodes, Interrupted
from logpi.sampling.validity import EnvironmentFault, error_at, first_invalid


class Played(NamedTuple):
    """What was seen, done and paid, `[max_episode_steps, copy]`, and the length of each episode.

    Rewards are 0 after the end of an episode; anything may stand in the other fields.
    """

    observation: ndarray
    action: ndarray
    reward: Float[ndarray, "time copy"]
    terminated: Bool[ndarray, "time copy"]
    lengths: Int[ndarray, " copy"]


class HostEpisodes:
    """Plays one episode in each copy of a group. A copy whose episode has ended waits."""

    def __init__(
        self,
        spec: EnvironmentSpec,
        group: Group,
        shares: Shares,
        seed: int,
        interrupted: Callable[[], bool],
    ):
        self._spec = spec
        self._group = group
        self._shares = shares
        self._seed = seed
        self._interrupted = interrupted
        self._observer = Observer(spec)

    def restore(self, policy: Policy, unfinished: None) -> None:
        pass

    def show(self, batch: int) -> ndarray:
        """What every copy shows at the beginning of its episode of this batch."""
        try:
            self._start(Stream.TRAINING, batch)
        except EnvironmentFailure as failure:
            raise self._error(failure.index, batch, 0, failure.message) from failure
        return self._group.observation

    def sample(self, policy: Policy, batch: int) -> Part:
        """One episode in each copy, arrays `[max_episode_steps, copy]` of zeros after its end.

        **Raises:** `EnvironmentFault` that names environment, episode and step where the
        environment fails or gives a value that is not valid; `Interrupted`.
        """
        shares = self._shares
        noise = noise_of_shares(policy.head, shares, self._seed, batch)
        played = self.play(policy, Stream.TRAINING, batch, noise, shares.count)
        step = np.arange(self._spec.max_episode_steps, dtype=np.int32)[:, None]
        mask = step < played.lengths
        last = step == played.lengths - 1
        trajectory = Trajectory(
            observation=_until_the_end(played.observation, mask),
            action=_until_the_end(played.action, mask),
            reward=played.reward.astype(float_dtype()),
            terminated=played.terminated & mask,
            truncated=last & ~played.terminated,
            mask=mask,
            step=step * mask,
            memory=policy.initial_memory(shares.count),
        )
        return Part(trajectory, None)

    def evaluate(self, policy: Policy, numbers: range, deterministic: bool) -> Episodes:
        """Returns and lengths of `evaluated` episodes."""
        played = self.evaluated(policy, numbers, deterministic)
        return Episodes(played.reward.sum(axis=0), played.lengths)

    def evaluated(self, policy: Policy, numbers: range, deterministic: bool) -> Played:
        """The episodes of these numbers, at most one a copy, from seeds that training never
        uses.

        Each has its own noise, however many are played at once.
        """
        stream = Stream.EVALUATION
        noise = no_noise(policy.head, len(numbers))
        if not deterministic:
            randoms = [numpy_generator(self._seed, stream, number) for number in numbers]
            noise = host_noise(policy.head, randoms, 1)
        return self.play(policy, stream, numbers.start, noise, len(numbers))

    def play(
        self, policy: Policy, stream: Stream, batch: int, noise: Iterator[ndarray], started: int
    ) -> Played:
        """Episodes in the first `started` copies.

        `batch` is the number of the episode in training, of the first of them in an evaluation.
        """
        group = self._group
        shape = (self._spec.max_episode_steps, started)
        row = group.observation
        dtype = jax.dtypes.canonicalize_dtype(row.dtype)
        observation = np.zeros((*shape, *row.shape[1:]), dtype)
        reward = np.zeros(shape)
        terminated = np.zeros(shape, bool)
        lengths = np.zeros(started, int)
        active = list(range(started))
        actions: list[ndarray] = []
        acting = Acting(policy, self._shares.size)
        memory = policy.initial_memory(started)
        t = 0
        try:
            self._start(stream, batch)
            while active:
                if self._interrupted():
                    raise Interrupted
                self._observer.copy(group.observation[:started], into=observation[t])
                memory = acting.next_memory(observation[t], memory, lengths)
                action = acting.sample(observation[t], memory, next(noise))
                actions.append(action)
                group.step(self._for_all(acting.execute(action)), active)
                reward[t] = group.reward[:started]
                terminated[t] = group.terminated[:started]
                t += 1
                lengths[active] = t
                if t == len(reward):
                    break
                ended = group.terminated | group.truncated
                active = [copy for copy in active if not ended[copy]]
        except EnvironmentFailure as failure:
            self._require_valid(observation[: t + 1], reward, lengths, batch)
            raise self._error(failure.index, batch, t, failure.message) from failure
        self._require_valid(observation[:t], reward, lengths, batch)
        is_step = np.arange(len(reward))[:, None] < lengths
        return Played(
            observation=observation,
            action=_in_rows(actions, len(reward)),
            reward=np.where(is_step, reward, 0.0),
            terminated=terminated,
            lengths=lengths,
        )

    def _for_all(self, actions: ndarray) -> ndarray:
        """A row for each copy of the group; those that play no episode take no step."""
        idle = self._shares.count - len(actions)
        if not idle:
            return actions
        return np.concatenate([actions, np.repeat(actions[-1:], idle, axis=0)])

    def _require_valid(
        self, observation: ndarray, reward: ndarray, lengths: ndarray, batch: int
    ) -> None:
        """Looks at the rows of `observation`, which were played: images of Atari's 27,000 steps
        would fill the memory.
        """
        rows = len(observation)
        mask = np.arange(rows)[:, None] < lengths
        wrong = first_invalid(self._spec, observation, reward[:rows], mask, mask)
        if wrong is not None:
            raise self._error(wrong.copy, batch, wrong.row, wrong.message)

    def _error(self, index: int, batch: int, step: int, message: str) -> EnvironmentFault:
        return error_at(self._spec, self._shares.copies[index], batch, step, message)

    def _start(self, stream: Stream, batch: int) -> None:
        """Every copy at the beginning of its episode."""
        if stream is Stream.TRAINING:
            copies = self._shares.copies
            seeds = [episode_seed(self._seed, stream, copy, batch) for copy in copies]
        else:
            numbers = range(batch, batch + self._shares.count)
            seeds = [episode_seed(self._seed, stream, number, 0) for number in numbers]
        self._group.reset(seeds, range(self._shares.count))


def _in_rows(actions: list[ndarray], rows: int) -> ndarray:
    """The actions as one array of as many rows as an episode may have."""
    first = actions[0]
    dtype = jax.dtypes.canonicalize_dtype(first.dtype)
    array = np.zeros((rows, *first.shape), dtype)
    array[: len(actions)] = actions
    return array


def _until_the_end(x: ndarray, mask: Bool[ndarray, "time copy"]) -> ndarray:
    """`x`, and 0 where a copy has waited for the others, written in its place."""
    rows = int(mask.any(axis=1).sum())
    x[:rows][~mask[:rows]] = 0
    return x
