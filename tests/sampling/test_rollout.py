"""Samplers against the law that they must follow: the enumerated trajectories of a finite MDP
[D3.1]."""

import dataclasses

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import FiniteEnv, random_mdp, small_policy, tabular_policy
from scipy import stats

import logpi
from logpi.core.randomness import Stream, batch_key
from logpi.environments.host.local import LocalGroup
from logpi.environments.options import EnvironmentOptions
from logpi.environments.registry import make_environment, make_host_environment
from logpi.methods.update import update
from logpi.networks.parameters import as_vector
from logpi.sampling.compiled.episodes import sample_episodes
from logpi.sampling.host.episodes import HostEpisodes
from logpi.sampling.host.places import SHORT
from logpi.sampling.host.sampler import HostSampler
from logpi.sampling.host.shares import Shares
from logpi.sampling.noise import host_noise, no_noise
from logpi.sampling.seam import Rollouts
from logpi.theory.enumeration import enumerate_trajectories
from logpi.theory.exact import state_policy

COPIES, BATCHES, LEVEL = 200, 10, 1e-6


def never():
    return False


def episodes(environment, copies, seed):
    group = LocalGroup(environment, copies)
    return HostEpisodes(environment.spec, group, Shares(range(copies), 4), seed, never)


@pytest.fixture(params=["compiled", "host"])
def draw(request):
    """Draws the columns of `BATCHES` batches from either kind of environment."""

    def columns(mdp, logits, seed):
        policy = tabular_policy(np.asarray(logits, np.float32))
        if request.param == "compiled":
            environment = make_environment(mdp)

            @jax.jit
            def compiled(b):
                key = batch_key(jnp.uint32(seed), Stream.TRAINING, b)
                return sample_episodes(environment, policy, key, COPIES)

            sample = compiled
        else:
            environment = make_environment(lambda: FiniteEnv(mdp), EnvironmentOptions(mdp.horizon))
            player = episodes(environment, COPIES, seed)

            def sample(b):
                return player.sample(policy, int(b)).trajectory

        return [jax.tree.map(np.asarray, sample(np.int32(batch))) for batch in range(BATCHES)]

    return columns


def p_value(mdp, logits, batches):
    """χ² of the sampled trajectories against p(τ|θ), trajectories expected fewer than 10 times
    taken together."""
    every = enumerate_trajectories(mdp)

    def key(state, action, reward, mask):
        return tuple(
            zip(
                state[mask].tolist(),
                action[mask].tolist(),
                np.float32(reward[mask]).tolist(),
                strict=True,
            )
        )

    law: dict = {}
    for i, probability in enumerate(every.probability(state_policy(mdp, logits))):
        tau = key(every.state[:, i], every.action[:, i], every.reward[:, i], every.mask[:, i])
        # trajectories that differ in the last, unobserved state only
        law[tau] = law.get(tau, 0.0) + probability
    counts = dict.fromkeys(law, 0)
    for batch in batches:
        for i in range(COPIES):
            counts[
                key(*(x[:, i] for x in (batch.observation, batch.action, batch.reward, batch.mask)))
            ] += 1
    total = COPIES * BATCHES
    common = [tau for tau in law if law[tau] * total >= 10]
    observed = np.array(
        [counts[tau] for tau in common] + [sum(counts[t] for t in law if t not in common)]
    )
    expected = (
        np.array([law[tau] for tau in common] + [sum(law[t] for t in law if t not in common)])
        * total
    )
    observed, expected = observed[expected > 0], expected[expected > 0]
    return stats.chisquare(observed, expected * observed.sum() / expected.sum()).pvalue


def test_trajectories_follow_their_law(draw, random):
    mdp, logits = random_mdp(random, horizon=2, discount=1.0, rewards=2), random.normal(size=(3, 2))
    batches = draw(mdp, logits, seed=int(random.integers(2**32)))
    assert p_value(mdp, logits, batches) > LEVEL
    # the control: another policy
    assert p_value(mdp, logits + np.array([2.0, 0.0]), batches) < LEVEL


def test_every_started_episode_is_finished_and_counted(draw, random):
    """Short episodes are not over-represented: the mean length is the exact one, within 5 standard
    errors."""
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
    batch = sample_episodes(longer, policy, key, COPIES)
    assert batch.mask.shape[0] == 9
    assert int(batch.mask.sum(0).max()) == 3
    assert (np.asarray(batch.truncated | batch.terminated).sum(0) == 1).all()


def test_rewards_belong_to_their_transitions(draw, random):
    mdp, logits = random_mdp(random, states=3), np.zeros((3, 2))
    for batch in draw(mdp, logits, seed=3):
        state, action, reward = batch.observation, batch.action, batch.reward
        for t, i in np.argwhere(batch.mask[:-1] & batch.mask[1:]):
            assert reward[t, i] == np.float32(
                mdp.reward[state[t, i], action[t, i], state[t + 1, i]]
            )
        assert not reward[~batch.mask].any()


def sample_cartpole(seed, batch, workers=0):
    return sample("CartPole-v1", 500, seed, batch, workers)


def sample(name, time, seed, batch, workers=0):
    environment = make_environment(name)
    sampler = HostSampler(environment, 10, seed, Rollouts(workers), never)
    policy = small_policy(
        environment.spec.observation_space,
        environment.spec.action_space,
        (8,),
        np.random.default_rng(0),
    )
    try:
        trajectory, _ = sampler._placement._places.sample(policy, None, batch, None, time)
        return jax.tree.map(np.asarray, trajectory)
    finally:
        sampler.close()


def equal(a, b):
    return all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def test_an_episode_is_a_function_of_its_seed_alone():
    """Same (run seed, environment, episode), whatever was sampled before and in whichever
    process."""
    alone = sample_cartpole(seed=7, batch=5)
    assert equal(alone, sample_cartpole(seed=7, batch=5, workers=2))
    assert not equal(alone, sample_cartpole(seed=7, batch=6))
    assert not equal(alone, sample_cartpole(seed=8, batch=5))
    starts = [
        sample_cartpole(seed, batch).observation[0] for seed, batch in [(7, 5), (7, 6), (8, 5)]
    ]
    assert not np.array_equal(starts[0], starts[1])  # not only other actions: other episodes
    assert not np.array_equal(starts[0], starts[2])
    first = alone.observation[0]
    assert len(np.unique(first, axis=0)) == len(first)  # the copies start differently


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_batch_of_short_episodes_is_in_short_arrays(workers):
    """An update of it is that of the same episodes in long arrays, up to the order of sums.
    Control: longer episodes are kept whole, and others give another update.
    """
    batch = sample("Blackjack-v1", 1000, 0, 0, workers)
    assert len(batch.mask) == SHORT
    assert batch.mask[0].all()
    assert batch.mask[1].any()
    assert len(sample_cartpole(0, 0, workers).mask) == 500
    environment = make_environment("Blackjack-v1")
    method = logpi.Reinforce(hidden=(8,), episodes=10, value_steps=3, value_batch=8)
    learner = method.make_learner(environment.spec, seed=0)

    @jax.jit
    def updated(batch):
        return as_vector(update(method, learner, batch)[0].policy)[0]

    rows = jax.tree.map(lambda x: np.pad(x, [(0, 100)] + [(0, 0)] * (x.ndim - 1)), batch)
    long = rows._replace(memory=batch.memory)
    np.testing.assert_allclose(updated(batch), updated(long), atol=1e-6)
    paid = batch._replace(reward=-batch.reward)
    assert np.abs(np.asarray(updated(batch) - updated(paid))).max() > 1e-4


def test_some_copies_can_be_left_out():
    environment = make_environment("CartPole-v1")
    spaces = environment.spec.observation_space, environment.spec.action_space
    policy = small_policy(*spaces, (8,), np.random.default_rng(0))
    noise = host_noise(policy.head, [np.random.default_rng(7)], 3)
    player = episodes(environment, 4, 7)
    stepped = []
    step = player._group.step
    player._group.step = lambda actions, active: stepped.extend(active) or step(actions, active)
    played = player.play(policy, Stream.TRAINING, 5, noise, started=3)
    assert (played.lengths > 0).tolist() == [True, True, True]
    assert set(stepped) == {0, 1, 2}


def test_zero_noise_takes_the_most_probable_action(random):
    mdp, logits = random_mdp(random), np.array([[3.0, 0.0], [0.0, 3.0], [0.0, 0.0]])
    environment = make_environment(lambda: FiniteEnv(mdp), EnvironmentOptions(3))
    player = episodes(environment, 50, 0)
    policy = tabular_policy(np.asarray(logits, np.float32))
    played = player.play(policy, Stream.EVALUATION, 0, no_noise(policy.head, 50), started=50)
    mask = np.arange(3)[:, None] < played.lengths
    np.testing.assert_array_equal(played.action[mask], played.observation[mask])


class Continuous(gym.Env):
    """Rewards show what arrived: the sum of the action."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Box(np.float32([0, -4]), np.float32([2, 4]))

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        return np.zeros(1, np.float32), float(action.sum()), False, False, {}


@pytest.mark.parametrize("actions", ["normal", "clipped-normal", "tanh-normal"])
def test_box_actions_are_executed_inside_their_bounds_and_stored_as_sampled(actions):
    environment = make_environment(Continuous, EnvironmentOptions(30))
    spaces = environment.spec.observation_space, environment.spec.action_space
    policy = small_policy(*spaces, (8,), np.random.default_rng(0), actions=actions)
    batch = episodes(environment, 20, 0).sample(policy, 0)[0]
    stored = np.asarray(batch.action)
    assert np.abs(stored).max() > 1  # beyond the bounds: what is stored is what was sampled
    unit = np.tanh(stored) if actions == "tanh-normal" else np.clip(stored, -1, 1)
    executed = np.array([1.0, 0.0]) + np.array([1.0, 4.0]) * unit
    np.testing.assert_allclose(batch.reward, executed.sum(-1), rtol=1e-5, atol=1e-5)


def test_time_limits_truncate_and_the_environment_terminates():
    environment = make_host_environment("CartPole-v1", EnvironmentOptions(12))
    policy = small_policy(
        environment.spec.observation_space,
        environment.spec.action_space,
        (8,),
        np.random.default_rng(0),
    )
    batch = episodes(environment, 64, 0).sample(policy, 0)[0]
    lengths = np.asarray(batch.mask).sum(0)
    terminated, truncated = (
        np.asarray(flag).any(0) for flag in (batch.terminated, batch.truncated)
    )
    np.testing.assert_array_equal(terminated, ~truncated)
    assert (lengths[truncated] == 12).all()
    assert 0 < terminated.sum() < 64
    assert (lengths[terminated] < 12).any()
