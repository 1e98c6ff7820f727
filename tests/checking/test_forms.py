"""No false alarm: correct estimators, however written, are exact."""

import numpy as np
import pytest
from correct import FORMS

import logpi
from logpi.testing import assert_exact


@pytest.mark.parametrize(("estimator", "options"), FORMS, ids=lambda x: getattr(x, "__name__", ""))
def test_correct_estimators_are_exact(estimator, options):
    report = logpi.check(estimator, **options)
    assert report.verdict == "exact", str(report)
    assert report.relative_bias < 1e-10
    assert report.diagnosis == ()
    assert report.target in report.matches
    if report.credit is not None and report.target == "discounted":
        np.testing.assert_allclose(report.credit.matrix, report.credit.correct, rtol=0, atol=1e-10)
        assert report.credit.residual < 1e-10


def test_there_are_many_forms():
    assert len(FORMS) >= 25
    assert {logpi.check(e, **o).framework for e, o in (FORMS[0], FORMS[8], FORMS[-1])} == {"numpy", "torch", "jax"}


@pytest.mark.parametrize("discount", [0.0, 0.5, 1.0])
def test_other_discounts(discount):
    def loss(log_prob, reward, discount, step):
        return np.broadcast_to(np.sum(discount**step * reward, axis=1, keepdims=True), log_prob.shape)

    assert_exact(loss, discount=discount)


def test_a_nearly_right_estimator_is_not_exact():
    """The control: a factor of 1 + 1e-7, and a bias of one millionth."""

    def scaled(log_prob, reward, discount, step):
        return (1 + 1e-7) * np.broadcast_to(np.sum(discount**step * reward, axis=1, keepdims=True), log_prob.shape)

    def biased(log_prob, reward, discount, step):
        return np.sum(discount**step * reward, axis=1, keepdims=True) + 1e-6 * reward

    assert logpi.check(scaled).verdict == "scaled"
    assert logpi.check(biased).verdict == "biased"
    with pytest.raises(AssertionError, match=r"biased is not exact[\s\S]*relative bias"):
        assert_exact(biased)


def test_the_variance_is_that_of_the_estimator():
    """A whole return, against sums over trajectories written out here."""
    from logpi.checking.probes import make_probes
    from logpi.enumeration import enumerate_trajectories
    from logpi.objective import exact_gradient, softmax

    def whole(log_prob, reward, discount, step):
        return np.broadcast_to(np.sum(discount**step * reward, axis=1, keepdims=True), log_prob.shape)

    probe = make_probes(0.9).stop
    every, policy = enumerate_trajectories(probe.mdp), softmax(probe.logits)
    second, probability = 0.0, every.probability(policy)
    for i, p in enumerate(probability):
        score = np.zeros_like(policy)
        for t in np.flatnonzero(every.mask[:, i]):
            score[every.state[t, i]] -= policy[every.state[t, i]]
            score[every.state[t, i], every.action[t, i]] += 1
        total = sum(0.9**t * every.reward[t, i] for t in range(3))
        second += p * np.sum((total * score) ** 2)
    trace = second - np.sum(exact_gradient(probe.mdp, probe.logits) ** 2)
    report = logpi.check(whole)
    assert report.variance.episodes == 2
    assert report.variance.trace == pytest.approx(trace / 2, rel=1e-10)
    assert report.variance.ratio > 1


def test_the_least_variance_is_reached_by_no_other_baseline(random):
    """No random state baseline is better; the one that the minimum is about cannot be beaten."""
    table = np.zeros(9)

    def with_baseline(log_prob, observation, reward, discount, step, mask):
        power = discount**step
        to_go = np.cumsum((power * reward)[:, ::-1], axis=1)[:, ::-1]
        return to_go - power * table[observation]

    for _ in range(20):
        table[:] = 2 * random.normal(size=9)
        variance = logpi.check(with_baseline).variance
        assert variance.ratio >= 1 - 1e-12
        assert variance.trace == pytest.approx(variance.ratio * variance.least)
