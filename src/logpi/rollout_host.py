"""Episodes of Gymnasium environments, stepped from Python."""

import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
from numpy import ndarray

from logpi.config import Reinforce
from logpi.envs.base import HostEnvironment
from logpi.envs.group import make_group
from logpi.envs.host import EnvironmentFailure
from logpi.errors import LogpiError
from logpi.policy import Policy
from logpi.randomness import Stream, episode_seed, numpy_generator
from logpi.rollout import Advance, Episodes, Interrupted
from logpi.trajectory import Trajectory
from logpi.update import Learner, update

# Time steps for which noise is drawn at once.
NOISE_ROWS = 64


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
        self._group = make_group(environment, count, workers, os.cpu_count() or 1)
        canonical = jax.dtypes.canonicalize_dtype(self._group.observation.dtype)
        self._observation = np.zeros((self._spec.max_episode_steps, *self._group.observation.shape), canonical)

    def close(self) -> None:
        self._group.close()

    def sample(
        self, policy: Policy, stream: Stream, batch: int, deterministic: bool = False, episodes: int | None = None
    ) -> Trajectory:
        """One episode in each of the first `episodes` copies, as NumPy arrays `[max_episode_steps, env]`.

        **Raises:** `LogpiError` that names environment, episode and step where the environment fails or gives a value
        that is not finite; `Interrupted`.
        """
        started = self._count if episodes is None else episodes
        horizon, count = self._spec.max_episode_steps, self._count
        action, reward = None, np.zeros((horizon, count))
        terminated = np.zeros((horizon, count), bool)
        lengths, active = np.zeros(count, int), list(range(started))
        noise = self._noise(policy, stream, batch, deterministic)
        policy = policy.on_host()
        execute = policy.head.execute
        group, t = self._group, 0
        try:
            group.reset([episode_seed(self._seed, stream, i, batch) for i in range(count)])
            while active:
                if self._interrupted():
                    raise Interrupted
                observation = self._observation[t]
                observation[:] = group.observation
                sampled = policy(observation).sample(next(noise))
                if action is None:
                    action = np.zeros((horizon, *sampled.shape), jax.dtypes.canonicalize_dtype(sampled.dtype))
                action[t] = sampled
                group.step(execute(sampled), active)
                reward[t], terminated[t] = group.reward, group.terminated
                lengths[active] = t = t + 1
                active = [i for i in active if not (group.terminated[i] or group.truncated[i] or t == horizon)]
        except EnvironmentFailure as failure:
            self._require_valid(t, reward, lengths, batch)
            raise self._fault(failure.index, batch, t, failure.message) from failure
        self._require_valid(t, reward, lengths, batch)
        step = np.arange(horizon, dtype=np.int32)[:, None]
        mask, last = step < lengths, step == lengths - 1
        assert action is not None
        return Trajectory(
            observation=self._observation.copy(),
            action=action,
            reward=np.where(mask, reward, 0.0).astype(jnp.result_type(float)),
            terminated=terminated & mask,
            truncated=last & ~terminated,
            mask=mask,
            step=np.broadcast_to(step, mask.shape),
        )

    def _noise(self, policy: Policy, stream: Stream, batch: int, deterministic: bool) -> Iterator[ndarray]:
        shape, dtype = (NOISE_ROWS, self._count, policy.head.size), jnp.result_type(float)
        if deterministic:
            yield from itertools.repeat(np.zeros(shape[1:], dtype))
        random = numpy_generator(self._seed, stream, batch)
        draw = {"gumbel": random.gumbel, "normal": random.normal}[policy.head.noise_law]
        while True:
            yield from draw(size=shape).astype(dtype)

    def _require_valid(self, rows: int, reward: ndarray, lengths: ndarray, batch: int) -> None:
        """Raise for the first value, in time, that is not finite or lies outside its Discrete space."""
        mask = np.arange(rows + 1)[:, None] < lengths
        observation, reward = self._observation[: rows + 1], reward[: rows + 1]
        checks: list[tuple[str, Any, Any]] = [
            ("observation", observation, np.isfinite(observation)),
            ("reward", reward, np.isfinite(reward)),
        ]
        space = self._spec.observation_space
        if isinstance(space, gym.spaces.Discrete):
            inside = (observation >= space.start) & (observation < space.start + space.n)
            checks.append(("observation", observation, inside))
        for field, values, valid in checks:
            wrong = ~valid.reshape(*valid.shape[:2], -1).all(-1) & mask[: len(values)]
            if wrong.any():
                t, i = map(int, np.argwhere(wrong)[0])
                what = "is not finite" if np.issubdtype(values.dtype, np.floating) else f"lies outside {space}"
                raise self._fault(i, batch, t, f"{field} {what}: {np.take(values[t], i, axis=0)}")

    def _fault(self, index: int, batch: int, t: int, message: str) -> LogpiError:
        return LogpiError(f"{self._spec.name}: environment {index}, episode {batch}, step {t}: {message}")

    def evaluate(self, policy: Policy, episodes: int, deterministic: bool) -> Episodes:
        returns, lengths = [], []
        for batch, first in enumerate(range(0, episodes, self._count)):
            started = min(self._count, episodes - first)
            trajectory = self.sample(policy, Stream.EVALUATION, batch, deterministic, started)
            returns.append(np.asarray(trajectory.reward, np.float64).sum(axis=0)[:started])
            lengths.append(np.asarray(trajectory.mask).sum(axis=0)[:started])
        return Episodes(np.concatenate(returns), np.concatenate(lengths))

    def advance(self, config: Reinforce, learner: Learner) -> Advance:
        """Sampling from Python, then the compiled update, which is compiled while the first batch is sampled."""
        shapes = self._shapes(learner.policy)
        thread = ThreadPoolExecutor(1)
        compiling = thread.submit(lambda: jax.jit(partial(update, config)).lower(learner, shapes).compile())
        thread.shutdown(wait=False)

        def advance(learner: Learner, steps: int) -> tuple[Learner, list[dict[str, float]]]:
            trajectory = self.sample(learner.policy, Stream.TRAINING, int(learner.batch))
            learner, metrics = compiling.result()(learner, trajectory)
            return learner, [{name: float(value) for name, value in metrics.items()}]

        return advance

    def _shapes(self, policy: Policy) -> Any:
        """What `sample` returns, as shapes."""
        time_env = self._observation.shape[:2]

        def example(policy: Policy) -> Trajectory:
            action = policy(self._observation).sample(jnp.zeros((*time_env, policy.head.size)))
            reward, flag, step = jnp.zeros(time_env), jnp.zeros(time_env, bool), jnp.zeros(time_env, jnp.int32)
            return Trajectory(jnp.asarray(self._observation), action, reward, flag, flag, flag, step)

        return jax.eval_shape(example, policy)
