"""Every estimator by its exact expected gradient: Σ over batches of p(batch) ĝ(batch), against ∇J
[D4.4].

What is tested is what is trained: the functions are those of the update.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import (
    as_trajectory,
    columns_of,
    one_in,
    plain_networks,
    random_mdp,
    tabular_policy,
)
from hypothesis import Phase, given, settings, strategies as st

from logpi import Reinforce, exact_gradient
from logpi.estimators.baselines import value_baseline
from logpi.estimators.score_function import score_function_surrogate
from logpi.methods.reinforce import policy_gradient
from logpi.networks.critic import make_value_function
from logpi.networks.parameters import as_vector
from logpi.theory.enumeration import enumerate_trajectories
from logpi.theory.exact import state_policy


def wrong_critic(mdp):
    """A value function that knows nothing: an exact one would hide mistakes."""
    import gymnasium as gym

    random = np.random.default_rng(1)
    value = make_value_function(
        gym.spaces.Discrete(mdp.observations), plain_networks(()), random, mdp.horizon
    )

    def parts(v):
        return (v.units.offset, v.units.scale, v.network.weights[-1])

    drawn = jnp.asarray(random.normal(size=value.network.weights[-1].shape))
    return eqx.tree_at(parts, value, (jnp.asarray(0.7), jnp.asarray(1.3), drawn))


def expected(mdp, logits, episodes, gradient_of_batch):
    """Σ_batch p(batch) ĝ(batch) over all batches of `episodes` trajectories."""
    enumeration = enumerate_trajectories(mdp)
    all_trajectories = as_trajectory(enumeration, mdp)
    one = jnp.asarray(enumeration.probability(state_policy(mdp, logits)))
    count = len(one)
    batches = jnp.stack([x.ravel() for x in jnp.meshgrid(*[jnp.arange(count)] * episodes)], axis=1)
    probability = jnp.prod(one[batches], axis=1)
    gradients = jax.lax.map(
        lambda batch: gradient_of_batch(columns_of(all_trajectories, batch)),
        batches,
        batch_size=4096,
    )
    return np.tensordot(probability, gradients, axes=1)


def library_gradient(config, mdp, logits):
    """ĝ of one batch by the functions of the update, with respect to the logits."""
    policy, value = (
        tabular_policy(logits),
        wrong_critic(mdp) if config.baseline == "value" else None,
    )

    def gradient(trajectory):
        return_ = config.return_of(trajectory)
        predicted = None if value is None else value_baseline(value, trajectory)
        baseline = config.baseline_of(return_, trajectory.mask, predicted, trust=0.4)
        weight = config.weight_of(trajectory, return_, baseline)
        vector, _ = policy_gradient(policy, trajectory, weight)
        return as_vector(policy)[1](vector).network.weights[0]

    return gradient


def relative_bias(mdp, logits, episodes, gradient_of_batch):
    exact = exact_gradient(mdp, logits)
    return np.linalg.norm(
        expected(mdp, logits, episodes, gradient_of_batch) - exact
    ) / np.linalg.norm(exact)


UNBIASED = [
    (1, dict(baseline="none")),
    (1, dict(baseline="none", returns="whole")),
    (1, dict(baseline="value")),
    (1, dict(baseline="value", returns="whole")),
    (2, dict(baseline="none")),
    (2, dict(baseline="value")),
    (2, dict(baseline="leave-one-out")),
    (2, dict(baseline="leave-one-out", returns="whole")),
]


@pytest.mark.parametrize(("episodes", "options"), one_in(3, UNBIASED))
@given(seed=st.integers(0, 2**32 - 1), discount=st.sampled_from([0.5, 0.9, 1.0]))
@settings(max_examples=2, deadline=None, phases=[Phase.generate])
def test_expected_gradient_is_exact(episodes, options, seed, discount):
    random = np.random.default_rng(seed)
    mdp, logits = random_mdp(random, horizon=3, discount=discount), random.normal(size=(3, 2))
    config = Reinforce(discount=discount, episodes=max(2, episodes), **options)
    assert relative_bias(mdp, logits, episodes, library_gradient(config, mdp, logits)) < 1e-10


def test_signal_and_noise_of_the_gradient_have_their_expectations(random):
    """‖∇J‖² and tr Cov(ĝ) of batches of two episodes, from the ratio and ĝ, whose square is the sum
    of both. Control: ‖ĝ‖² itself is far from ‖∇J‖².
    """
    mdp = random_mdp(random, states=3, horizon=2)
    logits = random.normal(size=(3, 2))
    policy = tabular_policy(logits)
    config = Reinforce(discount=0.9, baseline="none", episodes=2)

    def measured(trajectory):
        return_ = config.return_of(trajectory)
        weight = config.weight_of(trajectory, return_, jnp.zeros_like(return_))
        gradient, found = policy_gradient(policy, trajectory, weight)
        square = gradient @ gradient
        ratio = found["gradient_snr"]  # of two equal episodes: NaN, there is no noise
        noise = jnp.where(jnp.isnan(ratio), 0.0, square / (1 + ratio))
        return jnp.array([square - noise, noise, square, *gradient])

    signal, noise, square, *gradient = expected(mdp, logits, 2, measured)
    exact = np.sum(np.square(gradient))
    np.testing.assert_allclose(signal, exact, rtol=1e-9)
    np.testing.assert_allclose(noise, square - exact, rtol=1e-9)
    assert square > 1.5 * exact


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=2, deadline=None, phases=[Phase.generate])
def test_three_trajectories_leave_one_out(seed):
    random = np.random.default_rng(seed)
    mdp, logits = random_mdp(random, states=3, horizon=2), random.normal(size=(3, 2))
    config = Reinforce(discount=0.9, baseline="leave-one-out", episodes=3)
    assert relative_bias(mdp, logits, 3, library_gradient(config, mdp, logits)) < 1e-10


@pytest.fixture(scope="module")
def probe():
    """A fixed process on which the wrong variants below are far from right."""
    random = np.random.default_rng(5)
    return random_mdp(random, horizon=3, discount=0.7), random.normal(size=(3, 2))


@pytest.mark.parametrize(
    ("options", "least"),
    [
        (dict(drop_discount_power=True, baseline="none"), 0.02),
        (dict(whiten=True, baseline="none"), 0.1),
    ],
)
def test_options_that_say_biased_are(probe, options, least):
    mdp, logits = probe
    config = Reinforce(discount=mdp.discount, episodes=2, **options)
    assert relative_bias(mdp, logits, 2, library_gradient(config, mdp, logits)) > least


def mean_over_steps(log_prob, weight, mask):
    return jnp.sum(jnp.where(mask, weight * log_prob, 0.0)) / jnp.sum(mask)


def own_return_in_the_baseline(return_, mask):
    running = jnp.where(mask, return_, 0.0)
    return jnp.broadcast_to(
        running.sum(1, keepdims=True) / jnp.maximum(mask.sum(1, keepdims=True), 1), mask.shape
    )


def immediate_reward(trajectory):
    return trajectory.reward


@pytest.mark.parametrize("mistake", ["mean over steps", "own baseline", "immediate reward", "sign"])
def test_the_same_test_finds_mistakes(probe, mistake):
    """The controls: well-known wrong estimators, through the same sum over batches."""
    mdp, logits = probe
    config, policy = (
        Reinforce(discount=mdp.discount, baseline="none", episodes=2),
        tabular_policy(logits),
    )
    surrogate = mean_over_steps if mistake == "mean over steps" else score_function_surrogate

    def gradient(trajectory):
        return_ = (
            immediate_reward(trajectory)
            if mistake == "immediate reward"
            else config.return_of(trajectory)
        )
        baseline = (
            own_return_in_the_baseline(return_, trajectory.mask)
            if mistake == "own baseline"
            else 0 * return_
        )
        weight = config.weight_of(trajectory, return_, baseline) * (-1 if mistake == "sign" else 1)

        def objective(policy):
            log_prob = policy(trajectory.observation).log_prob(trajectory.action)
            return surrogate(log_prob, weight, trajectory.mask)

        return jax.grad(objective)(policy).network.weights[0]

    assert relative_bias(mdp, logits, 2, gradient) > 0.05


def test_the_weight_is_not_differentiated():
    """A critic that shares parameters with the policy must not receive the policy's gradient
    through the weight."""
    mask = jnp.ones((2, 1), bool)
    gradient = jax.grad(lambda w: score_function_surrogate(jnp.ones((2, 1)), w, mask))(
        jnp.ones((2, 1))
    )
    assert not gradient.any()
