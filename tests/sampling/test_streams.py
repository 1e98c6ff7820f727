"""Streams of episodes: their law, their continuation in the next rollout, their restoration."""

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import FiniteEnv, random_mdp, tabular_policy
from test_rollout import BATCHES, COPIES, LEVEL, p_value

from logpi import A2C
from logpi.core.randomness import Stream, batch_key
from logpi.environments.host.local import LocalGroup
from logpi.environments.options import EnvironmentOptions
from logpi.environments.registry import make_environment
from logpi.sampling.compiled.sampler import CompiledSampler
from logpi.sampling.compiled.streams import sample_rollout
from logpi.sampling.host.sampler import HostSampler
from logpi.sampling.host.shares import Shares
from logpi.sampling.host.streams import HostStreams
from logpi.sampling.host.unfinished import no_episodes
from logpi.sampling.seam import Rollouts

ROWS = 32


def never():
    return False


@pytest.fixture(params=["compiled", "host"])
def stream(request):
    """Two rollouts of `ROWS` rows, one after the other, of either kind of environment."""

    def rollouts(mdp, logits, seed):
        policy = tabular_policy(np.asarray(logits, np.float32))
        if request.param == "compiled":
            sampler = CompiledSampler(make_environment(mdp), COPIES, seed, never)
            environment = make_environment(mdp)
            unfinished = sampler.begin(A2C(), A2C().make_learner(environment.spec, 0)).environment
            keys = [batch_key(jnp.uint32(seed), Stream.TRAINING, jnp.int32(i)) for i in (0, 1)]

            @jax.jit
            def draw(unfinished, key):
                return sample_rollout(environment, policy, unfinished, ROWS, key)

            first, unfinished = draw(unfinished, keys[0])
            second, _ = draw(unfinished, keys[1])
        else:
            environment = make_environment(lambda: FiniteEnv(mdp), EnvironmentOptions(mdp.horizon))
            shares = Shares(range(COPIES), 4)
            group = LocalGroup(environment, COPIES)
            streams = HostStreams(environment.spec, group, shares, ROWS, seed, never)
            streams.restore(policy, no_episodes(policy, environment.spec, COPIES))
            first, second = (streams.sample(policy, batch).trajectory for batch in (0, 1))
        return [jax.tree.map(np.asarray, r._replace(memory=None)) for r in (first, second)]

    return rollouts


def joined(rollouts):
    """The rows of both, without the row that says where the first was cut."""
    first, second = rollouts
    return jax.tree.map(lambda a, b: np.concatenate([a[:-1], b]), first, second)


def as_batches(rollout, horizon):
    """The first episodes of every stream, each in a column of its own; all of them have ended."""
    batches = [
        jax.tree.map(lambda x: np.zeros((horizon, COPIES), x.dtype), rollout)
        for _ in range(BATCHES)
    ]
    ended = rollout.terminated | rollout.truncated
    for i in range(COPIES):
        ends = np.flatnonzero(ended[:, i])
        assert len(ends) >= BATCHES
        start = 0
        for batch, end in zip(batches, ends, strict=False):
            for into, source in zip(jax.tree.leaves(batch), jax.tree.leaves(rollout), strict=True):
                into[: end - start + 1, i] = source[start : end + 1, i]
            assert batch.mask[: end - start + 1, i].all()
            start = end + 2  # one row shows what was reached
    return batches


def test_episodes_of_a_stream_follow_their_law(stream, random):
    mdp, logits = random_mdp(random, horizon=2, discount=1.0, rewards=2), random.normal(size=(3, 2))
    batches = as_batches(joined(stream(mdp, logits, seed=int(random.integers(2**32)))), mdp.horizon)
    assert p_value(mdp, logits, batches) > LEVEL
    # the control: another policy
    assert p_value(mdp, logits + np.array([2.0, 0.0]), batches) < LEVEL


def test_a_stream_goes_on_where_it_was_cut(stream, random):
    mdp = random_mdp(random, horizon=5, discount=1.0)
    first, second = stream(mdp, np.zeros((3, 2)), seed=5)
    np.testing.assert_array_equal(first.observation[-1], second.observation[0])
    np.testing.assert_array_equal(first.step[-1], second.step[0])
    assert not first.mask[-1].any()
    assert second.step[0].max() > 0
    whole = joined([first, second])
    ended = whole.terminated | whole.truncated
    assert not (whole.terminated & whole.truncated).any()
    # exactly the rows after an end are no steps
    np.testing.assert_array_equal(whole.mask[1:-1], ~ended[:-2])
    assert (whole.step[ended] < mdp.horizon).all()
    paid = np.zeros(COPIES)
    for t in range(len(whole.mask)):
        paid = np.where(whole.mask[t], paid + whole.reward[t], 0.0)
        np.testing.assert_allclose(whole.paid[t], paid, atol=1e-5)


def cartpole(workers):
    """Ten copies of CartPole in three shares, and the learner before the first batch."""
    environment = make_environment("CartPole-v1")
    sampler = HostSampler(environment, 10, 7, Rollouts(workers), never)
    return sampler._placement._places, sampler.begin(A2C(), A2C().make_learner(environment.spec, 7))


def equal(a, b):
    return all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def test_environments_are_restored_by_their_actions():
    """In this process and in workers; control: an action that was another."""
    places, learner = cartpole(workers=0)
    policy = learner.policy
    places.restore(policy, learner.environment, 40)
    _, unfinished = places.sample(policy, learner.environment, 0, 40, 41)
    after = places.sample(policy, unfinished, 1, 40, 41)
    for workers in (0, 2):
        places, _ = cartpole(workers)
        places.restore(policy, unfinished, 40)
        assert equal(after, places.sample(policy, unfinished, 1, 40, 41))
        places.close()
    places, _ = cartpole(workers=0)
    other = unfinished._replace(action=np.array(unfinished.action))
    other.action[range(10), unfinished.standing.step - 1] ^= 1
    places.restore(policy, other, 40)
    assert not equal(after, places.sample(policy, other, 1, 40, 41))


class Fails(gym.Env):
    """Gives NaN in its eleventh step."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        return np.zeros(1, np.float32), np.nan if self.t == 11 else 0.0, False, False, {}


def test_a_reward_that_is_not_finite_is_named():
    environment = make_environment(Fails)
    policy = A2C().make_learner(environment.spec, 0).policy
    group = LocalGroup(environment, 2)
    streams = HostStreams(environment.spec, group, Shares(range(2), 4), 16, 0, never)
    streams.restore(policy, no_episodes(policy, environment.spec, 2))
    with pytest.raises(
        Exception, match="environment 0, episode 0, step 10: reward is not finite: nan"
    ):
        streams.sample(policy, 0)
