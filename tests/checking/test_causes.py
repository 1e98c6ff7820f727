"""Causes are those that are there, or said to be unknown: losses composed from parts, whose answer
is known, and losses as people write them."""

import itertools
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from helpers import one_in

import logpi
from logpi import LogpiError

# A sample that episodes are compared in, a baseline, and a deviation: ddof, what is added to it, and
# whether that is added to the variance.
DEVIATIONS = list(itertools.product((0, 1), (1e-8, 1e-6, 1e-5, 1e-4), (False, True)))
BASELINES = {"leave-one-out": set(), "own mean": {"own-sample-baseline"}}
ADVANTAGES = list(itertools.product(("group", "batch"), BASELINES, (None, *DEVIATIONS)))
AGGREGATIONS = {
    "sum": set(),
    "mean of each": {"per-episode-1/T"},
    "all tokens": {"mean-over-all-steps"},
    "padded length": {"drgrpo-padded-len"},
    "tokens of each group": {"mean-over-group"},
}
CLIPS = ((0.1, 0.1), (0.2, 0.2), (0.25, 0.25), (0.3, 0.3), (0.2, 0.28))
RATIOS = {
    "whole product": set(),
    "none": {"old-logp-recomputed"},
    "token": {"per-step-ratio"},
    "geometric": {"gspo-ratio"},
    "cispo": {"truncated-is"},
    "dual": {"ppo-clip"},
    **{f"clip {low} {high}": {"ppo-clip"} for low, high in CLIPS},
}
COMPOSITIONS = list(itertools.product(ADVANTAGES, AGGREGATIONS, RATIOS))
ORDER = np.random.default_rng(2).permutation(len(COMPOSITIONS))


def advantage_of(score, same, baseline, deviation):
    """Of each episode; `same` says which are compared with which."""
    size = same.sum(axis=1)
    total = same @ score
    if baseline == "own mean":
        centred = score - total / size
    else:
        others = (total - score) / np.maximum(size - 1, 1)
        centred = np.where(size > 1, score - others, score)
    if deviation is None:
        return centred
    ddof, added, inside = deviation
    squares = np.array([np.sum((score[row] - score[row].mean()) ** 2) for row in same])
    variance = squares / np.maximum(size - ddof, 1)
    spread = np.sqrt(variance + added) if inside else np.sqrt(variance) + added
    return np.where(size > ddof, centred / spread, 0.0)


def of_groups(score, group, baseline):
    """The advantage that is not divided."""
    return advantage_of(score, group[:, None] == group, baseline, None)


def of_the_others(reward, mask, group):
    """The return of each episode less the mean of the others of its group."""
    return of_groups((reward * mask).sum(1), group, "leave-one-out")


def factor_of(ratio, log_ratio, mask, advantage):
    """Of each token."""
    kind, *limits = ratio.split()
    token = np.exp(log_ratio)
    whole = (log_ratio * mask).sum(axis=1, keepdims=True)
    factors = {
        "whole": np.exp(whole),
        "none": np.ones_like(token),
        "token": token,
        "geometric": np.exp(whole / mask.sum(axis=1, keepdims=True)),
        "cispo": np.clip(token, 0.8, 1.28),
    }
    if kind in factors:
        return factors[kind]
    low, high = map(float, limits or (0.2, 0.2))
    sign = advantage[:, None]
    stopped = np.where(sign > 0, token > 1 + high, token < 1 - low)
    if kind == "dual":
        stopped |= (sign < 0) & (token > 3.0)
    return np.where(stopped, 0.0, token)


def composed(advantage, aggregation, ratio) -> Callable[..., np.ndarray]:
    """Weights of ∇ log π, made of these parts."""
    sample, baseline, deviation = advantage

    def weights(log_prob, old_log_prob, reward, mask, same):
        count, length = mask.shape
        groups = (1 / same.sum(axis=1)).sum()
        found = advantage_of((reward * mask).sum(axis=1), same, baseline, deviation)
        factor = factor_of(ratio, log_prob - old_log_prob, mask, found)
        divisor = {
            "sum": count,
            "mean of each": count * mask.sum(axis=1, keepdims=True),
            "all tokens": mask.sum(),
            "padded length": count * length,
            "tokens of each group": groups * (same @ mask.sum(axis=1))[:, None],
        }[aggregation]
        return count / divisor * factor * found[:, None] * mask

    def of_group(log_prob, old_log_prob, reward, mask, group):
        return weights(log_prob, old_log_prob, reward, mask, group[:, None] == group)

    def of_batch(log_prob, old_log_prob, reward, mask):
        same = np.ones((len(mask), len(mask)), bool)
        return weights(log_prob, old_log_prob, reward, mask, same)

    return of_group if sample == "group" else of_batch


def named(report):
    """The sets of mistakes that are named as an explanation: the first, and the others."""
    first = {cause.name for cause in report.diagnosis if not cause.is_alternative}
    others = {cause.name for cause in report.diagnosis if cause.is_alternative}
    return first, others


def mistakes_of(advantage, aggregation, ratio):
    """What is wrong with a composition. A batch is one group to a loss that compares all of it; the
    own mean is a part of GRPO's advantage, and the mean over each answer one of GSPO's loss."""
    sample, baseline, deviation = advantage
    if sample == "batch" and aggregation == "tokens of each group":
        aggregation = "all tokens"
    expected = AGGREGATIONS[aggregation] | RATIOS[ratio]
    expected |= BASELINES[baseline] if deviation is None else {"grpo-std"}
    if {"gspo-ratio", "per-episode-1/T"} <= expected:
        expected -= {"per-episode-1/T"}
    return expected


def is_named_rightly(parts):
    """Whether the check names the mistakes of a composition, and no other."""
    expected = mistakes_of(*parts)
    report = logpi.check(composed(*parts), target="undiscounted")
    if not expected:
        return report.verdict == "exact"
    first, others = named(report)
    return first == expected and not others


@pytest.mark.parametrize(
    "numbers",
    [
        range(3),
        pytest.param(range(3, 18), marks=pytest.mark.slow),
        *(
            pytest.param(range(first, first + 100), marks=pytest.mark.release)
            for first in range(0, 2000, 100)
        ),
    ],
    ids=lambda numbers: f"{numbers.start}..{numbers.stop}",
)
def test_compositions_are_named_by_their_parts(numbers):
    """Of a hundred at most one is named otherwise."""
    wrong = [
        COMPOSITIONS[ORDER[number]]
        for number in numbers
        if not is_named_rightly(COMPOSITIONS[ORDER[number]])
    ]
    assert len(wrong) <= 0.01 * len(numbers), wrong


def test_a_wrong_answer_would_be_seen(monkeypatch):
    """The control: where the answer is another, the same composition fails."""
    parts = (("group", "leave-one-out", None), "mean of each", "whole product")
    assert is_named_rightly(parts)
    monkeypatch.setitem(AGGREGATIONS, "mean of each", {"mean-over-all-steps"})
    assert not is_named_rightly(parts)


def padded_value(log_prob, reward, value, mask, discount, step):
    """The next row's value is bootstrapped, also that of the padding."""
    count, length = mask.shape
    out = np.zeros(mask.shape)
    for i in range(count):
        later = 0.0
        for t in reversed(range(length)):
            after = value[i, t + 1] if t + 1 < length else 0.0
            later = mask[i, t] * (reward[i, t] + discount * after - value[i, t] + discount * later)
            out[i, t] = discount ** step[i, t] * later
    return out


def rejected(log_prob, old_log_prob, reward, mask, group):
    """What the old policy found too unlikely is left out, and stays in the mean of the others."""
    score = (reward * mask).sum(1)
    advantage = of_groups(score, group, "leave-one-out")
    kept = np.abs(((log_prob - old_log_prob) * mask).sum(1)) < 0.3
    return (kept * advantage)[:, None] * mask


def surrogate(kind):
    """Derivatives of surrogates by log π, for leave-one-out advantages."""

    def weights(log_prob, old_log_prob, reward, mask, group):
        advantage = of_the_others(reward, mask, group)[:, None]
        logs = (log_prob - old_log_prob) * mask
        ratio = np.exp(logs)
        if kind == "gspo":
            ratio = np.exp(logs.sum(1, keepdims=True) / mask.sum(1, keepdims=True))
        stopped = np.where(advantage > 0, ratio > 1.2, ratio < 0.8)
        if kind.startswith("dual"):
            stopped |= (advantage < 0) & (ratio > 3)
        if kind == "dual of all":
            stopped |= advantage > 0
        if kind == "cispo":
            return np.clip(ratio, 0.8, 1.2) * advantage * mask
        if kind == "higher":
            stopped = np.where(advantage > 0, ratio > 1.28, ratio < 0.8)
        return ~stopped * ratio * advantage * mask

    return weights


def generalised(decay, through):
    """Advantages in a rollout; `through`: the time limit is bootstrapped."""

    def weights(log_prob, reward, value, next_value, terminated, done, discount):
        out = np.zeros(reward.shape)
        later = np.zeros(reward.shape[1:])
        ends = terminated if through else done
        for t in reversed(range(len(reward))):
            delta = reward[t] + discount * next_value[t] * ~ends[t] - value[t]
            later = delta + discount * decay * ~done[t] * later
            out[t] = later
        return out

    return weights


def shifted_own_mean(log_prob, reference_log_prob, reward, mask, group):
    """The KL beside a reward whose baseline contains the own sample."""
    advantage = of_groups((reward * mask).sum(1), group, "own mean")[:, None]
    paid = ((log_prob - reference_log_prob) * mask).sum(1, keepdims=True)
    return (advantage - 0.1 * paid) * mask


def regularised(log_prob, reference_log_prob, reward, mask, group):
    paid = (reward - 0.1 * (log_prob - reference_log_prob)) * mask
    return of_groups(paid.sum(1), group, "leave-one-out")[:, None] * mask


def kl_of_tokens(log_prob, reference_log_prob, reward, mask, group):
    """Own mean as baseline, and the KL of every token by itself, twice."""
    advantage = of_groups((reward * mask).sum(1), group, "own mean")[:, None]
    return (advantage - 0.2 * (log_prob - reference_log_prob)) * mask


def grpo_with(penalty):
    """GRPO's weights, the mean over each answer included, with the KL beside them as a loss or in
    the rewards."""
    grpo = composed(("group", "own mean", (1, 1e-4, False)), "mean of each", "clip 0.2 0.2")

    def weights(log_prob, old_log_prob, reference_log_prob, reward, mask, group):
        towards = (reference_log_prob - log_prob) * mask
        paid = {
            "k1 in rewards": reward + 0.1 * towards,
            "k3 in rewards": reward - 0.1 * (np.exp(towards) - 1 - towards),
        }.get(penalty, reward)
        taken_off = {
            "k3": 1 - np.exp(towards),
            "k3 turned over": np.exp(-towards) - 1,
            "k2": -towards,
            "k1": 1.0,
        }.get(penalty, 0.0)
        plain = grpo(log_prob, old_log_prob, paid, mask, group)
        return plain - 0.1 * taken_off * mask / mask.sum(axis=1, keepdims=True)

    return weights


GRPO = {"grpo-std", "ppo-clip", "per-episode-1/T"}


@pytest.mark.parametrize(
    ("penalty", "target", "expected"),
    [
        ("k3", "regularised", {"kl-k3-loss"}),
        ("k1 in rewards", "regularised-per-step", {"kl-of-later-states"}),
        pytest.param("k1 in rewards", "regularised", set(), marks=pytest.mark.slow),
        pytest.param("k3 in rewards", "regularised", {"kl-k3-reward"}, marks=pytest.mark.slow),
        pytest.param("k3 turned over", "regularised", {"kl-k3-reversed"}, marks=pytest.mark.slow),
        pytest.param("k2", "regularised", {"kl-token-loss"}, marks=pytest.mark.slow),
        pytest.param("k1", "regularised", {"kl-k1-loss"}, marks=pytest.mark.slow),
        pytest.param("k2", "regularised-per-step", set(), marks=pytest.mark.slow),
    ],
)
def test_the_kl_beside_other_mistakes(penalty, target, expected):
    """GRPO with a KL is GRPO's mistakes and that of the KL, if it has one."""
    report = logpi.check(grpo_with(penalty), target=target)
    first, others = named(report)
    assert (first, others) == (GRPO | expected, set()), str(report)


def test_another_weight_of_the_kl_is_not_named():
    """The control: β is the one that was asked for."""
    report = logpi.check(grpo_with("k3"), target="regularised", kl_coefficient=0.2)
    assert not any(cause.is_exact for cause in report.diagnosis), str(report)


def single_precision(log_prob, reward, mask, group):
    """The mean of the group as baseline, and the mean over each answer, in float32."""
    return with_own_mean(log_prob.float(), reward.float(), mask.float(), group)


def single_inside(log_prob, reward, mask, group):
    """Rewards alone are in float32, as trainers keep them."""
    return with_own_mean(log_prob, reward.float(), mask, group)


def with_own_mean(log_prob, reward, mask, group):
    returns = (reward * mask).sum(1)
    advantage = torch.zeros_like(returns)
    for each in group.unique():
        rows = group == each
        advantage[rows] = returns[rows] - returns[rows].mean()
    return -((advantage[:, None] * log_prob * mask).sum(1) / mask.sum(1)).mean()


def masked_by(rows):
    """Weights of leave-one-out advantages times Σ log π over the rows that are chosen."""

    def weights(log_prob, reward, mask, group):
        return of_the_others(reward, mask, group)[:, None] * rows(mask)

    return weights


def unmasked(reduced):
    """A loss over padding too: a weight of padding would be nothing, its log π has a gradient."""

    def loss(log_prob, reward, mask, group):
        advantage = of_the_others(reward, mask, group)
        return -reduced(advantage[:, None] * log_prob)

    return loss


def sum_of_each(gain):
    return gain.sum(1).mean()


def unmasked_ratio(log_prob, old_log_prob, reward, mask, group):
    """The ratio of the episode runs over its padding."""
    advantage = of_the_others(reward, mask, group)
    return -(np.exp((log_prob - old_log_prob).sum(1)) * advantage).mean()


def clipped_product(log_prob, old_log_prob, reward, mask, group):
    advantage = of_the_others(reward, mask, group)
    ratio = np.exp(((log_prob - old_log_prob) * mask).sum(1))
    return -np.minimum(ratio * advantage, np.clip(ratio, 0.8, 1.2) * advantage).mean()


def of_group_over_batch(log_prob, reward, mask, group):
    """The mean of the group, and the deviation of the batch."""
    score = (reward * mask).sum(1)
    advantage = of_groups(score, group, "own mean") / (score.std(ddof=1) + 1e-4)
    return -(advantage[:, None] * log_prob * mask).sum(1).mean()


def clipped_and_corrected(log_prob, old_log_prob, sampling_log_prob, reward, mask, group):
    """PPO's clip, and what the trainer's law has over the engine's, cut at 2."""
    advantage = of_the_others(reward, mask, group)[:, None]
    ratio = np.exp(log_prob - old_log_prob)
    gain = np.minimum(ratio * advantage, np.clip(ratio, 0.8, 1.2) * advantage)
    correction = np.minimum(np.exp(old_log_prob - sampling_log_prob), 2.0)
    return -(correction * gain * mask).sum(1).mean()


def shifted(mask, rows):
    """The mask so many rows later, or earlier for negative ones."""
    out = np.zeros(mask.shape)
    if rows > 0:
        out[:, rows:] = mask[:, :-rows]
    else:
        out[:, :rows] = mask[:, -rows:]
    return out


OWN_MEAN = {"own-sample-baseline", "per-episode-1/T"}
IN_TORCH = {"target": "undiscounted", "framework": "torch"}
PLAIN_SUM = {"target": "undiscounted"}
CONTINUING = {"layout": "rollout", "target": "conventional-continuing"}
CASES = {
    "padding": (padded_value, {}, {"value-from-padding"}),
    "rejected": (rejected, {"target": "undiscounted"}, {"rejected-samples"}),
    "plain sum": (with_own_mean, {"framework": "torch"}, {*OWN_MEAN, "undiscounted-return"}),
    "gspo": (surrogate("gspo"), {"target": "undiscounted"}, {"gspo-ratio"}),
    "cispo": (surrogate("cispo"), {"target": "undiscounted"}, {"truncated-is"}),
    "dual clip": (surrogate("dual"), {"target": "undiscounted"}, {"ppo-clip"}),
    "dual clip of all": (surrogate("dual of all"), {"target": "undiscounted"}, {"dual-clip-wrong"}),
    "higher clip": (surrogate("higher"), {"target": "undiscounted"}, {"ppo-clip"}),
    "termination": (generalised(1.0, False), CONTINUING, {"trunc-as-terminal"}),
    "both": (generalised(0.95, False), CONTINUING, {"trunc-as-terminal", "gae-lambda"}),
    "lambda": (generalised(0.95, True), CONTINUING, {"gae-lambda"}),
    "kl": (shifted_own_mean, {"target": "regularised"}, {"kl-factor"}),
    "kl of tokens": (kl_of_tokens, {"target": "regularised"}, {"kl-token-loss", "kl-factor"}),
    "no mask": (unmasked(sum_of_each), PLAIN_SUM, {"masked-token-leak"}),
    "no mask in a mean": (unmasked(np.mean), PLAIN_SUM, {"masked-token-leak", "drgrpo-padded-len"}),
    "no mask in a ratio": (unmasked_ratio, PLAIN_SUM, {"masked-token-leak"}),
    "no end of text": (masked_by(partial(shifted, rows=-1)), PLAIN_SUM, {"mask-shifted"}),
    "a mask too late": (masked_by(partial(shifted, rows=1)), PLAIN_SUM, {"mask-shifted"}),
    "deviation of the batch": (of_group_over_batch, PLAIN_SUM, {"grpo-std"}),
    "clip of the product": (clipped_product, PLAIN_SUM, {"ppo-clip"}),
    "single precision": (single_precision, IN_TORCH, OWN_MEAN),
    "engine": (clipped_and_corrected, PLAIN_SUM, {"ppo-clip", "truncated-is"}),
    "single inside": (single_inside, IN_TORCH, OWN_MEAN),
}


@pytest.mark.parametrize("name", one_in(2, zip(CASES)))
def test_causes_of_losses_as_people_write_them(name):
    estimator, options, expected = CASES[name]
    report = logpi.check(estimator, **options)
    first, others = named(report)
    assert (first, others) == (expected, set()), str(report)
    assert all(cause.is_exact for cause in report.diagnosis)


def test_what_does_most_comes_first():
    """Each cause says what it does by itself."""
    report = logpi.check(generalised(0.95, False), **CONTINUING)
    truncation, decay = report.diagnosis
    assert truncation.name == "trunc-as-terminal"
    assert truncation.alone > 3 * decay.alone > 0
    assert "likely causes, which explain it together" in str(report)


@pytest.mark.parametrize(
    ("estimator", "beta", "verdict"),
    [(regularised, 0.1, "exact"), (regularised, 0.2, "biased"), (shifted_own_mean, 0.1, "biased")],
)
def test_the_target_that_stays_near_a_reference(estimator, beta, verdict):
    """J - β KL of whole sequences; what β acts as is said."""
    report = logpi.check(estimator, target="regularised", kl_coefficient=beta)
    assert report.verdict == verdict
    if verdict == "biased":
        acts = "β acts as β × 0.5" if beta == 0.2 else "β acts as β × G/(G-1)"
        assert acts in str(report)


def test_precision_is_no_licence():
    """A loss in double precision is held to 1e-6: what leaves 5e-6 is near, in single it is exact."""

    def bent(dtype):
        def weights(log_prob, reward, mask, discount, step):
            returns = np.flip(np.cumsum(np.flip(reward * mask * discount**step, 1), 1), 1)
            found = (returns + 1e-5 * np.sin(7 * returns)) * mask / mask.sum(1, keepdims=True)
            return found.astype(dtype)

        return weights

    double = logpi.check(bent(np.float64)).diagnosis[0]
    single = logpi.check(bent(np.float32)).diagnosis[0]
    assert (double.name, double.is_exact) == ("per-episode-1/T", False)
    assert (single.name, single.is_exact) == ("per-episode-1/T", True)


def test_the_bias_varies_with_the_probe():
    """Over random probes: the range contains what each of them gives, and nothing is 0 for exact."""

    def mean_over_time(log_prob, reward, mask, discount, step):
        returns = np.flip(np.cumsum(np.flip(reward * mask * discount**step, 1), 1), 1)
        return returns * mask / mask.sum(1, keepdims=True)

    def right(log_prob, reward, mask, discount, step):
        return np.flip(np.cumsum(np.flip(reward * mask * discount**step, 1), 1), 1) * mask

    few = logpi.check(mean_over_time, random_probes=3)
    many = logpi.check(mean_over_time, random_probes=12)
    assert 0 < many.bias_range[0] <= few.bias_range[0] < few.bias_range[1] <= many.bias_range[1]
    assert "on random probes" in str(many)
    assert many.to_json()["bias_range"] == many.bias_range
    assert max(logpi.check(right, random_probes=3).bias_range) < 1e-12
    assert logpi.check(right).bias_range is None
    with pytest.raises(LogpiError, match="random_probes must be a whole number"):
        logpi.check(right, random_probes=-1)


def test_what_is_near_is_called_near():
    """And only below 5 %: a weight that is nearly right, and one that is not."""

    def bent(bend):
        def weights(log_prob, reward, mask, discount, step):
            returns = np.flip(np.cumsum(np.flip(reward * mask * discount**step, 1), 1), 1)
            return (returns + bend * np.sin(7 * returns)) * mask / mask.sum(1, keepdims=True)

        return weights

    near = logpi.check(bent(0.02))
    assert "no known mistake explains it; the nearest" in str(near)
    assert near.diagnosis[0].name == "per-episode-1/T"
    assert 1e-7 < near.diagnosis[0].distance < 0.05
    far = logpi.check(bent(1.0))
    assert far.diagnosis == ()
    assert "no known mistake explains it" in str(far)


def test_what_no_probe_tells_apart_has_no_parameter():
    """Without data of another policy no clip shows; with them its ε does."""

    def clipped(log_prob, old_log_prob, reward, mask, group):
        parts = (("group", "leave-one-out", None), "sum", "clip 0.2 0.2")
        return composed(*parts)(log_prob, old_log_prob, reward, mask, group)

    report = logpi.check(clipped, target="undiscounted")
    assert "clipped ratios with ε = 0.2" in str(report)


def completions(per_token_logps, completion_mask, rewards, prompt_id):
    score = rewards - of_groups(rewards, prompt_id, "leave-one-out")
    return (rewards - score)[:, None] * completion_mask


def test_names_of_libraries_for_language_models():
    assert logpi.check(completions, target="undiscounted").verdict == "exact"
    with pytest.raises(logpi.LogpiError, match="one for each episode"):
        logpi.check(completions, layout="rollout")


def test_a_wrong_name_is_told_the_right_one():
    with pytest.raises(
        logpi.LogpiError, match="'rewrd', which does not exist; did you mean 'reward'"
    ):
        logpi.check(lambda log_prob, rewrd: log_prob)


def test_modules_and_classes():
    import torch

    class Loss(torch.nn.Module):
        def forward(self, log_prob, reward, mask):
            return -(log_prob * mask * reward.sum(1, keepdim=True)).sum(1).mean()

    assert logpi.check(Loss(), target="undiscounted").verdict == "exact"
    with pytest.raises(logpi.LogpiError, match="Loss is a class: give an instance of it"):
        logpi.check(Loss)
