"""Advantages, surrogates, the natural gradient, and the algorithms that are made of them."""

import dataclasses
import itertools
from functools import partial

import equinox as eqx
import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import BOX, TWO, compiled_update as update, one_in, random_trajectory, small_policy
from hypothesis import given, settings, strategies as st

from logpi import A2C, NPG, PPO, TRPO
from logpi.core.trajectory import Trajectory
from logpi.environments.spec import EnvironmentSpec
from logpi.estimators.returns import advantages, reward_to_go
from logpi.methods.descent import joint_loss
from logpi.methods.natural import (
    conjugate_gradient,
    fisher_vector_product,
    importance_surrogate,
    scale_by_natural_gradient,
)
from logpi.methods.reference import near_reference
from logpi.methods.registry import name_of_method
from logpi.methods.rollouts import make_rows, prepare
from logpi.networks.distributions import Categorical
from logpi.networks.parameters import as_vector
from logpi.networks.policy import make_policy

seeds = st.integers(0, 2**32 - 1)
SMALL = dict(environments=4, rollout_steps=12, hidden=(8,), anneal=())


def random_stream(random, rows=12, env=4, terminated=0.2, truncated=0.2):
    """A rollout whose episodes end at random, with the row of the reached observation after each
    end."""
    shape = (rows + 1, env)
    mask, ends, cuts = np.ones(shape, bool), np.zeros(shape, bool), np.zeros(shape, bool)
    for t in range(rows):
        ends[t] = mask[t] & (random.random(env) < terminated)
        cuts[t] = mask[t] & ~ends[t] & (random.random(env) < truncated)
        mask[t + 1] = ~(ends[t] | cuts[t])
    mask[-1] = False
    return Trajectory(
        observation=jnp.asarray(random.normal(size=(*shape, 3))),
        action=jnp.asarray(random.integers(0, 2, shape)),
        reward=jnp.asarray(random.normal(size=shape) * mask),
        terminated=jnp.asarray(ends),
        truncated=jnp.asarray(cuts),
        mask=jnp.asarray(mask),
        step=jnp.zeros(shape, jnp.int32),
        memory=jnp.zeros((env, 0)),
        paid=jnp.zeros(shape),
    )


def by_hand(stream, value, discount, trace_decay):
    """A_t = Σ_k (γλ)^k δ_{t+k}, a loop over each stretch of steps."""
    reward, mask, terminated = (
        np.asarray(x) for x in (stream.reward, stream.mask, stream.terminated)
    )
    value = np.asarray(value)
    out = np.zeros(reward.shape)
    for t, i in np.argwhere(mask):
        for k in range(t, len(mask)):
            if not mask[k, i]:
                break
            delta = (
                reward[k, i] + discount * (0 if terminated[k, i] else value[k + 1, i]) - value[k, i]
            )
            out[t, i] += (discount * trace_decay) ** (k - t) * delta
    return out


@given(seeds, st.sampled_from([0.0, 0.9, 1.0]), st.sampled_from([0.0, 0.7, 1.0]))
@settings(max_examples=20, deadline=None)
def test_advantages_are_their_sums(seed, discount, trace_decay):
    random = np.random.default_rng(seed)
    stream, value = random_stream(random), jnp.asarray(random.normal(size=(13, 4)))
    found = advantages(stream, value, discount, trace_decay)
    np.testing.assert_allclose(found, by_hand(stream, value, discount, trace_decay), atol=1e-12)


def test_a_truncation_is_valued_and_a_termination_is_not(random):
    """The control of the sums: with the two exchanged every stretch that ends inside the rollout
    changes."""
    stream, value = random_stream(random), jnp.asarray(1 + random.random((13, 4)))
    exchanged = stream._replace(terminated=stream.truncated, truncated=stream.terminated)
    assert (
        np.abs(advantages(exchanged, value, 0.9, 0.5) - by_hand(stream, value, 0.9, 0.5)).max()
        > 0.1
    )


def test_the_value_beyond_a_cut_is_that_of_the_episode_that_was_cut():
    """V_A = 1, V_B = 100, r = 0, γ = 1, cut between: the advantage is 0, not 99 (pytorch/rl
    #4209)."""
    # A, where A was cut, B, where the rollout was cut
    value = jnp.array([[1.0], [1.0], [100.0], [100.0]])
    off, mask = jnp.zeros((4, 1), bool), jnp.array([[True], [False], [True], [False]])
    zeros = jnp.zeros((4, 1))
    stream = Trajectory(
        observation=zeros,
        action=zeros,
        reward=zeros,
        terminated=off,
        truncated=mask & (jnp.arange(4)[:, None] == 0),
        mask=mask,
        step=zeros.astype(int),
        memory=jnp.zeros((1, 0)),
    )
    np.testing.assert_allclose(advantages(stream, value, 1.0, 0.95), 0.0)


def test_with_trust_in_rewards_alone_the_advantage_is_the_return_less_the_baseline(random):
    """GAE(1) of whole episodes is R_t - V(s_t) [D4.2]."""
    trajectory = random_trajectory(random)
    trajectory = eqx.tree_at(
        lambda x: (x.terminated, x.reward),
        trajectory,
        (
            trajectory.terminated | trajectory.truncated,
            jnp.where(trajectory.mask, trajectory.reward, 0.0),
        ),
    )
    value = jnp.asarray(random.normal(size=trajectory.reward.shape))
    expected = jnp.where(trajectory.mask, reward_to_go(trajectory, 0.9) - value, 0.0)
    np.testing.assert_allclose(advantages(trajectory, value, 0.9, 1.0), expected, atol=1e-12)


def test_v_trace_by_hand(random):
    """v_t - V_t = Σ_k γ^k (Π_{j<k} c_{t+j}) ρ_{t+k} δ_{t+k}, ρ = c = min(ratio, 1): the definition,
    as loops."""
    stream, value = random_stream(random), jnp.asarray(random.normal(size=(13, 4)))
    ratio = np.minimum(np.exp(random.normal(size=(13, 4))), 1.0)
    found = advantages(stream, value, 0.9, 1.0, jnp.asarray(ratio))
    reward, mask, terminated, v = (
        np.asarray(x) for x in (stream.reward, stream.mask, stream.terminated, value)
    )
    for t, i in np.argwhere(mask):
        expected, product, k = 0.0, 1.0, t
        while mask[k, i]:
            error = reward[k, i] + 0.9 * (not terminated[k, i]) * v[k + 1, i] - v[k, i]
            product *= ratio[k, i]
            expected += 0.9 ** (k - t) * product * error
            k += 1
        assert found[t, i] == pytest.approx(expected, abs=1e-12)
    assert np.abs(found - advantages(stream, value, 0.9, 1.0)).max() > 0.01


def test_later_epochs_of_a2c_are_v_trace(random):
    """Two epochs are a step by GAE and one by V-trace with the policy that the first step gave."""
    stream = random_stream(random)
    config = A2C(
        **SMALL, epochs=2, normalize_returns=False, normalize_observations=False, learning_rate=0.1
    )
    learner = config.make_learner(spec(), 0)
    found, _ = update(config, learner, stream)
    once = dataclasses.replace(config, epochs=1)
    first, _ = update(once, learner, stream)

    def log_prob(policy):
        return policy(stream.observation).log_prob(stream.action)

    ratio = jnp.minimum(jnp.exp(log_prob(first.policy) - log_prob(learner.policy)), 1.0)
    value = first.critic(stream.observation, stream.step)
    target = value + advantages(stream, value, config.discount, config.trace_decay, ratio)
    expected = descended(once, first, stream, target - value, target)
    for a, b in zip(jax.tree.leaves(found.policy), jax.tree.leaves(expected.policy), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)
    plain = advantages(stream, value, config.discount, config.trace_decay)
    wrong = descended(once, first, stream, plain, plain + value)
    assert (
        max(
            jax.tree.leaves(
                jax.tree.map(lambda a, b: jnp.abs(a - b).max(), found.policy, wrong.policy)
            )
        )
        > 1e-6
    )


@partial(jax.jit, static_argnums=0)
def descended(config, learner, stream, advantage, target):
    """One step of policy and critic along given advantages and targets."""
    memory = jnp.zeros((*stream.mask.shape, 0))
    rows = make_rows(learner.policy, stream, advantage, target, target, memory)
    return config.descend(learner, rows)[0]


def test_surrogates_agree_until_the_clip(random):
    weight, log_ratio = (
        jnp.asarray(random.normal(size=50)),
        jnp.asarray(0.05 * random.normal(size=50)),
    )
    nothing = jnp.zeros(50)
    wide = PPO(clip=0.9).surrogate(log_ratio, nothing, weight)
    np.testing.assert_allclose(wide, importance_surrogate(log_ratio, weight))
    for method in (NPG(), TRPO()):
        np.testing.assert_array_equal(method.surrogate(log_ratio, nothing, weight), wide)

    def clipped(log_ratio):
        return PPO(clip=0.2).surrogate(log_ratio, jnp.zeros(4), jnp.array([2.0, 2.0, -2.0, -2.0]))

    gradient = jax.grad(lambda log_ratio: clipped(log_ratio).sum())
    found = gradient(jnp.array([0.3, -0.3, 0.3, -0.3]))
    np.testing.assert_allclose(found != 0, [False, True, True, False])


def test_conjugate_gradient_solves(random):
    a = random.normal(size=(6, 6))
    matrix, target = jnp.asarray(a @ a.T + np.eye(6)), jnp.asarray(random.normal(size=6))

    def solve(steps):
        return conjugate_gradient(lambda v: matrix @ v, target, steps)

    np.testing.assert_allclose(solve(6), np.linalg.solve(matrix, target), atol=1e-9)
    assert np.abs(solve(1) - np.linalg.solve(matrix, target)).max() > 1e-3
    assert not np.isnan(conjugate_gradient(lambda v: matrix @ v, jnp.zeros(6), 6)).any()


def test_fisher_products_are_those_of_the_scores(random):
    """F = E[∇ log π ∇ log πᵀ], summed over the actions of a softmax."""
    parameters = jnp.asarray(random.normal(size=4))
    vector = jnp.asarray(random.normal(size=4))

    def law(parameters):
        return Categorical(jnp.tanh(parameters))

    probability = jax.nn.softmax(jnp.tanh(parameters))
    scores = jax.jacobian(lambda x: jax.nn.log_softmax(jnp.tanh(x)))(parameters)
    fisher = jnp.einsum("a,ai,aj->ij", probability, scores, scores)
    found = fisher_vector_product(law, Categorical.kl, parameters, 0.1)(vector)
    np.testing.assert_allclose(found, fisher @ vector + 0.1 * vector, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "space", "action_space"),
    [
        ({}, BOX, TWO),
        ({"memory": "gru", "memory_size": 3}, BOX, TWO),
        ({}, BOX, gym.spaces.Box(-1, 1, (2,))),
        ({"actions": "clipped-normal"}, BOX, gym.spaces.Box(-1, 1, (2,))),
        ({"actions": "tanh-normal"}, BOX, gym.spaces.Box(-1, 1, (2,))),
        ({}, BOX, gym.spaces.MultiDiscrete([2, 3])),
        pytest.param({}, gym.spaces.Box(0, 1, (64, 64, 1)), TWO, marks=pytest.mark.slow),
    ],
    ids=[
        "choice",
        "memory",
        "normal",
        "clipped-normal",
        "tanh-normal",
        "two choices",
        "image",
    ],
)
def test_fisher_products_are_the_second_derivative_of_kl(random, options, space, action_space):
    """Of the whole network, for each kind of law; control: the derivative at another place."""
    config = NPG(hidden=(5,), **options)
    policy = make_policy(space, action_space, config, random)
    parameters, rebuild = as_vector(policy)
    vector = jnp.asarray(random.normal(size=parameters.shape))
    observation = jnp.asarray(random.uniform(0, 1, size=(4, 3, *space.shape)))
    step = jnp.tile(jnp.arange(4)[:, None], (1, 3))
    memory = policy.initial_memory(3)

    def law(parameters):
        return rebuild(parameters).distributions(observation, step, memory)

    def mean_kl(one, other):
        return jnp.mean(one.kl(other))

    def curved(place):
        slope = jax.grad(lambda new: mean_kl(law(place), law(new)))
        return jax.vjp(slope, place)[1](vector)[0]

    found = fisher_vector_product(law, mean_kl, parameters, 0.0)(vector)
    np.testing.assert_allclose(found, curved(parameters), atol=1e-10)
    assert jnp.abs(found - curved(parameters + 0.1 * vector)).max() > 1e-3


def test_the_natural_gradient_of_a_softmax_is_its_advantages(random):
    """F⁻¹∇J = A(a) up to a constant (Kakade 2002), at the length that costs KL = `kl_limit`."""
    logits = jnp.asarray([0.0, 0.5, 1.0, 3.0])
    reward = jnp.asarray(random.normal([2.0, -1.0, 1.0, 0.0], 0.1))

    def kl(new):
        return jnp.sum(
            jax.nn.softmax(logits) * (jax.nn.log_softmax(logits) - jax.nn.log_softmax(new))
        )

    gradient = jax.grad(lambda x: jax.nn.softmax(x) @ reward)(logits)
    natural = scale_by_natural_gradient(1e-6, 30, 1e-10)
    step, _ = natural.update(
        gradient, optax.EmptyState(), logits, law=Categorical, divergence=Categorical.kl
    )
    step, advantage = np.asarray(step), np.asarray(reward - jax.nn.softmax(logits) @ reward)
    step, advantage = step - step.mean(), advantage - advantage.mean()
    assert step @ advantage / np.linalg.norm(step) / np.linalg.norm(advantage) == pytest.approx(
        1, abs=1e-6
    )
    assert kl(logits + step) == pytest.approx(1e-6, rel=1e-2)
    plain = np.asarray(gradient - gradient.mean())
    assert plain @ advantage / np.linalg.norm(plain) / np.linalg.norm(advantage) < 0.999


def spec():
    return EnvironmentSpec("test", BOX, TWO, 7, None, {})


def updated(config, stream, progress=0.0):
    learner = config.make_learner(spec(), seed=1)
    steps = jnp.array([100 * progress, 0], jnp.uint32)
    learner = eqx.tree_at(lambda x: x.steps, learner, steps)
    return update(config, learner, stream, budget=100)


def largest_difference(one, other):
    leaves = zip(
        jax.tree.leaves(eqx.filter(one, eqx.is_array)), jax.tree.leaves(other), strict=True
    )
    return max(float(jnp.abs(a - b).max()) for a, b in leaves)


def test_a2c_is_ppo_with_one_epoch_and_no_clip(random):
    """Parameter for parameter (Huang et al. 2022); control: two epochs."""
    stream = random_stream(random)
    common = dict(**SMALL, learning_rate=0.01, entropy_coefficient=0.01)
    a2c, _ = updated(A2C(**common), stream)
    ppo, _ = updated(PPO(**common, epochs=1, minibatches=1, clip=np.inf), stream)
    start = A2C(**common).make_learner(spec(), seed=1)
    assert largest_difference((a2c.policy, a2c.value), (ppo.policy, ppo.value)) < 1e-12
    assert largest_difference(a2c.policy, start.policy) > 1e-3
    twice, _ = updated(PPO(**common, epochs=2, minibatches=1, clip=np.inf), stream)
    assert largest_difference(a2c.policy, twice.policy) > 1e-3


def test_a_shared_trunk_is_moved_by_both_losses(random):
    """By the policy's alone as if it were its own; by the critic's alone with the policy's last
    layer at rest."""
    stream = random_stream(random)
    nothing, something = (
        jnp.zeros(stream.mask.shape),
        jnp.asarray(random.normal(size=stream.mask.shape)),
    )
    after, before = {}, {}
    for shared in (False, True):
        config = A2C(**SMALL, shared_trunk=shared)
        learner = config.make_learner(spec(), seed=1)

        def last(x):
            return x.value.network.weights[-1]  # V = 0 at the start would move nothing but this

        before[shared] = eqx.tree_at(last, learner, jnp.linspace(-1, 1, 8)[:, None])
        valued = before[shared].critic(stream.observation, stream.step)
        after[shared] = [
            descended(config, before[shared], stream, *weights).policy.network.weights
            for weights in ((something, valued), (nothing, something))
        ]
    start = before[True].policy.network.weights
    assert largest_difference(after[True][0], after[False][0]) < 1e-12
    assert largest_difference(after[True][0], start) > 1e-4
    assert largest_difference(after[True][1][0], start[0]) > 1e-4
    assert largest_difference(after[True][1][1], start[1]) < 1e-12
    assert largest_difference(after[False][1], start) < 1e-12


@pytest.mark.parametrize(("shared", "layers"), [(True, 1), (False, 2)])
def test_layers_in_common_are_applied_once(random, shared, layers):
    """To the observations of a step, so that its backward pass goes through them once."""
    config = A2C(**SMALL, shared_trunk=shared)
    learner, rows = prepare(config, config.make_learner(spec(), seed=1), random_stream(random))
    joint = joint_loss(config, learner)
    written = str(jax.make_jaxpr(joint.loss)(joint.parameters, rows))
    assert written.count("tanh") == layers


ONE_PART = dict(SMALL, environments=1, rollout_steps=8)
CUT = [
    A2C(**ONE_PART),
    A2C(**ONE_PART, epochs=3),
    PPO(**ONE_PART, epochs=3, minibatches=1),
    NPG(**ONE_PART, value_minibatches=1),
    TRPO(**ONE_PART, value_minibatches=1),
]


@pytest.mark.parametrize(
    ("config", "terminated"),
    one_in(5, itertools.product(CUT, (True, False))),
    ids=lambda value: name_of_method(value) if hasattr(value, "trace_decay") else str(value),
)
def test_a_cut_inside_equals_the_two_trajectories_apart(config, terminated, random):
    """Two episodes in one stream move every parameter as the two in streams of their own do; not so
    without the cut."""
    end = (np.arange(9) == 2)[:, None]
    mask = np.array([1, 1, 1, 0, 1, 1, 1, 1, 0], bool)[:, None]
    whole = Trajectory(
        observation=random.normal(size=(9, 1, 3)),
        action=random.integers(0, 2, (9, 1)),
        reward=random.normal(size=(9, 1)) * mask,
        terminated=end & terminated,
        truncated=end & (not terminated),
        mask=mask,
        step=np.array([0, 1, 2, 0, 0, 1, 2, 3, 4])[:, None],
        memory=np.zeros((1, 0)),
        paid=np.zeros((9, 1)),
    )
    places = np.array(
        [[0, 1, 2, 3, 3], [4, 5, 6, 7, 8]]
    ).T  # the row after the first episode twice: both no steps
    apart = jax.tree.map(lambda x: x[places, 0], whole._replace(memory=None))
    apart = apart._replace(memory=np.zeros((2, 0)))
    uncut = whole._replace(mask=np.append(np.ones((8, 1), bool), [[False]], 0))
    one, two, other = (
        updated(config, jax.tree.map(jnp.asarray, x))[0] for x in (whole, apart, uncut)
    )
    assert (
        largest_difference((one.policy, one.value.network), (two.policy, two.value.network)) < 1e-10
    )
    assert largest_difference(one.policy, other.policy) > 1e-6


@pytest.mark.parametrize(
    "config", [A2C(**SMALL), PPO(**SMALL, minibatches=4), NPG(**SMALL, value_minibatches=4)]
)
def test_rows_that_are_no_steps_change_nothing(config, random):
    """What stands in the rows between episodes is seen by the critic alone, as the state that was
    reached."""
    stream = random_stream(random)
    junk = jnp.where(stream.mask, stream.action, 1 - stream.action)
    one, _ = updated(config, stream)
    other, _ = updated(config, eqx.tree_at(lambda x: x.action, stream, junk))
    assert largest_difference(one, other) < 1e-12


@pytest.mark.parametrize(
    "config", [A2C(**SMALL), PPO(**SMALL, minibatches=4), TRPO(**SMALL, value_minibatches=4)]
)
def test_a_rollout_without_a_step_is_no_fault(config, random):
    """As when every copy begins another episode: the parameters stay numbers, the statistics stay
    what they were."""
    spec = EnvironmentSpec("test", BOX, TWO, 100, None, {})
    learner, _ = update(config, config.make_learner(spec, 0), random_stream(random))
    empty = random_stream(random)
    empty = empty._replace(
        **{name: 0 * getattr(empty, name) for name in ("terminated", "truncated", "mask", "reward")}
    )
    empty = jax.tree.map(lambda x, y: jnp.asarray(x, y.dtype), empty, random_stream(random))
    after, metrics = update(config, learner, empty)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((after.policy, after.value)))
    assert np.isfinite(metrics["gradient_norm"])
    assert largest_difference(after.policy.encoder, learner.policy.encoder) == 0
    assert largest_difference(after.value.units, learner.value.units) == 0


def test_a_reference_counts_in_every_row_of_a_stream(random, monkeypatch):
    """Rows in the middle in which no copy makes a step do not end the stream, however it is divided
    into chunks."""
    monkeypatch.setattr("logpi.core.trajectory.ROWS_PER_CHUNK", 8)
    stream = random_stream(random, rows=12, terminated=0, truncated=0)
    stream = stream._replace(mask=stream.mask.at[jnp.array([1, 3, 5, 7, 9])].set(False))
    assert int(stream.used) == 12
    policy, reference = (
        small_policy(BOX, TWO, (8,), np.random.default_rng(seed)) for seed in (0, 1)
    )
    own, other = (x(stream.observation).log_prob(stream.action) for x in (policy, reference))
    paid = near_reference(policy, reference, stream, 0.5).reward
    np.testing.assert_allclose(
        paid, jnp.where(stream.mask, stream.reward - 0.5 * (own - other), 0.0), atol=1e-12
    )


@pytest.mark.slow
def test_trpo_keeps_its_limit_and_npg_may_not(random):
    stream = random_stream(random)
    options = dict(**SMALL, value_minibatches=4, kl_limit=0.3, damping=1e-6)
    learner = TRPO(**options).make_learner(spec(), seed=1)
    rows = stream.observation[:-1]

    def fixed(policy):
        return eqx.tree_at(lambda p: p.encoder, policy, learner.policy.encoder)

    def distance(after):
        return float(learner.policy(rows).kl(fixed(after.policy)(rows))[stream.mask[:-1]].mean())

    after, bounded = updated(TRPO(**options), stream)
    assert 0 < bounded["step_scale"] < 1
    assert 0 < distance(after) <= 0.3
    assert distance(updated(NPG(**options), stream)[0]) > 0.3
    _, none = updated(
        TRPO(**options, backtracks=1), eqx.tree_at(lambda x: x.reward, stream, 0 * stream.reward)
    )
    assert np.isfinite(none["step_scale"])


@pytest.mark.parametrize("kind", [A2C, PPO, TRPO])
def test_a_rollout_is_weighed_in_units_that_have_not_seen_it(kind, random):
    """Its own scale would depend on its actions. Control: whitened, the weights are of one size
    whatever is paid."""
    stream = random_stream(random)
    paid = stream._replace(reward=100 * stream.reward)
    scale = jnp.asarray(3.0)

    def weights(stream, **options):
        parts = (
            {"minibatches": 4} if kind is PPO else {"value_minibatches": 4} if kind is TRPO else {}
        )
        config = kind(**SMALL, **parts, **options)
        learner = config.make_learner(spec(), seed=1)
        learner = eqx.tree_at(lambda x: x.value.units.scale, learner, scale)
        return prepare(config, learner, stream)[1].advantage

    for each in (stream, paid):
        expected = advantages(each, jnp.zeros(each.mask.shape), 0.99, kind().trace_decay) / scale
        np.testing.assert_allclose(weights(each), expected[:-1].reshape(1, -1), atol=1e-12)
    np.testing.assert_allclose(weights(paid, whiten=True), weights(stream, whiten=True), atol=1e-6)


def test_statistics_are_those_of_all_that_was_observed(random):
    """And the batch is treated by those of before it."""
    config = A2C(**SMALL)
    first, second = random_stream(random), random_stream(random)
    learner, _ = updated(config, first)
    learner, _ = update(config, learner, second)
    seen = np.concatenate([np.asarray(s.observation)[np.asarray(s.mask)] for s in (first, second)])
    found = learner.policy.encoder.standardiser
    np.testing.assert_allclose(found.mean, seen.mean(0), atol=1e-12)
    np.testing.assert_allclose(found.variance, seen.var(0), atol=1e-12)
    assert float(found.count) == len(seen)


def test_the_step_size_falls_with_progress(random):
    stream, config = (
        random_stream(random),
        dataclasses.replace(A2C(**SMALL), anneal=("learning_rate",)),
    )
    assert updated(config, stream, 0.25)[1]["learning_rate"] == pytest.approx(
        0.75 * config.learning_rate
    )
    start = config.make_learner(spec(), seed=1)
    assert (
        largest_difference(updated(config, stream, 1.0)[0].policy.network, start.policy.network)
        == 0
    )


def test_ppo_stops_at_its_kl(random):
    stream = random_stream(random)
    options = dict(**SMALL, learning_rate=0.05, minibatches=1, clip=np.inf)
    _, free = updated(PPO(**options, epochs=20), stream)
    _, stopped = updated(PPO(**options, epochs=20, kl_stop=0.01), stream)
    assert 0.01 < stopped["kl"] < free["kl"] / 2


def test_every_algorithm_has_its_name():
    assert [name_of_method(a) for a in (A2C(), PPO(), NPG(), TRPO())] == [
        "a2c",
        "ppo",
        "npg",
        "trpo",
    ]
