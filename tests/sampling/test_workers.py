"""Workers are given up where they are slower than this process alone, and nothing else changes."""

import os

import jax
import numpy as np
import pytest

from logpi import PPO, Reinforce
from logpi.environments.host import choice as group, workers
from logpi.environments.host.local import LocalGroup
from logpi.environments.host.workers import WorkerGroup
from logpi.environments.registry import make_environment
from logpi.sampling.host.sampler import HostSampler

FILE = """
import os, time
from gymnasium.envs.classic_control import CartPoleEnv

class Slow(CartPoleEnv):
    count = 0
    def reset(self, **options):
        observation, info = super().reset(**options)
        Slow.count += REMEMBERS
        return observation + Slow.count, info
    def step(self, action):
        if (os.getpid() == TRAINING) == HERE:
            time.sleep(0.005)
        observation, *answer = super().step(action)
        return observation + Slow.count, *answer
"""


@pytest.fixture
def slow(tmp_path, monkeypatch):
    """An environment that is slow in this process, or in workers alone; workers are preferred at
    first."""
    monkeypatch.setattr(group, "measure_step", lambda environment: 1.0)
    monkeypatch.setattr("logpi.sampling.host.sampler.usable_cores", lambda: 2)
    monkeypatch.setattr(workers, "WINDOW", 0.1)

    def make(here, remembers=0):
        path = tmp_path / f"slow_{here}_{remembers}.py"
        path.write_text(f"HERE, TRAINING, REMEMBERS = {here}, {os.getpid()}, {remembers}\n{FILE}")
        return make_environment(f"{path}:Slow", max_episode_steps=30)

    return make


@pytest.mark.parametrize("here", [False, True])
def test_workers_are_judged_by_the_copies_of_this_process(slow, here):
    """Hindered where the workers are the slow ones, not where this process is; and not before two
    windows."""
    group = WorkerGroup(slow(here), 4, 1)
    try:
        group.reset(range(4), range(4))
        group.step(np.zeros(4, int), [])
        assert not group.hindered()
        for expected in (False, not here):
            for _ in range(25):
                group.reset(range(4), range(4))
                group.step(np.zeros(4, int), range(4))
            assert group.hindered() is expected
        assert not group.hindered()  # measured anew
    finally:
        group.close()


def trained(environment, config, workers):
    """The learner after four updates, and what stepped the environments then."""
    sampler = HostSampler(environment, config.copies, 7, workers, lambda: False)
    learner = sampler.begin(config, config.make_learner(environment.spec, 7))
    try:
        advance = sampler.advance(config, learner, 10**6)
        for _ in range(4):
            learner, _ = advance(learner, 1)
        return learner, type(sampler._group)
    finally:
        sampler.close()


@pytest.mark.parametrize(
    "config",
    [
        Reinforce(episodes=4, baseline="none"),
        PPO(environments=4, rollout_steps=25, epochs=1, minibatches=1),
    ],
)
def test_workers_that_are_kept_waiting_are_given_up(slow, config):
    """Episodes under way go on as they would have, bit for bit. Control: workers that were asked
    for stay."""
    alone, _ = trained(slow(here=False), config, workers=0)
    for asked, expected in ((None, LocalGroup), (1, WorkerGroup)):
        learner, stepped_by = trained(slow(here=False), config, asked)
        assert stepped_by is expected
        assert all(map(np.array_equal, jax.tree.leaves(learner), jax.tree.leaves(alone)))


@pytest.mark.parametrize(
    "config",
    [
        Reinforce(episodes=4, baseline="none"),
        PPO(environments=4, rollout_steps=25, epochs=1, minibatches=1),
    ],
)
def test_workers_stay_where_their_environments_remember(slow, config):
    """What an episode is depends on those before it: copies made anew would not be where the
    workers are."""
    assert trained(slow(here=False, remembers=1), config, None)[1] is WorkerGroup
