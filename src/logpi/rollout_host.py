"""Episodes of Gymnasium environments, stepped from Python."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy import ndarray

from logpi.algorithm import Algorithm, Reinforce
from logpi.envs.base import HostEnvironment
from logpi.envs.group import hindered, make_group, usable_cores
from logpi.envs.host import EnvironmentFailure, Group, LocalGroup
from logpi.learner import Learner, with_environment
from logpi.policy import Policy
from logpi.randomness import Stream, episode_seed
from logpi.rollout import Advance, Episodes, Interrupted, compile_program
from logpi.rollout_streams import HostStreams, fault, first_episodes, first_invalid, standard_noise
from logpi.trajectory import Trajectory, beside, float_dtype
from logpi.update import update


class HostSampler:
    """Steps Gymnasium environments from Python; acting is done in NumPy, the update is compiled."""

    def __init__(
        self,
        environment: HostEnvironment,
        count: int,
        seed: int,
        workers: int | None,
        interrupted: Callable[[], bool],
    ):
        self._spec, self._count, self._seed, self._interrupted = environment.spec, count, seed, interrupted
        self._environment, self._chooses = environment, workers is None
        self._group = make_group(environment, count, workers, usable_cores())

    @cached_property
    def _observation(self) -> ndarray:
        """Where the observations of whole episodes are written."""
        row = self._group.observation
        return np.zeros((self._spec.max_episode_steps, *row.shape), jax.dtypes.canonicalize_dtype(row.dtype))

    def close(self) -> None:
        self._group.close()

    def sample(
        self, policy: Policy, stream: Stream, batch: int, deterministic: bool = False, episodes: int | None = None
    ) -> Trajectory:
        """One episode in each of the first `episodes` copies, as NumPy arrays `[max_episode_steps, env]`.

        **Raises:** `LogpiError` that names environment, episode and step where the environment fails or gives a value
        that is not finite; `Interrupted`.
        """
        action, reward, terminated, lengths = self._play(policy, stream, batch, deterministic, episodes)
        step = np.arange(len(reward), dtype=np.int32)[:, None]
        mask, last = step < lengths, step == lengths - 1
        return Trajectory(
            observation=self._seen(mask),
            action=action,
            reward=reward.astype(float_dtype()),
            terminated=terminated & mask,
            truncated=last & ~terminated,
            mask=mask,
            step=np.broadcast_to(step, mask.shape),
        )

    def _seen(self, mask: ndarray) -> ndarray:
        """A copy of the observations that were acted on; 0 after an end, where there may be anything."""
        seen, rows = np.zeros_like(self._observation), int(mask.any(axis=1).sum())
        np.copyto(seen[:rows], self._observation[:rows], where=beside(mask[:rows], seen))
        return seen

    def _play(
        self, policy: Policy, stream: Stream, batch: int, deterministic: bool, episodes: int | None
    ) -> tuple[ndarray, ndarray, ndarray, ndarray]:
        """Actions, rewards, terminations `[max_episode_steps, env]`, and lengths; `_observation` has what was seen.

        Rewards are 0 after the end of an episode.
        """
        started = self._count if episodes is None else episodes
        horizon, count = self._spec.max_episode_steps, self._count
        action, reward = None, np.zeros((horizon, count))
        terminated = np.zeros((horizon, count), bool)
        lengths, active = np.zeros(count, int), list(range(started))
        noise = self._noise(policy, stream, batch, deterministic)
        policy = policy.on_host()
        execute = policy.head.execute
        group, t, remembered = self._group, 0, policy.blank(count)
        try:
            self._start(group, stream, batch)
            while active:
                if self._interrupted():
                    raise Interrupted
                observation = self._observation[t]
                observation[:] = group.observation
                remembered = policy.remember(observation, remembered)
                sampled = policy(observation, remembered).sample(next(noise))
                if action is None:
                    action = np.zeros((horizon, *sampled.shape), jax.dtypes.canonicalize_dtype(sampled.dtype))
                action[t] = sampled
                group.step(execute(sampled), active)
                reward[t], terminated[t] = group.reward, group.terminated
                lengths[active] = t = t + 1
                active = [i for i in active if not (group.terminated[i] or group.truncated[i] or t == horizon)]
        except EnvironmentFailure as failure:
            self._require_valid(reward, lengths, t + 1, batch)
            raise fault(self._spec, failure.index, batch, t, failure.message) from failure
        self._require_valid(reward, lengths, t, batch)
        assert action is not None
        return action, np.where(np.arange(horizon)[:, None] < lengths, reward, 0.0), terminated, lengths

    def _require_valid(self, reward: ndarray, lengths: ndarray, rows: int, batch: int) -> None:
        """Looks at the `rows` that were played alone: images of 27,000 steps, Atari's limit, would fill the memory."""
        mask = np.arange(rows)[:, None] < lengths
        wrong = first_invalid(self._spec, self._observation[:rows], reward[:rows], mask, mask)
        if wrong is not None:
            t, i, message = wrong
            raise fault(self._spec, i, batch, t, message)

    def evaluate(self, policy: Policy, episodes: int, deterministic: bool) -> Episodes:
        returns, lengths = [], []
        for batch, first in enumerate(range(0, episodes, self._count)):
            started = min(self._count, episodes - first)
            _, reward, _, length = self._play(policy, Stream.EVALUATION, batch, deterministic, started)
            returns.append(reward.sum(axis=0)[:started])
            lengths.append(length[:started])
        return Episodes(np.concatenate(returns), np.concatenate(lengths))

    def advance(self, config: Algorithm, learner: Learner, budget: int) -> Advance:
        """Sampling from Python, then the compiled update, which is compiled while the first batch is sampled."""
        streams = None
        time = self._spec.max_episode_steps
        if not isinstance(config, Reinforce):
            time = config.rollout_steps + 1
            streams = HostStreams(self._spec, self._group, config.rollout_steps, self._seed, self._interrupted)
            streams.restore(learner.policy, learner.environment)
        parameters = with_environment(learner, None)
        shapes = self._shapes(learner.policy, time, streams is not None)
        thread = ThreadPoolExecutor(1)
        names: list[str] = []
        program = partial(_numbered_update, config, budget, names)
        compiling = thread.submit(compile_program, program, parameters, shapes)
        thread.shutdown(wait=False)

        def advance(learner: Learner, steps: int) -> tuple[Learner, list[dict[str, float]]]:
            batch = int(learner.batch)
            if self._chooses and hindered(self._group):
                self._give_up_workers(streams, learner.policy, batch)
            if streams is None:
                trajectory, unfinished = self.sample(learner.policy, Stream.TRAINING, batch), None
            else:
                trajectory, unfinished = streams.sample(learner.policy, batch)
            parameters = with_environment(learner, None)
            learner, metrics = compiling.result()(parameters, trajectory)
            learner = with_environment(learner, unfinished)
            return learner, [dict(zip(names, metrics.tolist(), strict=True))]

        return advance

    def _give_up_workers(self, streams: HostStreams | None, policy: Policy, batch: int) -> None:
        """Go on in this process alone, if that leads to what the workers have; else they stay for good."""
        self._chooses, alone = False, LocalGroup(self._environment, self._count)
        same = self._starts_alike(alone, batch) if streams is None else streams.move(alone, policy)
        self._group, other = (alone, self._group) if same else (self._group, alone)
        other.close()

    def _starts_alike(self, group: Group, batch: int) -> bool:
        """Whether the episodes of a batch start in another group as in this one."""
        try:
            for each in (group, self._group):
                self._start(each, Stream.TRAINING, batch)
        except EnvironmentFailure:
            return False
        return np.array_equal(group.observation, self._group.observation)

    def _start(self, group: Group, stream: Stream, batch: int) -> None:
        """Every copy at the beginning of its episode of a batch."""
        copies, number = range(self._count), batch * self._count
        training = stream is Stream.TRAINING
        episodes = [(i, batch) if training else (number + i, 0) for i in copies]
        group.reset([episode_seed(self._seed, stream, *episode) for episode in episodes], copies)

    def _noise(self, policy: Policy, stream: Stream, batch: int, deterministic: bool) -> Iterator[ndarray]:
        """What actions are drawn by; in an evaluation each episode has its own, however many are played at once."""
        if stream is Stream.TRAINING or deterministic:
            return standard_noise(policy, self._count, self._seed, stream, batch, deterministic)
        numbers = range(batch * self._count, (batch + 1) * self._count)
        each = [standard_noise(policy, 1, self._seed, stream, number) for number in numbers]
        return map(np.concatenate, zip(*each, strict=True))

    def begin(self, config: Algorithm, learner: Learner) -> Learner:
        if isinstance(config, Reinforce):
            return learner
        unfinished = first_episodes(self._spec, learner.policy, self._count)
        return with_environment(learner, unfinished)

    def _shapes(self, policy: Policy, time: int, streams: bool) -> Any:
        """What sampling returns, as shapes."""
        row = self._group.observation

        def example(policy: Policy) -> Trajectory:
            observation = jnp.zeros((time, *row.shape), jax.dtypes.canonicalize_dtype(row.dtype))
            time_env = observation.shape[:2]
            remembered = jax.tree.map(jnp.asarray, policy.blank(time_env[1]))
            acting = policy(observation[0], remembered).sample(jnp.zeros((time_env[1], policy.head.size)))
            action = jnp.zeros((time, *acting.shape), acting.dtype)
            reward, flag, step = jnp.zeros(time_env), jnp.zeros(time_env, bool), jnp.zeros(time_env, jnp.int32)
            extra = (reward, remembered) if streams else ()
            return Trajectory(observation, action, reward, flag, flag, flag, step, *extra)

        return jax.eval_shape(example, policy)


def _numbered_update(
    config: Algorithm, budget: int, names: list[str], learner: Learner, trajectory: Trajectory
) -> tuple[Learner, Float[Array, " metrics"]]:
    """`update` with the metrics in one array, since each that is read costs 10 µs; `names` is filled while tracing."""
    learner, metrics = update(config, learner, trajectory, budget)
    names[:] = metrics
    return learner, jnp.stack([value.astype(float) for value in metrics.values()])
