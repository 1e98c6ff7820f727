"""Which way of stepping the copies of an environment is faster: in this process, or in workers."""

import math
import os
import time

import gymnasium as gym

from logpi.core.errors import LogpiError
from logpi.core.foreign import faults_ignored
from logpi.environments.host.group import Group
from logpi.environments.host.local import LocalGroup
from logpi.environments.host.workers import WorkerGroup
from logpi.environments.spec import HostEnvironment

# What a round trip to the workers costs, so that they pay only where they save more: measured in
# training, with 16 copies of CartPole.
ROUND_TRIP = 40e-6


def measure_step(environment: gym.Env, seconds: float = 0.02) -> float:
    """Seconds of one step with random actions, resets included."""
    environment.action_space.seed(0)
    environment.reset(seed=0)
    actions = [environment.action_space.sample() for _ in range(32)]
    start = time.perf_counter()
    steps = 0
    while steps < 3 or time.perf_counter() - start < seconds:
        *_, terminated, truncated, _ = environment.step(actions[steps % len(actions)])
        steps += 1
        if terminated or truncated:
            environment.reset()
    return (time.perf_counter() - start) / steps


def usable_cores() -> int:
    """Cores that this process may run on, which a scheduler or `taskset` may have limited."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine_memory() -> float:
    """Bytes of memory that this machine has; infinite where the system does not say."""
    if hasattr(os, "sysconf"):
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return math.inf


def hindered(group: Group) -> bool:
    """Whether stepping in this process alone would be faster.

    A step waits for the slowest worker: with more programs than cores it waits for the scheduler.
    """
    return isinstance(group, WorkerGroup) and group.hindered()


def make_group(environment: HostEnvironment, count: int, workers: int | None, cores: int) -> Group:
    """Copies in this process alone, or in `workers` more; None: whichever is faster by the measured
    step time.

    **Raises:** `LogpiError` where worker processes are asked for and the environment is a factory
    of this process.
    """
    if environment.pool is not None:
        return environment.pool(count)
    assert environment.make is not None
    if workers is not None and workers > 0 and environment.source is None:
        raise LogpiError(
            "worker processes need an environment given by name (an id or FILE:NAME), not a factory"
        )
    if workers is None and (environment.source is None or cores < 2 or count < 2):
        workers = 0
    if workers is None:
        first = environment.make()
        busy = 0.0
        with faults_ignored():  # the first rollout reports what is wrong, with its place
            busy = measure_step(first) * count
        saved = busy * (1 - 1 / cores)
        if saved < ROUND_TRIP:
            return LocalGroup(environment, count, [first])
        first.close()
        workers = cores - 1
    workers = min(workers, count - 1)
    if workers:
        return WorkerGroup(environment, count, workers)
    return LocalGroup(environment, count)
