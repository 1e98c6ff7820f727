"""Samplers against the law that they must follow: the enumerated trajectories of a finite MDP [D3.1]."""

import dataclasses

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import FiniteEnv, random_mdp, tabular_policy
from scipy import stats

from logpi.enumeration import enumerate_trajectories
from logpi.envs import make_environment
from logpi.envs.registry import make_host_environment
from logpi.objective import state_policy
from logpi.policy import make_policy
from logpi.randomness import Stream, batch_key
from logpi.rollout_compiled import CompiledSampler
from logpi.rollout_host import HostSampler

COPIES, BATCHES, LEVEL = 200, 10, 1e-6
never = lambda: False


@pytest.fixture(params=["compiled", "host"])
def draw(request):
    """Draws the columns of `BATCHES` batches from either kind of environment."""

    def columns(mdp, logits, seed):
        policy = tabular_policy(np.asarray(logits, np.float32))
        if request.param == "compiled":
            sampler = CompiledSampler(make_environment(mdp), COPIES, seed, never)
            sample = jax.jit(lambda b: sampler.sample(policy, batch_key(jnp.uint32(seed), Stream.TRAINING, b)))
        else:
            environment = make_environment(lambda: FiniteEnv(mdp), max_episode_steps=mdp.horizon)
            sampler = HostSampler(environment, COPIES, seed, 0, never)
            sample = lambda b: sampler.sample(policy, Stream.TRAINING, int(b))
        return [jax.tree.map(np.asarray, sample(np.int32(batch))) for batch in range(BATCHES)]

    return columns


def p_value(mdp, logits, batches):
    """χ² of the sampled trajectories against p(τ|θ), trajectories expected fewer than 10 times taken together."""
    every = enumerate_trajectories(mdp)
    key = lambda state, action, reward, mask: tuple(
        zip(state[mask].tolist(), action[mask].tolist(), np.float32(reward[mask]).tolist(), strict=True)
    )
    law: dict = {}
    for i, probability in enumerate(every.probability(state_policy(mdp, logits))):
        tau = key(every.state[:, i], every.action[:, i], every.reward[:, i], every.mask[:, i])
        law[tau] = law.get(tau, 0.0) + probability  # trajectories that differ in the last, unobserved state only
    counts = dict.fromkeys(law, 0)
    for batch in batches:
        for i in range(COPIES):
            counts[key(*(x[:, i] for x in (batch.observation, batch.action, batch.reward, batch.mask)))] += 1
    total = COPIES * BATCHES
    common = [tau for tau in law if law[tau] * total >= 10]
    observed = np.array([counts[tau] for tau in common] + [sum(counts[t] for t in law if t not in common)])
    expected = np.array([law[tau] for tau in common] + [sum(law[t] for t in law if t not in common)]) * total
    observed, expected = observed[expected > 0], expected[expected > 0]
    return stats.chisquare(observed, expected * observed.sum() / expected.sum()).pvalue


def test_trajectories_follow_their_law(draw, random):
    mdp, logits = random_mdp(random, horizon=2, discount=1.0, rewards=2), random.normal(size=(3, 2))
    batches = draw(mdp, logits, seed=int(random.integers(2**32)))
    assert p_value(mdp, logits, batches) > LEVEL
    assert p_value(mdp, logits + np.array([2.0, 0.0]), batches) < LEVEL  # the control: another policy


def test_every_started_episode_is_finished_and_counted(draw, random):
    """Short episodes are not over-represented: the mean length is the exact one, within 5 standard errors."""
    mdp, logits = random_mdp(random, horizon=6, discount=1.0), np.zeros((3, 2))
    batches = draw(mdp, logits, seed=int(random.integers(2**32)))
    lengths = np.concatenate([batch.mask.sum(0) for batch in batches])
    every = enumerate_trajectories(mdp)
    exact = every.probability(state_policy(mdp, logits)) @ every.mask.sum(0)
    assert abs(lengths.mean() - exact) < 5 * lengths.std() / len(lengths) ** 0.5
    for batch in batches:
        ends = batch.terminated | batch.truncated
        assert (ends.sum(0) == 1).all()
        assert not (batch.terminated & batch.truncated).any()
        last = batch.mask.sum(0) - 1
        assert ends[last, np.arange(COPIES)].all()
        assert (batch.truncated.sum(0) <= (last == mdp.horizon - 1)).all()


def test_an_early_truncation_ends_an_episode(random):
    """In a compiled environment that cuts before the declared limit."""
    mdp = random_mdp(random, horizon=3, discount=1.0)
    made = make_environment(mdp)
    longer = dataclasses.replace(made, spec=dataclasses.replace(made.spec, max_episode_steps=9))
    policy = tabular_policy(np.zeros((3, 2), np.float32))
    key = batch_key(jnp.uint32(0), Stream.TRAINING, jnp.int32(0))
    batch = CompiledSampler(longer, COPIES, 0, never).sample(policy, key)
    assert batch.mask.shape[0] == 9
    assert int(batch.mask.sum(0).max()) == 3
    assert (np.asarray(batch.truncated | batch.terminated).sum(0) == 1).all()


def test_rewards_belong_to_their_transitions(draw, random):
    mdp, logits = random_mdp(random, states=3), np.zeros((3, 2))
    for batch in draw(mdp, logits, seed=3):
        state, action, reward = batch.observation, batch.action, batch.reward
        for t, i in np.argwhere(batch.mask[:-1] & batch.mask[1:]):
            assert reward[t, i] == np.float32(mdp.reward[state[t, i], action[t, i], state[t + 1, i]])
        assert not reward[~batch.mask].any()


def sample_cartpole(seed, batch, workers=0, episodes=None):
    environment = make_environment("CartPole-v1")
    sampler = HostSampler(environment, 4, seed, workers, never)
    policy = make_policy(
        environment.spec.observation_space, environment.spec.action_space, (8,), np.random.default_rng(0)
    )
    try:
        return jax.tree.map(np.asarray, sampler.sample(policy, Stream.TRAINING, batch, episodes=episodes))
    finally:
        sampler.close()


def equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_an_episode_is_a_function_of_its_seed_alone():
    """Same (run seed, environment, episode), whatever was sampled before and in whichever process."""
    alone = sample_cartpole(seed=7, batch=5)
    assert equal(alone, sample_cartpole(seed=7, batch=5, workers=2))
    assert not equal(alone, sample_cartpole(seed=7, batch=6))
    assert not equal(alone, sample_cartpole(seed=8, batch=5))
    starts = [sample_cartpole(seed, batch).observation[0] for seed, batch in [(7, 5), (7, 6), (8, 5)]]
    assert not np.array_equal(starts[0], starts[1])  # not only other actions: other episodes
    assert not np.array_equal(starts[0], starts[2])
    first = alone.observation[0]
    assert len(np.unique(first, axis=0)) == len(first)  # the copies start differently


def test_some_copies_can_be_left_out():
    batch = sample_cartpole(seed=7, batch=5, episodes=3)
    assert batch.mask.any(0).tolist() == [True, True, True, False]


def test_zero_noise_takes_the_most_probable_action(random):
    mdp, logits = random_mdp(random), np.array([[3.0, 0.0], [0.0, 3.0], [0.0, 0.0]])
    environment = make_environment(lambda: FiniteEnv(mdp), max_episode_steps=3)
    sampler = HostSampler(environment, 50, 0, 0, never)
    batch = sampler.sample(tabular_policy(np.asarray(logits, np.float32)), Stream.EVALUATION, 0, deterministic=True)
    taken = np.asarray(batch.action)[np.asarray(batch.mask)]
    np.testing.assert_array_equal(taken, np.asarray(batch.observation)[np.asarray(batch.mask)])


class Continuous(gym.Env):
    """Rewards show what arrived: the sum of the action."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Box(np.float32([0, -4]), np.float32([2, 4]))

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        return np.zeros(1, np.float32), float(action.sum()), False, False, {}


@pytest.mark.parametrize("actions", ["normal", "tanh-normal"])
def test_box_actions_are_executed_inside_their_bounds_and_stored_as_sampled(actions):
    environment = make_environment(Continuous, max_episode_steps=30)
    spaces = environment.spec.observation_space, environment.spec.action_space
    policy = make_policy(*spaces, (8,), np.random.default_rng(0), squash=actions == "tanh-normal")
    batch = HostSampler(environment, 20, 0, 0, never).sample(policy, Stream.TRAINING, 0)
    stored = np.asarray(batch.action)
    assert np.abs(stored).max() > 1  # beyond the bounds: what is stored is what was sampled
    unit = np.tanh(stored) if actions == "tanh-normal" else np.clip(stored, -1, 1)
    executed = np.array([1.0, 0.0]) + np.array([1.0, 4.0]) * unit
    np.testing.assert_allclose(batch.reward, executed.sum(-1), rtol=1e-5, atol=1e-5)


def test_time_limits_truncate_and_the_environment_terminates():
    environment = make_host_environment("CartPole-v1", 12)
    policy = make_policy(
        environment.spec.observation_space, environment.spec.action_space, (8,), np.random.default_rng(0)
    )
    batch = HostSampler(environment, 64, 0, 0, never).sample(policy, Stream.TRAINING, 0)
    lengths = np.asarray(batch.mask).sum(0)
    terminated, truncated = (np.asarray(flag).any(0) for flag in (batch.terminated, batch.truncated))
    np.testing.assert_array_equal(terminated, ~truncated)
    assert (lengths[truncated] == 12).all()
    assert 0 < terminated.sum() < 64
    assert (lengths[terminated] < 12).any()
