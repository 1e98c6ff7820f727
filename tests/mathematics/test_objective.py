"""Exact J and ∇J against independent definitions [D0, D3]."""

import json

import numpy as np
import pytest
from helpers import mdps, random_mdp
from hypothesis import given, settings, strategies as st

from logpi import (
    FiniteMDP,
    LogpiError,
    exact_gradient,
    exact_objective,
    exact_values,
    optimal_objective,
)
from logpi.theory.enumeration import enumerate_trajectories
from logpi.theory.exact import softmax, state_policy
from logpi.theory.processes import load_mdp, short_corridor

seeds = st.integers(0, 2**32 - 1)


def logits_for(mdp, seed):
    return np.random.default_rng(seed).normal(size=(mdp.observations, mdp.actions))


def enumerated_objective(mdp, logits):
    """E_τ[R(τ)] by its definition: Σ_τ p(τ) Σ_t γ^t r_{t+1}."""
    trajectories = enumerate_trajectories(mdp)
    power = mdp.discount ** np.arange(mdp.horizon)
    return trajectories.probability(state_policy(mdp, logits)) @ (power @ trajectories.reward)


@given(mdps, seeds)
@settings(max_examples=50, deadline=None)
def test_trajectories_are_all_of_them(mdp, seed):
    assert enumerate_trajectories(mdp).probability(
        state_policy(mdp, logits_for(mdp, seed))
    ).sum() == pytest.approx(1, abs=1e-12)


@given(mdps, seeds)
@settings(max_examples=50, deadline=None)
def test_objective_is_the_expected_return(mdp, seed):
    logits = logits_for(mdp, seed)
    assert exact_objective(mdp, logits) == pytest.approx(
        enumerated_objective(mdp, logits), abs=1e-12
    )


def finite_differences(mdp, logits, epsilon=1e-5):
    """Central differences of J: the error is of order epsilon², 1e-10, times third derivatives of
    order one."""
    gradient = np.zeros_like(logits)
    for index in np.ndindex(*logits.shape):
        shift = np.zeros_like(logits)
        shift[index] = epsilon
        up, down = (enumerated_objective(mdp, logits + sign * shift) for sign in (1, -1))
        gradient[index] = (up - down) / (2 * epsilon)
    return gradient


@given(mdps, seeds)
@settings(max_examples=30, deadline=None)
def test_gradient_is_the_derivative_of_the_objective(mdp, seed):
    logits = logits_for(mdp, seed)
    np.testing.assert_allclose(
        exact_gradient(mdp, logits), finite_differences(mdp, logits), rtol=0, atol=1e-8
    )


def test_finite_differences_see_a_missing_discount_power(random):
    """The control: the gradient of the undiscounted process with discounted values differs from the
    derivative."""
    mdp, logits = random_mdp(random, discount=0.5), random.normal(size=(3, 2))
    undiscounted = FiniteMDP(
        mdp.initial, mdp.transition, mdp.reward, mdp.terminal, mdp.horizon, 1.0
    )
    wrong = exact_gradient(undiscounted, logits)
    assert np.abs(wrong - finite_differences(mdp, logits)).max() > 1e-4


@given(mdps, seeds)
@settings(max_examples=30, deadline=None)
def test_no_policy_beats_the_optimum(mdp, seed):
    logits = logits_for(mdp, seed)
    assert exact_objective(mdp, logits) <= optimal_objective(mdp) + 1e-12


def test_greedy_in_a_single_step_reaches_the_optimum(random):
    mdp = random_mdp(random, horizon=1)
    values = exact_values(mdp, np.zeros((3, 2))).action[0]
    greedy = 1e3 * (values == values.max(axis=1, keepdims=True))
    assert exact_objective(mdp, greedy) == pytest.approx(optimal_objective(mdp), abs=1e-9)


@pytest.mark.parametrize(
    ("right", "value"), [(2 - 2**0.5, -(6 + 4 * 2**0.5)), (0.95, -44.2105), (0.05, -82.1053)]
)
def test_short_corridor_has_the_values_of_the_book(right, value):
    """Sutton & Barto, Example 13.1: J(p) = (2p - 4) / (p (1 - p))."""
    logits = np.log([[1 - right, right]])
    assert exact_objective(short_corridor(horizon=5000), logits) == pytest.approx(value, abs=5e-4)


def test_short_corridor_is_flat_at_its_optimum_and_nowhere_near():
    gradient = [
        exact_gradient(short_corridor(5000), np.log([[1 - p, p]]))[0, 1]
        for p in (0.5, 2 - 2**0.5, 0.7)
    ]
    assert gradient[0] > 0.1
    assert abs(gradient[1]) < 1e-9
    assert gradient[2] < -0.1


@given(mdps)
@settings(max_examples=20, deadline=None)
def test_json_gives_the_same_process(mdp):
    again = FiniteMDP.from_json(mdp.to_json())
    for field in ("initial", "transition", "reward", "terminal", "observation"):
        np.testing.assert_array_equal(getattr(again, field), getattr(mdp, field))
    assert (again.horizon, again.discount) == (mdp.horizon, mdp.discount)


def test_softmax_is_stable_for_large_logits():
    np.testing.assert_allclose(
        softmax(np.array([[1e4, 0.0], [-1e4, 0.0]])), [[1, 0], [0, 1]], atol=1e-12
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"initial": [0.5, 0.6, 0]}, "initial must be non-negative and sum to 1"),
        ({"initial": [0, 0, 1.0]}, "starts an episode in a terminal state"),
        ({"transition": [[1.0]]}, "shape"),
        ({"reward": "much"}, "reward is not an array of numbers"),
        (
            {"reward": np.full((3, 2, 3), np.inf).tolist()},
            "reward_value holds a value that is not finite",
        ),
        ({"horizon": 0}, "horizon must be a whole number"),
        ({"discount": 1.5}, r"discount must lie in \[0, 1\]"),
        ({"observation": [0, 2, 2]}, "without gaps"),
        ({"observation": [0, 0.5, 1]}, "observation is not an array of numbers"),
        ({"horizon": True}, "horizon must be a whole number"),
        ({"terminal": ["false", "true", "true"]}, "terminal is not an array of numbers"),
        ({"reward": {"value": [1.0]}}, "exactly the fields value and probability"),
        ({"colour": 1}, "unknown field 'colour'"),
    ],
)
def test_unusable_processes_are_named(random, change, message):
    fields = json.loads(random_mdp(random).to_json()) | change
    with pytest.raises(LogpiError, match=message):
        FiniteMDP.from_json(json.dumps(fields))


def test_missing_field_and_bad_json_are_named(tmp_path):
    with pytest.raises(LogpiError, match="lacks horizon"):
        FiniteMDP.from_json(
            '{"initial": [1], "transition": [[[1]]], "reward": [[[0]]], "terminal": [false]}'
        )
    path = tmp_path / "mdp.json"
    path.write_text("{")
    with pytest.raises(LogpiError, match="mdp.json is not JSON"):
        load_mdp(str(path))
    with pytest.raises(LogpiError, match="neither a JSON file nor one of short-corridor"):
        load_mdp("tall-corridor")
