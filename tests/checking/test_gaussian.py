"""Continuous actions: the integrals against others that are made differently, the verdicts against what
is known of each loss."""

import math
from functools import partial
from itertools import pairwise

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from helpers import one_in
from scipy import stats
from scipy.integrate import quad

import logpi
from logpi import LogpiError
from logpi.checking.continuous.check import GaussianTrial
from logpi.checking.continuous.process import (
    GAUSSIAN_NAMES,
    START,
    Gaussian,
    entropy,
    gradients,
    make_gaussian_probes,
)
from logpi.checking.continuous.quadrature import gaussian_rule
from logpi.checking.frameworks import make_framework
from logpi.cli import main
from logpi.core.differences import derivative

ACTIONS = ("gaussian", "tanh-gaussian")


@pytest.mark.parametrize("edges", [(), (-0.3,), (-1.5, 0.4)])
def test_a_rule_is_exact_for_polynomials(edges):
    """In each interval to the degree 2n - 1, and no further."""
    nodes = 4
    rule = gaussian_rule(edges, nodes)
    limits = [-np.inf, *edges, np.inf]
    for low, high in pairwise(limits):
        inside = (low < rule.node) & (rule.node < high)
        assert inside.sum() == nodes
        errors = []
        for power in range(2 * nodes + 1):
            moment = partial(lambda power, x: x**power * stats.norm.pdf(x), power)
            exact = quad(moment, low, high, epsabs=1e-13)[0]
            errors.append(abs(rule.weight[inside] @ rule.node[inside] ** power - exact))
        assert max(errors[:-1]) < 1e-9
        assert errors[-1] > 1e-6


@pytest.mark.parametrize("actions", one_in(2, zip(ACTIONS)))
def test_targets_are_derivatives_of_integrals(actions, unchecked):
    """J and H by adaptive integration, their gradients by differences."""
    probe = make_gaussian_probes(actions, 1, False)[0]
    table = np.concatenate([probe.policy.mean, probe.policy.log_std], axis=1)

    def integral(number, mean, std, f):
        """E[f(u)], cut where clipping begins."""
        ends = [mean - 12 * std, -1.0, 1.0, mean + 12 * std]
        return sum(
            quad(lambda u: f(u) * stats.norm.pdf(u, mean, std), low, high, epsabs=1e-12)[0]
            for low, high in pairwise(ends)
        )

    def expected(values):
        reward, information = 0.0, 0.0
        for number, (mean, log_std) in enumerate(values):
            std = math.exp(log_std)

            def pays(u, number=number):
                return float(probe.reward(np.array([number]), np.array([[u]]))[0])

            def surprise(u, mean=mean, std=std):
                # log cosh⁻² u, without overflow
                stretched = 2 * (math.log(2) - abs(u) - math.log1p(math.exp(-2 * abs(u))))
                return (stretched if actions == "tanh-gaussian" else 0.0) - stats.norm.logpdf(
                    u, mean, std
                )

            reward += START[number] * integral(number, mean, std, pays)
            information += START[number] * integral(number, mean, std, surprise)
        return reward, information

    found = gradients(probe, 0.3)
    for name, part in (("discounted", 0), ("entropy", 1)):
        by_differences = derivative(
            lambda x, part=part: np.array(expected(x)[part]), table, 2.0**-5
        )
        np.testing.assert_allclose(found[name], by_differences, atol=2e-7)
    both = found["discounted"] + 0.3 * found["entropy"]
    np.testing.assert_allclose(found["entropy-regularised"], both)
    assert START @ entropy(probe) == pytest.approx(expected(table)[1], abs=1e-8)


def test_the_variance_is_that_of_draws(random):
    """Of ĝ = r ∇ log π: the trace of the covariance within five standard errors of a sample's."""
    probe = make_gaussian_probes("gaussian", 1, False)[0]

    def weights(reward):
        return reward

    trial = GaussianTrial(make_framework("numpy", weights), ("reward",), 1.0, 0.9, 0.01)
    exact = trial.measure(probe).moments.variance
    number = 200_000
    observation = random.choice(2, size=number, p=START)
    std = np.exp(probe.policy.log_std[observation])
    raw = probe.policy.mean[observation] + std * random.normal(size=(number, 1))
    distance = (raw - probe.policy.mean[observation]) / std
    slope = np.concatenate([distance / std, distance**2 - 1], axis=1)
    drawn = np.zeros((number, 2, 2))
    drawn[np.arange(number), observation] = slope * probe.reward(observation, raw)[:, None]
    squares = np.sum((drawn - drawn.mean(axis=0)) ** 2, axis=(1, 2))
    error = squares.std() / math.sqrt(number)
    assert abs(squares.mean() - exact) < 5 * error
    assert abs(squares.mean() - 1.05 * exact) > 5 * error


def density(mean, log_std, x):
    return torch.distributions.Normal(mean, log_std.exp()).log_prob(x).sum(-1)


def drawn(mean, log_std, raw_action, reward):
    return -(density(mean, log_std, raw_action) * reward).mean()


def executed(mean, log_std, action, reward, value):
    return -(density(mean, log_std, action) * (reward - value)).mean()


def executed_in_single(mean, log_std, action, reward, value):
    return executed(*(each.float() for each in (mean, log_std, action, reward, value)))


def in_jax(mean, log_std, raw_action, reward):
    scale = jnp.exp(log_std)
    log_prob = jnp.sum(-(((raw_action - mean) / scale) ** 2) / 2 - log_std, -1)
    return -jnp.mean(log_prob * reward)


def plain_weights(reward, value):
    return reward - value


def of_the_others(log_prob, reward):
    others = (reward.sum() - reward) / (len(reward) - 1)
    return -(log_prob * (reward - others)).mean()


def own_mean(log_prob, reward):
    return -(log_prob * (reward - reward.mean())).mean()


def averaged(mean, log_std, raw_action, reward):
    log_prob = torch.distributions.Normal(mean, log_std.exp()).log_prob(raw_action)
    return -(log_prob.mean(-1) * reward).mean()


def first_dimension(mean, log_std, raw_action, reward):
    return -(density(mean[..., :1], log_std[..., :1], raw_action[..., :1]) * reward).mean()


def with_gradient(mean, log_std, raw_action, reward):
    noise = ((raw_action - mean) / log_std.exp()).detach()
    return -(density(mean, log_std, mean + log_std.exp() * noise) * reward).mean()


def ratio(mean, log_std, raw_action, reward, old_log_prob):
    return -((density(mean, log_std, raw_action) - old_log_prob).exp() * reward).mean()


def clipped(log_prob, reward, old_log_prob):
    found = (log_prob - old_log_prob).exp()
    return -torch.minimum(found * reward, found.clip(0.8, 1.2) * reward).mean()


def old_not_used(log_prob, reward, old_log_prob):
    return -(log_prob * reward).mean()


def gaussian_entropy(log_prob, log_std, reward):
    return -(log_prob * reward).mean() - 0.01 * log_std.sum(-1).mean()


def entropy_as_reward(log_prob, reward):
    return -(log_prob * (reward - 0.01 * log_prob.detach())).mean()


def entropy_given(log_prob, reward, entropy):
    return -(log_prob * reward).mean() - 0.01 * entropy.mean()


def entropy_taken_off(log_prob, reward, entropy):
    return -(log_prob * reward).mean() + 0.01 * entropy.mean()


def surprise_as_bonus(log_prob, reward):
    return -(log_prob * reward).mean() + 0.01 * log_prob.mean()


def summed(log_prob, reward, value):
    return -(log_prob * (reward - value)).sum()


def uphill(log_prob, reward):
    return (log_prob * reward).mean()


def executed_and_clipped(mean, log_std, action, reward, old_log_prob):
    found = (density(mean, log_std, action) - old_log_prob).exp()
    return -torch.minimum(found * reward, found.clip(0.8, 1.2) * reward).mean()


REGULARISED = {"target": "entropy-regularised"}


@pytest.mark.parametrize(
    ("loss", "options", "clip", "tanh"),
    one_in(
        3,
        [
            (drawn, {}, "exact", "exact"),
            (in_jax, {}, "exact", "exact"),
            (plain_weights, {}, "exact", "exact"),
            (of_the_others, {}, "exact", "exact"),
            (own_mean, {}, "scaled own-sample-baseline", "scaled own-sample-baseline"),
            (executed, {}, "biased logp-of-executed", "biased logp-of-executed"),
            (executed_in_single, {}, "biased logp-of-executed", "biased logp-of-executed"),
            (averaged, {}, "biased logp-not-summed", "biased logp-not-summed"),
            (first_dimension, {}, "biased logp-not-summed", "biased logp-not-summed"),
            (with_gradient, {}, "biased rsample-in-score", "biased rsample-in-score"),
            (ratio, {}, "exact", "biased tanh-logdet"),
            (clipped, {}, "biased ppo-clip", "biased ppo-clip"),
            (old_not_used, {}, "biased old-logp-recomputed", "biased old-logp-recomputed"),
            (gaussian_entropy, REGULARISED, "exact", "biased entropy-of-gaussian"),
            (entropy_as_reward, REGULARISED, "exact", "exact"),
            (entropy_given, REGULARISED, "exact", "exact"),
            (entropy_taken_off, REGULARISED, "biased entropy-sign", "biased entropy-sign"),
            (
                surprise_as_bonus,
                REGULARISED,
                "other-target entropy-no-grad",
                "other-target entropy-no-grad",
            ),
            (summed, {}, "scaled sum-over-episodes", "scaled sum-over-episodes"),
            (uphill, {}, "reversed policy-sign", "reversed policy-sign"),
            (
                executed_and_clipped,
                {},
                "biased logp-of-executed ppo-clip",
                "biased logp-of-executed ppo-clip",
            ),
        ],
    ),
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_verdicts_and_causes(loss, options, clip, tanh, unchecked):
    for actions, right in zip(ACTIONS, (clip, tanh), strict=True):
        report = logpi.check(loss, actions=actions, **options)
        found = [report.verdict, *(cause.name for cause in report.diagnosis)]
        assert " ".join(found) == right, (actions, str(report))


def test_what_nothing_explains_gets_no_name():
    def cubed(log_prob, reward):
        return -(log_prob * reward**3).mean()

    report = logpi.check(cubed, actions="gaussian")
    assert report.verdict == "biased"
    assert not report.diagnosis
    assert "no known mistake explains it" in str(report)


def test_the_order_of_the_integrals_is_said():
    smooth = logpi.check(plain_weights, actions="gaussian")
    edged = logpi.check(clipped, actions="gaussian")
    errors = [
        float(report.notes[0].split("differs by ")[1].split()[0]) for report in (smooth, edged)
    ]
    assert errors[0] < 1e-9 < errors[1]


@pytest.mark.parametrize(
    ("loss", "options", "message"),
    [
        (drawn, {}, "'mean', which continuous actions have: use --actions gaussian"),
        (drawn, {"actions": "beta"}, "actions must be discrete or gaussian or tanh-gaussian"),
        (lambda mean, logits: mean, {"actions": "gaussian"}, "asks for 'logits'"),
        (drawn, {"actions": "gaussian", "layout": "rollout"}, "layout has no meaning for one"),
        (drawn, {"actions": "gaussian", "state": True}, "state has no meaning for one"),
        (drawn, {"actions": "gaussian", "target": "regularised"}, "use discounted, entropy"),
        (lambda reward: reward * np.nan, {"actions": "gaussian"}, "not finite on probe one action"),
        (lambda reward: reward[:, 0], {"actions": "gaussian"}, "returned an array of shape"),
    ],
)
def test_what_cannot_be_checked_is_one_line(loss, options, message, unchecked):
    with pytest.raises(LogpiError, match=message) as error:
        logpi.check(loss, **options)
    assert "\n" not in str(error.value)


def test_everything_that_is_named_is_given():
    seen = {}

    def loss(**given):
        seen.update({name: getattr(array, "shape", ()) for name, array in given.items()})
        return given["reward"] * 1.0

    names = ", ".join(GAUSSIAN_NAMES)
    scope = {"loss": loss}
    code = f"def named({names}): return loss({', '.join(f'{n}={n}' for n in GAUSSIAN_NAMES)})"
    exec(code, scope)
    logpi.check(scope["named"], actions="tanh-gaussian", framework="numpy")
    assert seen.keys() == GAUSSIAN_NAMES.keys()
    for name in ("mean", "log_std", "raw_action", "action"):
        assert len(seen[name]) == 3
    assert seen["length"] == seen["reward"][:1]


def test_the_command(tmp_path, capsys):
    file = tmp_path / "own.py"
    file.write_text("def weights(reward, value):\n    return reward - value\n")
    assert main(["check", f"{file}:weights", "--actions", "tanh-gaussian"]) == 0
    assert "two dimensions" in capsys.readouterr().out


def test_probes_clip_and_differ():
    """Some of the law lies beyond the limits, and the older policy is another one."""
    one, _, _, older = make_gaussian_probes("gaussian", 1, True)
    points = one.points
    beyond = points.probability[np.abs(points.raw[:, 0]) > 1].sum()
    assert 0.05 < beyond < 0.5
    assert isinstance(older.acting, Gaussian)
    assert not np.array_equal(older.acting.mean, older.policy.mean)
