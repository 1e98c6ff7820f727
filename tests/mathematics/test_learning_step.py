"""The pieces of the update: sums over chunks, returns, baselines, the value function's fit, the
limited step."""

from dataclasses import replace

import equinox as eqx
import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import BOX, TWO, compiled_update as update, plain_networks, random_trajectory
from hypothesis import given, settings, strategies as st

from logpi import Reinforce
from logpi.core import trajectory as trajectory_module
from logpi.core.trajectory import Trajectory, map_over_time, sum_over_time
from logpi.environments.spec import EnvironmentSpec
from logpi.estimators.baselines import leave_one_out, value_baseline
from logpi.estimators.returns import (
    discount_power,
    earlier_ratio,
    lambda_return,
    reward_to_go,
    whole_return,
)
from logpi.estimators.score_function import reinforce_weight, score_function_surrogate
from logpi.methods.reinforce import mean_kl_of_episodes, policy_gradient
from logpi.methods.value_fitting import MOST_PASSES, fit_value, spread_rows
from logpi.networks.critic import make_value_function, restandardise
from logpi.networks.parameters import as_vector

seeds = st.integers(0, 2**32 - 1)


@given(seeds, st.sampled_from([1, 5, 17]), st.integers(1, 2), st.sampled_from([1, 4, 12]))
@settings(max_examples=20, deadline=None)
def test_chunks_sum_to_the_whole(seed, time, env, rows):
    """Whatever the chunk length, with rows left over or not."""
    trajectory = random_trajectory(np.random.default_rng(seed), time, env)
    rows_of = (trajectory.mask, trajectory.reward)

    def summed(chunk):
        mask, reward = chunk
        return jnp.sum(jnp.where(mask, reward, 0))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trajectory_module, "ROWS_PER_CHUNK", rows)
        total = sum_over_time(summed, rows_of, trajectory.used)
        mapped = map_over_time(lambda chunk: 2 * chunk[1], rows_of, trajectory.used)
    assert total == pytest.approx(
        float(jnp.sum(jnp.where(trajectory.mask, trajectory.reward, 0))), abs=1e-12
    )
    used = int(trajectory.used)
    np.testing.assert_allclose(mapped[:used], 2 * trajectory.reward[:used])
    assert mapped.shape == trajectory.reward.shape


@jax.jit
def both_returns(trajectory, discount):
    return reward_to_go(trajectory, discount), whole_return(trajectory, discount)


@given(seeds, st.sampled_from([0.0, 0.3, 0.99, 1.0]))
@settings(max_examples=30, deadline=None)
def test_returns_are_their_sums(seed, discount):
    """R_t = Σ_k γ^{k-t} r_{k+1} by two loops over the steps of each trajectory [D4.2], R(τ) = R_0
    [D0.3]."""
    trajectory = random_trajectory(np.random.default_rng(seed))
    reward, mask = np.asarray(trajectory.reward), np.asarray(trajectory.mask)
    expected = np.zeros_like(reward)
    for t, i in np.argwhere(mask):
        expected[t, i] = sum(
            discount ** (k - t) * reward[k, i] for k in range(t, len(reward)) if mask[k, i]
        )
    to_go, whole = both_returns(trajectory, discount)
    np.testing.assert_allclose(to_go, expected, atol=1e-12)
    np.testing.assert_allclose(whole, np.tile(expected[0], (len(reward), 1)), atol=1e-12)


compiled_lambda_return = jax.jit(lambda_return)


@given(seeds, st.sampled_from([0.0, 0.9, 1.0]), st.sampled_from([0.0, 0.6, 1.0]))
@settings(max_examples=20, deadline=None)
def test_lambda_returns_mix_the_returns_of_all_lengths(seed, discount, trace_decay):
    """(1 - λ) Σ_n λ^{n-1} G^{(n)}, G^{(n)} being n rewards and then V, nothing beyond the end; R_t
    where λ = 1."""
    random = np.random.default_rng(seed)
    trajectory = random_trajectory(random)
    reward, mask = np.asarray(trajectory.reward), np.asarray(trajectory.mask)
    value = random.normal(size=reward.shape)
    expected = np.zeros_like(reward)
    for t, i in np.argwhere(mask):
        end = mask[:, i].sum()
        n_step = [
            sum(discount**k * reward[t + k, i] for k in range(n))
            + (discount**n * value[t + n, i] if t + n < end else 0)
            for n in range(1, end - t + 1)
        ]
        weights = [(1 - trace_decay) * trace_decay ** (n - 1) for n in range(1, end - t)] + [
            trace_decay ** (end - t - 1)
        ]
        expected[t, i] = np.dot(weights, n_step)
    found = np.asarray(compiled_lambda_return(trajectory, value, discount, trace_decay))
    np.testing.assert_allclose(found[mask], expected[mask], atol=1e-10)
    if trace_decay == 1.0:
        to_go, _ = both_returns(trajectory, discount)
        np.testing.assert_allclose(found[mask], to_go[mask], atol=1e-10)


def test_discount_power():
    np.testing.assert_array_equal(discount_power(jnp.arange(4)[:, None], 0.0)[:, 0], [1, 0, 0, 0])
    np.testing.assert_allclose(
        discount_power(jnp.arange(4)[:, None], 0.5)[:, 0], [1, 0.5, 0.25, 0.125]
    )


def test_a_cut_keeps_trajectories_apart(random):
    """Two episodes in one column, the first truncated: the same returns as the two apart."""
    first, second = random_trajectory(random, 3, 1), random_trajectory(random, 3, 1)

    def whole(t, cut):
        return eqx.tree_at(
            lambda t: (t.mask, t.terminated, t.truncated),
            t,
            (jnp.ones((3, 1), bool), jnp.zeros((3, 1), bool), jnp.array([[False], [False], [cut]])),
        )

    first, second = whole(first, True), whole(second, True)
    joined = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first, second)
    apart = jnp.concatenate([reward_to_go(t, 0.9) for t in (first, second)])
    np.testing.assert_allclose(reward_to_go(joined, 0.9), apart, atol=1e-12)
    leaking = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), whole(first, False), second)
    assert np.abs(reward_to_go(leaking, 0.9) - apart).max() > 1e-3


def test_leave_one_out_is_the_mean_of_the_others(random):
    trajectory = random_trajectory(random, 6, 5)
    return_, mask = reward_to_go(trajectory, 1.0), np.asarray(trajectory.mask)
    baseline = np.asarray(leave_one_out(return_, trajectory.mask))
    for t, i in np.argwhere(mask):
        others = [float(return_[t, j]) for j in range(5) if j != i and mask[t, j]]
        assert baseline[t, i] == pytest.approx(np.mean(others) if others else 0.0, abs=1e-12)


def test_weights_and_surrogate_are_their_equations():
    """γ^t (R_t - b_t), and its mean over episodes of the steps alone."""
    row = jnp.asarray([[2.0, 3.0]])
    weight = reinforce_weight(row, jnp.full((1, 2), 0.5), jnp.full((1, 2), 0.25))
    np.testing.assert_allclose(weight, [[0.375, 0.625]], atol=1e-12)
    only_first = jnp.asarray([[True, False]])
    surrogate = score_function_surrogate(row, weight, only_first)
    assert float(surrogate) == pytest.approx(2.0 * 0.375 / 2, rel=1e-12)


def test_a_step_is_reached_by_the_decisions_before_it():
    """Π_{k<t} ρ_k: the decision at t itself is not among them, nor what stands after the end."""
    trajectory = random_trajectory(np.random.default_rng(0), 3, 1)
    mask = jnp.asarray([[True], [True], [False]])
    log_ratio = jnp.log(jnp.asarray([[2.0], [3.0], [5.0]]))
    found = earlier_ratio(trajectory._replace(mask=mask), log_ratio)
    np.testing.assert_allclose(found[:, 0], [1.0, 2.0, 6.0], rtol=1e-12)


def make_value(random, horizon=7):
    return make_value_function(BOX, plain_networks((16,)), random, horizon)


def test_restandardising_does_not_change_the_function(random):
    value, trajectory = make_value(random), random_trajectory(random)
    again = restandardise(value, 100 * reward_to_go(trajectory, 1.0) + 5, trajectory.mask)
    before, after = (v(trajectory.observation, trajectory.step) for v in (value, again))
    np.testing.assert_allclose(after, before, atol=1e-10)
    assert float(again.units.scale) != float(value.units.scale)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_minibatches_cover_the_steps_evenly_and_nothing_else(seed):
    trajectory = random_trajectory(np.random.default_rng(seed), 9, 5)
    time, env = spread_rows(jnp.sum(trajectory.mask, axis=0), jnp.arange(40 * 32))
    assert np.asarray(trajectory.mask)[np.asarray(time), np.asarray(env)].all()
    counts = np.zeros(trajectory.mask.shape)
    np.add.at(counts, (np.asarray(time), np.asarray(env)), 1)
    counts = counts[np.asarray(trajectory.mask)]
    # a Weyl sequence's discrepancy; random draws would differ by more
    assert np.abs(counts - counts.mean()).max() <= 4


def test_value_function_learns_what_can_be_known(random):
    """Returns that are a linear function of the observation are explained; noise is not."""
    trajectory = random_trajectory(random, 30, 20)
    target = 300 + 50 * trajectory.observation[..., 0] - 20 * trajectory.observation[..., 1]
    value = make_value(random, 30)
    import optax

    state = optax.scale_by_adam().init(as_vector(value)[0])

    @eqx.filter_jit
    def fit_once(value, state, target):
        return fit_value(value, state, trajectory, target, 0.01, (400, 64))[:2]

    def fit(value, state, target):
        for _ in range(4):
            value, state = fit_once(value, state, target)
        return value

    mask = np.asarray(trajectory.mask)

    def unexplained(value, target):
        error = (value(trajectory.observation, trajectory.step) - target)[mask]
        return float(error.var() / target[mask].var())

    assert unexplained(fit(value, state, target), target) < 0.01
    assert unexplained(value, target) > 0.5


def test_no_step_is_seen_more_often_than_so_many_times(random):
    """A batch of 2 to 12 steps is passed over at most a hundred times. Control: fewer minibatches
    give another V."""
    import optax

    trajectory = random_trajectory(random, 3, 4)
    target = random.normal(size=trajectory.mask.shape)
    value = make_value(random)
    state = optax.scale_by_adam().init(as_vector(value)[0])
    passes = int(np.ceil(MOST_PASSES * int(trajectory.mask.sum()) / 16))

    def fitted(minibatches):
        found, *_ = fit_value(value, state, trajectory, jnp.asarray(target), 0.01, minibatches)
        return np.asarray(as_vector(found)[0])

    np.testing.assert_array_equal(fitted((10_000, 16)), fitted((passes, 16)))
    assert not np.array_equal(fitted((passes, 16)), fitted((passes - 1, 16)))


@pytest.mark.release
def test_offset_and_scale_are_statistics_and_the_fit_stays_bounded(random):
    """Over many batches: nothing but the network is trained, or weights grow without bound as
    scales come and go."""
    import optax

    value = make_value(random, 30)
    state = optax.scale_by_adam().init(as_vector(value)[0])

    @eqx.filter_jit
    def fit(value, state, trajectory, target):
        return fit_value(value, state, trajectory, target, 0.01, (20, 64))[:2]

    for _ in range(60):
        trajectory = random_trajectory(random, 30, 8)
        return_ = random.choice([0.1, 1.0, 10.0]) * reward_to_go(trajectory, 1.0)
        value, state = fit(value, state, trajectory, return_)
        kept = return_[trajectory.mask]
        assert float(value.units.offset) == pytest.approx(float(kept.mean()), rel=1e-9, abs=1e-12)
        assert float(value.units.scale) == pytest.approx(float(kept.std()), rel=1e-9)
    weights = max(
        float(jnp.abs(w).max()) * float(value.units.scale) for w in value.network.weights[-1:]
    )
    assert weights < 100


def spec(action_space):
    return EnvironmentSpec("test", BOX, action_space, 7, None, {})


@pytest.mark.parametrize("action_space", [TWO, gym.spaces.Box(-1, 1, (2,), np.float32)])
def test_a_long_step_is_shortened_to_the_limit_and_not_turned(random, action_space):
    trajectory = random_trajectory(random, discrete=action_space is TWO)
    raw = Reinforce(learning_rate=0.003, normalize_observations=False)
    free, bound = (replace(raw, kl_limit=limit) for limit in (np.inf, 1e-5))
    learner = free.make_learner(spec(action_space), seed=1)

    def flat(policy):
        return jnp.concatenate([x.ravel() for x in jax.tree.leaves(policy)])

    steps = {
        c: flat(update(c, learner, trajectory)[0].policy) - flat(learner.policy)
        for c in (free, bound)
    }
    cosine = (
        steps[free] @ steps[bound] / jnp.linalg.norm(steps[free]) / jnp.linalg.norm(steps[bound])
    )
    assert cosine == pytest.approx(1, abs=1e-6)
    kl = {
        c: float(
            mean_kl_of_episodes(
                learner.policy, update(c, learner, trajectory)[0].policy, trajectory
            )
        )
        for c in steps
    }
    assert kl[free] > 1e-4
    assert kl[bound] == pytest.approx(1e-5, rel=0.2)  # KL is a square to leading order in the step


def test_statistics_are_frozen_within_a_batch_and_then_hold_its_steps_alone(random):
    trajectory = random_trajectory(random)
    learners = {}
    for normalize in (True, False):
        config = Reinforce(normalize_observations=normalize, learning_rate=0.003)
        learners[normalize] = update(config, config.make_learner(spec(TWO), seed=1), trajectory)[0]
    with_statistics, without = (as_vector(learner.policy)[0] for learner in learners.values())
    # before the first batch there are none
    np.testing.assert_allclose(with_statistics, without, rtol=1e-6)
    standardiser = learners[True].policy.encoder.standardiser
    steps = trajectory.observation[trajectory.mask]
    np.testing.assert_allclose(standardiser.mean, steps.mean(0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(standardiser.variance, steps.var(0), rtol=1e-9)
    padded = trajectory.observation.reshape(-1, trajectory.observation.shape[-1])
    assert not np.allclose(standardiser.variance, padded.var(0), rtol=1e-9)


def test_update_is_the_equation_for_a_table():
    """θ + α/√(ĝ²) ĝ for Adam's first step, ĝ = 1/N Σ γ^t R_t ∇ log π by hand for two one-step
    episodes [D4.3]."""
    config = Reinforce(hidden=(), baseline="none", kl_limit=np.inf, learning_rate=0.1, episodes=2)
    one_state = EnvironmentSpec("bandit", gym.spaces.Discrete(1), TWO, 1, None, {})
    learner = config.make_learner(one_state, seed=0)
    learner = eqx.tree_at(lambda x: x.policy.network.weights[0], learner, jnp.zeros((1, 2)))
    ones = jnp.ones((1, 2), bool)
    trajectory = Trajectory(
        observation=jnp.zeros((1, 2), int),
        action=jnp.array([[0, 1]]),
        reward=jnp.array([[3.0, 1.0]]),
        terminated=ones,
        truncated=~ones,
        mask=ones,
        step=jnp.zeros((1, 2), int),
        memory=jnp.zeros((2, 0)),
    )
    after, metrics = update(config, learner, trajectory)
    gradient = (3.0 * np.array([0.5, -0.5]) + 1.0 * np.array([-0.5, 0.5])) / 2
    # weights and biases
    assert metrics["gradient_norm"] == pytest.approx(2**0.5 * np.linalg.norm(gradient), rel=1e-9)
    np.testing.assert_allclose(
        after.policy.network.weights[0][0], 0.1 * np.sign(gradient), rtol=1e-5
    )
    assert metrics["episode_return"] == 2.0
    assert int(after.batch) == 1


def test_episodes_that_are_all_paid_alike_move_nothing(random):
    """While V explains nothing, its errors must not become a direction; control: a V that is
    trusted."""
    trajectory = random_trajectory(random)
    trajectory = eqx.tree_at(lambda x: x.reward, trajectory, jnp.where(trajectory.mask, -1.0, 0.0))
    ended = trajectory.mask & (trajectory.step == trajectory.mask.sum(0).min() - 1)
    mask = trajectory.step < trajectory.mask.sum(0).min()
    trajectory = eqx.tree_at(
        lambda x: (x.mask, x.terminated, x.truncated),
        trajectory,
        (mask, jnp.zeros_like(ended), ended),
    )
    config = Reinforce()
    learner = config.make_learner(spec(TWO), seed=1)
    for _ in range(3):
        after, metrics = update(config, learner, trajectory)
        assert metrics["gradient_norm"] < 1e-12
        assert after.value.units.trust == 0
        learner = after
    start = config.make_learner(spec(TWO), seed=1)  # whose V knows nothing yet
    trusting = eqx.tree_at(lambda x: x.value.units.trust, start, jnp.ones(()))
    assert update(config, trusting, trajectory)[1]["gradient_norm"] > 1e-6


def test_the_baseline_is_used_before_it_is_fitted(random):
    """b must not have seen the batch: the gradient is the one with the old V. Control: with the one
    fitted to it."""
    trajectory = random_trajectory(random)
    config = Reinforce(value_learning_rate=0.1)
    learner = config.make_learner(spec(TWO), seed=1)
    learner = eqx.tree_at(lambda x: x.value.units.trust, learner, jnp.ones(()))
    after, metrics = update(config, learner, trajectory)

    def norm_with(value):
        return_ = config.return_of(trajectory)
        weight = config.weight_of(trajectory, return_, value_baseline(value, trajectory))
        return float(jnp.linalg.norm(policy_gradient(learner.policy, trajectory, weight)[0]))

    fitted = eqx.tree_at(lambda v: v.encoder, after.value, learner.value.encoder)
    assert float(metrics["gradient_norm"]) == pytest.approx(norm_with(learner.value), rel=1e-9)
    assert abs(norm_with(fitted) - norm_with(learner.value)) > 1e-3
