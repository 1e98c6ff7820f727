"""`vector:ID`, and the rows of a stream against the three ways in which Gymnasium's vector
environments reset."""

import dataclasses

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from scipy.stats import ks_2samp

import logpi
from logpi import A2C, LogpiError, Reinforce
from logpi.core.trajectory import Trajectory
from logpi.environments.host.local import make_group
from logpi.environments.options import EnvironmentOptions
from logpi.environments.registry import make_environment
from logpi.estimators.returns import advantages
from logpi.sampling.host.episodes import HostEpisodes
from logpi.sampling.host.shares import Shares
from logpi.sampling.host.streams import HostStreams
from logpi.sampling.host.unfinished import no_episodes

NAME, COPIES = "vector:CartPole-v1", 64
ALL = Shares(range(COPIES), COPIES)


def never():
    return False


def copies_of(name):
    environment = make_environment(name)
    return environment.spec, make_group(environment, COPIES)


def test_whole_episodes_have_the_law_of_single_environments():
    """Lengths under an untrained policy, two samples of 512; the control is a policy that always
    pushes right."""
    lengths = {}
    for name in (NAME, "CartPole-v1"):
        spec, group = copies_of(name)
        policy = Reinforce().make_learner(spec, 0).policy
        player = HostEpisodes(spec, group, ALL, 0, never)
        batches = [player.sample(policy, batch).trajectory for batch in range(8)]
        lengths[name] = np.concatenate([batch.mask.sum(0) for batch in batches])
        for batch in batches:
            ended = batch.terminated | batch.truncated
            assert (ended.sum(0) == 1).all()
            assert (batch.reward.sum(0) == batch.mask.sum(0)).all()
    assert ks_2samp(*lengths.values()).pvalue > 1e-3
    right = np.array([8, 9, 10] * 170)
    assert ks_2samp(lengths[NAME], right).pvalue < 1e-6


def test_the_row_after_a_step_is_what_it_led_to():
    """After a termination the pole has fallen or left; the row after that begins anew."""
    spec, group = copies_of(NAME)
    policy = A2C().make_learner(spec, 0).policy
    streams = HostStreams(spec, group, ALL, 100, 0, never)
    streams.restore(policy, no_episodes(policy, spec, COPIES))
    rollout = streams.sample(policy, 0).trajectory
    t, i = np.nonzero(rollout.terminated[:-2])
    assert len(t) > 50

    def fallen(x):
        return (np.abs(x[:, 0]) > 2.4) | (np.abs(x[:, 2]) > 0.2095)

    assert fallen(rollout.observation[t + 1, i]).all()
    assert not rollout.mask[t + 1, i].any()
    assert (np.abs(rollout.observation[t + 2, i]) <= 0.05).all()
    assert (rollout.step[t + 2, i] == 0).all()
    assert not fallen(rollout.observation[t, i]).any()


@pytest.mark.release
def test_a_run_is_repeated_by_its_seed_and_resumed_bit_for_bit(tmp_path):
    config = Reinforce(episodes=8)
    runs = [
        logpi.train(NAME, config, steps=2000, seed=seed, out=tmp_path / str(i))
        for i, seed in enumerate([3, 3, 4])
    ]

    def leaves(run):
        return np.concatenate([np.ravel(x) for x in jax.tree.leaves(run.policy)])

    np.testing.assert_array_equal(leaves(runs[0]), leaves(runs[1]))
    assert (leaves(runs[0]) != leaves(runs[2])).any()
    whole = logpi.train(NAME, config, steps=4000, seed=3, out=tmp_path / "whole")
    np.testing.assert_array_equal(leaves(whole), leaves(logpi.resume(tmp_path / "0", steps=4000)))


@pytest.mark.release
def test_actor_critics_learn_from_vector_environments(tmp_path):
    run = logpi.train(
        NAME, A2C(environments=64, anneal=()), steps=3e5, seed=0, out=tmp_path / "run"
    )
    assert run.evaluation.mean > 150


def test_what_does_not_fit_is_named():
    with pytest.raises(
        LogpiError,
        match=r"no package registers a vector environment 'CartPol-v1'; near: CartPole-v1",
    ):
        make_environment("vector:CartPol-v1")
    with pytest.raises(
        LogpiError, match="has a time limit of its own, 500; use CartPole-v1 for another"
    ):
        make_environment(NAME, EnvironmentOptions(100))


def test_a_vector_environment_is_cut_by_itself_alone(monkeypatch):
    """Its copies cannot be reset one by one: what was cut by another would go on in the middle of
    an episode."""
    assert make_environment("vector:ALE/Pong-v5").spec.max_episode_steps == 27_000
    unlimited = dataclasses.replace(
        gym.spec("CartPole-v1"), id="Endless-v0", max_episode_steps=None
    )
    monkeypatch.setitem(gym.registry, "Endless-v0", unlimited)
    with pytest.raises(
        LogpiError, match="vector:Endless-v0 declares no time limit, .*; use Endless-v0"
    ):
        make_environment("vector:Endless-v0")


LENGTH, ROWS = 20, 65


def stream_of(mode, copies=8):
    """Acrobot, cut after 20 steps of each episode, as rows of a stream; actions are a function of
    what is seen."""

    def make():
        return gym.make("Acrobot-v1", max_episode_steps=LENGTH, disable_env_checker=True)

    vector = SyncVectorEnv([make] * copies, autoreset_mode=mode)
    seen, _ = vector.reset(seed=list(range(copies)))
    rows, done = [[] for _ in range(copies)], np.zeros(copies, bool)
    for _ in range(ROWS):
        resets = done & (mode == AutoresetMode.NEXT_STEP)
        later, reward, terminated, truncated, info = vector.step(
            (np.abs(seen * 1e3).sum(1) % 3).astype(int)
        )
        done = terminated | truncated
        for i in range(copies):
            rows[i].append((seen[i], reward[i], terminated[i], truncated[i], not resets[i]))
            if done[i] and mode != AutoresetMode.NEXT_STEP:
                final = info["final_obs"][i] if mode == AutoresetMode.SAME_STEP else later[i]
                rows[i].append((final, 0.0, False, False, False))
        if done.any() and mode == AutoresetMode.DISABLED:
            later = vector.reset(options={"reset_mask": done})[0]
        seen = later
    columns = [
        np.stack([np.array([row[k] for row in column[:ROWS]]) for column in rows], 1)
        for k in range(5)
    ]
    observation, reward, terminated, truncated, mask = columns
    mask[-1] = False
    step = np.zeros(mask.shape, int)
    memory = np.zeros((copies, 0))
    return Trajectory(observation, step, reward, terminated, truncated, mask, step, memory)


def test_the_three_ways_to_reset_give_the_same_advantages():
    """With V of the true final observation; the control takes the next episode's first observation
    for it."""

    def value(observation):
        return jnp.asarray(np.sin(observation @ np.arange(1.0, 7.0)))

    streams = {mode: stream_of(mode) for mode in AutoresetMode}
    found = {mode: advantages(s, value(s.observation), 0.99, 0.95) for mode, s in streams.items()}
    first = streams[AutoresetMode.NEXT_STEP]
    assert first.truncated.sum() >= 16
    for mode, stream in streams.items():
        np.testing.assert_array_equal(stream.mask, first.mask)
        np.testing.assert_allclose(found[mode], found[AutoresetMode.NEXT_STEP], atol=1e-6)
    wrong = np.where(
        first.mask[..., None], first.observation, np.roll(first.observation, -1, axis=0)
    )
    mistaken = advantages(first, value(wrong), 0.99, 0.95)
    assert np.abs(mistaken - found[AutoresetMode.NEXT_STEP]).max() > 0.1
