"""What is checked is what is trained: `--estimator` and the library's own estimators under `logpi
check`."""

import jax
import numpy as np
import pytest

import logpi
from logpi import A2C, PPO, TRPO, LogpiError, PPOPenalty, Reinforce
from logpi.methods.library_estimators import (
    off_policy_estimator,
    on_first_step,
    reference_estimator,
    reinforce_loss,
    rollout_loss,
)

OWN = """
import jax.numpy as jnp

def to_go(reward):
    return jnp.flip(jnp.cumsum(jnp.flip(reward, 1), axis=1), 1)

def loss(log_prob, reward, mask, value):
    weight = to_go(reward) - value
    return -jnp.mean(jnp.sum(jnp.where(mask, weight * log_prob, 0.0), axis=1))

def weights(log_prob, reward, value):
    return to_go(reward) - value

def with_policy(policy, observation, action, reward, mask, value):
    log_prob = policy.log_prob(observation, action)
    return loss(log_prob, reward, mask, value)

def entropy_too(log_prob, entropy, logits, length, done, terminated, truncated, step, discount, reward, mask, value):
    return loss(log_prob, reward, mask, value) - 0.01 * jnp.mean(jnp.sum(entropy * mask, axis=1))

def wrong(log_prob, reward, mask):
    return jnp.mean(jnp.sum(to_go(reward) * log_prob * mask, axis=1))

def last(log_prob, next_value): ...
def odd(log_prob): return log_prob.sum(0)
def broken(log_prob): return log_prob.no_such_thing()
"""


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(OWN)
    return lambda name: f"{path}:{name}"


def parameters(run):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(run.policy)])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("weights", marks=pytest.mark.slow),
        pytest.param("loss", marks=pytest.mark.release),
        pytest.param("with_policy", marks=pytest.mark.release),
    ],
)
def test_the_same_formula_trains_the_same_policy(mine, tmp_path, name):
    def train(folder, **options):
        return logpi.train(
            "finite:short-corridor",
            Reinforce(hidden=(8,), episodes=8, **options),
            steps=600,
            seed=3,
            out=tmp_path / folder,
        )

    built_in, own = parameters(train("a")), parameters(train("b", estimator=mine(name)))
    start = parameters(train("c", learning_rate=1e-12))
    assert np.abs(own - built_in).max() < 1e-3 * np.abs(built_in - start).max()


@pytest.mark.release
def test_an_own_estimator_trains_a_policy_with_a_memory(mine, tmp_path):
    options = dict(hidden=(8,), episodes=8, memory="gru", memory_size=4)

    def train(folder, **more):
        return logpi.train(
            "finite:short-corridor",
            Reinforce(**options, **more),
            steps=600,
            seed=3,
            out=tmp_path / folder,
        )

    built_in, own = parameters(train("a")), parameters(train("b", estimator=mine("loss")))
    assert np.abs(own - built_in).max() < 1e-4
    assert np.abs(parameters(train("c", learning_rate=1e-12)) - built_in).max() > 1e-3
    with pytest.raises(
        LogpiError, match="asks for 'policy', which with a memory is no function of one observation"
    ):
        train("d", estimator=mine("with_policy"))


@pytest.mark.slow
def test_another_formula_trains_another_policy(mine, tmp_path):
    """The control: the estimator is really used."""

    def train(folder, **options):
        return parameters(
            logpi.train(
                "finite:short-corridor",
                Reinforce(hidden=(8,), episodes=8, **options),
                steps=300,
                out=tmp_path / folder,
            )
        )

    assert np.abs(train("a") - train("b", estimator=mine("wrong"))).max() > 1e-3


@pytest.mark.slow
def test_it_learns_on_a_host_environment_and_resumes(mine, tmp_path):
    options = Reinforce(estimator=mine("entropy_too"))
    whole = logpi.train("CartPole-v1", options, steps=12_000, seed=1, out=tmp_path / "whole")
    logpi.train("CartPole-v1", options, steps=5_000, seed=1, out=tmp_path / "parts")
    parts = logpi.resume(tmp_path / "parts", steps=12_000)
    np.testing.assert_array_equal(parameters(whole), parameters(parts))
    assert whole.evaluation.mean > 60  # a policy that has learned nothing reaches 9 to 25


@pytest.mark.parametrize(
    ("name", "baseline", "message"),
    [
        ("last", "value", "asks for 'next_value', which training does not have"),
        ("loss", "none", "asks for 'value': train with --baseline value"),
        ("odd", "value", "returned an array of shape"),
        ("broken", "value", "broken raised AttributeError"),
        ("absent", "value", "has no 'absent'"),
    ],
)
def test_unusable_estimators_are_named(mine, tmp_path, name, baseline, message):
    with pytest.raises(LogpiError, match=message):
        logpi.train(
            "finite:short-corridor",
            Reinforce(estimator=mine(name), baseline=baseline),
            steps=100,
            out=tmp_path / "run",
        )


EXACT = [
    pytest.param(dict(baseline="none"), marks=pytest.mark.slow),
    pytest.param(dict(baseline="none", returns="whole"), marks=pytest.mark.slow),
    dict(baseline="value"),
    pytest.param(dict(baseline="value", returns="whole"), marks=pytest.mark.slow),
    pytest.param(dict(baseline="leave-one-out"), marks=pytest.mark.slow),
    dict(baseline="leave-one-out", returns="whole"),
]


@pytest.mark.parametrize("options", EXACT, ids=str)
def test_our_own_estimators_are_exact(options):
    report = logpi.check(reinforce_loss(Reinforce(discount=0.9, **options)))
    assert report.verdict == "exact", str(report)
    assert report.relative_bias < 1e-10


@pytest.mark.parametrize(
    ("options", "verdict", "name"),
    [
        (dict(baseline="none", whiten=True), "biased", "whiten-batch"),
        pytest.param(
            dict(baseline="none", drop_discount_power=True),
            "other-target",
            "gamma-t-missing",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_options_that_say_biased_are_named(options, verdict, name):
    report = logpi.check(reinforce_loss(Reinforce(discount=0.9, **options)))
    assert report.verdict == verdict
    assert report.diagnosis[0].name == name


@pytest.mark.parametrize(
    "algorithm",
    [pytest.param(kind, marks=pytest.mark.slow) for kind in (A2C, PPO, PPOPenalty, TRPO)],
)
def test_the_family_is_exact_where_lambda_is_one(algorithm):
    """For the task that goes on beyond the time limit, without γ^t, whatever the critic; λ < 1
    trusts the critic."""
    exact = logpi.check(
        on_first_step(rollout_loss(algorithm(discount=0.9, trace_decay=1.0))),
        target="conventional-continuing",
    )
    assert exact.verdict == "exact"
    biased = logpi.check(
        on_first_step(rollout_loss(algorithm(discount=0.9))), target="conventional-continuing"
    )
    assert (biased.verdict, biased.diagnosis[0].name) == ("biased", "gae-lambda")


@pytest.mark.slow
@pytest.mark.parametrize("trace_decay", [0.95, 1.0])
def test_whitened_advantages_are_named(trace_decay):
    """Those of the family go on beyond the time limit. Without `whiten`, the control, no advantage
    is called so.
    """
    options = dict(discount=0.9, trace_decay=trace_decay)
    report = logpi.check(
        on_first_step(rollout_loss(PPO(whiten=True, **options))), target=PPO.target
    )
    assert [cause.name for cause in report.diagnosis if cause.is_exact] == ["whiten-batch"]
    plain = logpi.check(on_first_step(rollout_loss(PPO(**options))), target=PPO.target)
    assert "whiten-batch" not in [cause.name for cause in plain.diagnosis]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "name"),
    [
        (PPO(discount=0.9, trace_decay=1.0), "ppo-clip"),
        (PPO(discount=0.9, trace_decay=1.0, clip=float("inf")), "per-step-ratio"),
        (PPOPenalty(discount=0.9, trace_decay=1.0), "per-step-ratio"),
    ],
    ids=["ppo", "unclipped", "ppo-penalty"],
)
def test_later_steps_are_biased_by_what_the_method_does_to_the_ratio(method, name):
    """And exact on the first step. Without the clip, the control, it is another cause."""
    report = logpi.check(rollout_loss(method), target=method.target)
    assert report.verdict == "biased"
    assert [cause.name for cause in report.diagnosis if cause.is_exact] == [name]
    assert "on the first step after sampling (old policy = policy) exact" in str(report)


@pytest.mark.slow
def test_per_decision_importance_weights_are_exact():
    """Episodes of an older policy, a baseline that is wrong on purpose [D1.3]; cutting the ratios
    is what biases."""
    exact = logpi.check(off_policy_estimator(0.9))
    assert (exact.verdict, exact.target) == ("exact", "discounted")
    biased = logpi.check(off_policy_estimator(0.9, ratio_limit=1.0))
    assert biased.verdict == "biased"
    assert "truncated-is" in [cause.name for cause in biased.diagnosis]


def test_the_distance_to_a_reference_has_its_exact_gradient():
    report = logpi.check(reference_estimator(), target="reverse-kl")
    assert (report.verdict, report.target) == ("exact", "reverse-kl")
    assert logpi.check(reference_estimator(), target="reverse-kl-per-step").verdict != "exact"
