"""No false alarm: correct estimators, however written, are exact."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from correct import FORMS, jax_boolean_index
from helpers import one_in

import logpi
from logpi.checking.frameworks import find_framework
from logpi.testing import assert_exact, assert_verdict

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.mark.parametrize(
    ("estimator", "options"),
    [
        *one_in(2, FORMS),
        # evaluated batch by batch, which takes half a minute
        pytest.param(jax_boolean_index, {}, marks=pytest.mark.release),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
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
    assert len(FORMS) >= 60
    frameworks = {find_framework(estimator) for estimator, _ in FORMS}
    assert frameworks == {"numpy", "torch", "jax"}


@pytest.mark.parametrize("discount", [0.0, 0.5, 1.0])
def test_other_discounts(discount):
    def loss(log_prob, reward, discount, step):
        return np.broadcast_to(
            np.sum(discount**step * reward, axis=1, keepdims=True), log_prob.shape
        )

    assert_exact(loss, discount=discount)


def to_go(xp, reward, discount):
    power = discount ** xp.arange(reward.shape[1])
    return xp.flip(xp.cumsum(xp.flip(power * reward, 1), axis=1), 1) / power


@pytest.mark.parametrize("xp", [np, jnp])
def test_a_sampler_and_the_score_of_its_law(xp):
    """ε-greedy, scored as it acts, in either framework. Control: the score of the policy alone."""

    def greedy(logits):
        p = xp.exp(logits - logits.max(-1, keepdims=True))
        return 0.9 * p / p.sum(-1, keepdims=True) + 0.1 / logits.shape[-1]

    def loss(logits, action, reward, discount, step, mask):
        p = jnp.take_along_axis(
            0.9 * jax.nn.softmax(logits) + 0.1 / logits.shape[-1], action[..., None], -1
        )[..., 0]
        return -jnp.sum(mask * jnp.log(p) * discount**step * to_go(jnp, reward, discount)) / len(
            reward
        )

    def own_score(log_prob, reward, discount, step, mask):
        return -jnp.sum(mask * log_prob * discount**step * to_go(jnp, reward, discount)) / len(
            reward
        )

    assert_exact(loss, sampler=greedy)
    assert logpi.check(own_score, sampler=greedy).diagnosis[0].name == "eps-greedy"


@pytest.mark.slow
@pytest.mark.parametrize("clip", [0.1, 0.2, 0.3])
def test_differences_do_not_reach_across_a_clip(clip):
    """The same loss in NumPy, differentiated by differences, and in JAX."""

    def clipped(xp):
        def loss(log_prob, old_log_prob, reward, discount, step, mask):
            ratio, weight = (
                xp.exp(log_prob - old_log_prob),
                discount**step * to_go(xp, reward, discount),
            )
            gain = xp.minimum(ratio * weight, xp.clip(ratio, 1 - clip, 1 + clip) * weight)
            return -xp.sum(mask * gain) / len(reward)

        return loss

    one, other = (
        logpi.check(clipped(xp), framework=name) for xp, name in ((np, "numpy"), (jnp, "jax"))
    )
    assert one.verdict == other.verdict == "biased"
    assert one.relative_bias == pytest.approx(other.relative_bias, rel=1e-9)
    assert one.notes == other.notes
    assert one.diagnosis[0].name == other.diagnosis[0].name == "ppo-clip"


@pytest.mark.slow
def test_rounding_of_a_numpy_loss_is_no_bias():
    """Of a large constant beside it, and of single precision. Controls: a bias of one millionth;
    one of 1e-4."""

    def with_critic(log_prob, reward, value, discount, step, mask, bias=0.0):
        returns = to_go(np, reward, discount)
        weight = discount**step * (returns - value) + bias * reward
        return -np.sum(log_prob * mask * weight) / len(reward) + 0.5 * np.mean(
            (returns - value) ** 2 * mask
        )

    def biased(log_prob, reward, value, discount, step, mask):
        return with_critic(log_prob, reward, value, discount, step, mask, bias=1e-6)

    def single(log_prob, reward, discount, step, mask, bias=0.0):
        log_prob, returns = (
            log_prob.astype(np.float32),
            to_go(np, reward, discount).astype(np.float32),
        )
        weight = (discount**step * returns + bias * reward).astype(np.float32)
        return -np.sum(log_prob * mask * weight, dtype=np.float32) / np.float32(len(reward))

    def biased_single(log_prob, reward, discount, step, mask):
        return single(log_prob, reward, discount, step, mask, bias=1e-4)

    assert logpi.check(with_critic).verdict == logpi.check(single).verdict == "exact"
    assert logpi.check(biased).verdict == logpi.check(biased_single).verdict == "biased"


def test_an_entropy_that_is_taken_off_beside_a_reward():
    """The control: added, it is exact."""

    def loss(log_prob, entropy, reward, step, discount, mask, sign=-1):
        gain = log_prob * discount**step * to_go(jnp, reward, discount) + sign * 0.01 * entropy
        return -jnp.sum(mask * gain) / len(reward)

    def right(log_prob, entropy, reward, step, discount, mask):
        return loss(log_prob, entropy, reward, step, discount, mask, sign=1)

    wrong = logpi.check(loss, target="entropy-bonus")
    assert (wrong.verdict, wrong.diagnosis[0].name) == ("biased", "entropy-sign")
    assert_exact(right, target="entropy-bonus")


@pytest.mark.slow
def test_single_precision_inside_of_a_function_is_no_bias():
    """The loss itself is double. Control: a bias ten times as large as what it leaves."""

    def inside(log_prob, reward, discount, step, mask, bias=0.0):
        weight = (discount**step * to_go(np, reward, discount)).astype(np.float32)
        return -np.sum(log_prob * mask * (weight + bias * reward)) / len(reward)

    def biased(log_prob, reward, discount, step, mask):
        return inside(log_prob, reward, discount, step, mask, bias=2e-6)

    report = logpi.check(inside)
    assert report.verdict == "exact"
    assert 1e-9 < report.relative_bias < 5e-7
    assert any("single precision" in note for note in report.notes)
    assert logpi.check(biased).verdict == "biased"


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_a_critic_that_is_trained_beside_the_policy_is_no_leak(framework):
    """Its targets and weights move with the policy, but carry no gradient. Control: the advantage
    is not detached."""
    torch = pytest.importorskip("torch")
    detached = jax.lax.stop_gradient if framework == "jax" else lambda x: x.detach()
    xp = jnp if framework == "jax" else torch

    def loss(log_prob, reference_log_prob, value, mask, leak=False):
        distance = detached((reference_log_prob - log_prob) * mask)
        later = xp.cumsum(xp.flip(distance, (1,)), 1)
        later = xp.flip(later, (1,))
        advantage = later - value if leak else detached(later - value)
        gain = xp.sum(advantage * log_prob * mask) / len(mask)
        return 0.5 * xp.sum((value - later) ** 2 * mask) / len(mask) - gain

    def leaking(log_prob, reference_log_prob, value, mask):
        return loss(log_prob, reference_log_prob, value, mask, leak=True)

    assert_exact(loss, target="reverse-kl", framework=framework)
    report = logpi.check(leaking, target="reverse-kl", framework=framework)
    assert report.diagnosis[0].name == "value-leak"
    assert "value-leak: value is differentiable here" in str(report)
    assert "policy (explains" not in str(report)


@pytest.mark.parametrize("decay", [1.0, 0.5])
@pytest.mark.parametrize(
    ("target", "layout"),
    [("conventional-continuing", "rollout"), ("continuing", "batch"), ("discounted", "batch")],
)
def test_an_exact_critic_is_that_of_the_target(target, layout, decay):
    """With it every λ is exact. Control: with a wrong one only λ = 1."""
    ends = "terminated" if "continuing" in target else "done"

    def weights(log_prob, value, next_value, terminated, done, reward, discount, step):
        axis = 0 if layout == "rollout" else 1
        arrays = [np.moveaxis(x, axis, 0) for x in (reward, value, next_value, terminated, done)]
        reward, value, next_value, terminated, done = arrays
        over = terminated if ends == "terminated" else done
        advantage, later = np.zeros(reward.shape), 0.0
        for t in reversed(range(len(reward))):
            error = reward[t] + discount * next_value[t] * (1 - over[t]) - value[t]
            advantage[t] = later = error + discount * decay * (1 - done[t]) * later
        advantage = np.moveaxis(advantage, 0, axis)
        return advantage if target.startswith("conventional") else discount**step * advantage

    assert_exact(weights, target=target, layout=layout, exact_critic=True)
    assert (logpi.check(weights, target=target, layout=layout).verdict == "exact") == (decay == 1)


def test_what_a_partial_gives_stays():
    def weights(reward, discount):
        return to_go(np, reward, discount)

    assert logpi.check(partial(weights, discount=1.0)).matches == ("undiscounted",)
    assert logpi.check(weights).matches == ("conventional",)


def test_the_framework_of_a_function_inside_of_a_function():
    def factory():
        import torch as imported

        def loss(log_prob, reward, discount, step, mask):
            whole = imported.sum(discount**step * reward, 1)
            return -(whole * (log_prob * mask).sum(1)).mean()

        return loss

    report = logpi.check(factory())
    assert (report.framework, report.verdict) == ("torch", "exact")


def test_lengths_that_a_compiled_function_holds_fixed():
    @partial(jax.jit, static_argnames=("length",))
    def loss(log_prob, reward, discount, length):
        power = discount ** jnp.arange(length)
        return -jnp.sum(to_go(jnp, (power * reward)[None], 1.0)[0] * log_prob)

    assert_exact(loss, layout="episode")


@pytest.mark.parametrize("target", ["conventional", "undiscounted"])
def test_the_least_variance_is_that_of_the_target(target):
    """No baseline is better than the best; weights of an objective have the right credit."""

    def weights(log_prob, reward, discount, mask):
        return to_go(np, reward, 1.0 if target == "undiscounted" else discount) * mask

    report = logpi.check(weights, target=target, maximize=True)
    assert report.verdict == "exact"
    assert report.variance.ratio > 1
    assert report.credit.matrix[0, 0] == pytest.approx(1.0)


def test_other_targets_have_no_least_variance():
    def loss(log_prob, entropy, mask):
        return -jnp.sum(entropy * mask) / len(mask)

    report = logpi.check(loss, target="entropy")
    assert report.variance.ratio is None


def test_a_nearly_right_estimator_is_not_exact():
    """The control: a factor of 1 + 1e-7, and a bias of one millionth."""

    def scaled(log_prob, reward, discount, step):
        return (1 + 1e-7) * np.broadcast_to(
            np.sum(discount**step * reward, axis=1, keepdims=True), log_prob.shape
        )

    def biased(log_prob, reward, discount, step):
        return np.sum(discount**step * reward, axis=1, keepdims=True) + 1e-6 * reward

    assert logpi.check(scaled).verdict == "scaled"
    assert logpi.check(biased).verdict == "biased"
    with pytest.raises(AssertionError, match=r"biased is biased, not exact[\s\S]*relative bias"):
        assert_exact(biased)


def test_a_deliberate_bias_is_pinned():
    """By verdict and causes; another of either is told."""

    def centred(log_prob, reward, mask):
        score = (reward * mask).sum(1, keepdims=True)
        return (score - score.mean()) * mask

    options = {"target": "undiscounted"}
    assert_verdict(centred, "scaled", causes=["own-sample-baseline"], **options)
    with pytest.raises(AssertionError, match="is scaled, not biased"):
        assert_verdict(centred, "biased", **options)
    with pytest.raises(AssertionError, match=r"has the causes \['own-sample-baseline'\]"):
        assert_verdict(centred, "scaled", causes=["grpo-std"], **options)


def test_the_variance_is_that_of_the_estimator():
    """A whole return, against sums over trajectories written out here."""
    from logpi.checking.probes import make_probes
    from logpi.theory.enumeration import enumerate_trajectories
    from logpi.theory.exact import exact_gradient, softmax

    def whole(log_prob, reward, discount, step):
        return np.broadcast_to(
            np.sum(discount**step * reward, axis=1, keepdims=True), log_prob.shape
        )

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
