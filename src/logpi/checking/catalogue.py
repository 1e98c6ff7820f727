"""Known ways to be wrong, as weights of ∇ log π: their exact expectations are compared with what was found.

An estimator is Σ_t aggregation × γ^t × ratio × advantage × ∇ log π. Each factor has its right form and known
wrong ones; a diagnosis is a combination with few wrong factors. All functions take and give arrays [batch, episode, time].
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from logpi.checking.factors import (
    Data,
    budget,
    clip,
    clipped_reward,
    delayed,
    double_softmax,
    episodes_whitened,
    final,
    forward,
    k3,
    kept_groups,
    per_decision,
    reversed_in_time,
    same_state_mean,
    scaled_reward,
    softmax_over,
    whitened,
)


@dataclass(frozen=True)
class Entry:
    """One known mistake or deliberate bias: what it is, and what to do."""

    name: str
    explanation: str
    remedy: str
    weight: Callable[[Data], ndarray]
    needs: tuple[str, ...] = ()
    """Names without which it cannot be what the estimator does."""
    whole: bool = False
    """The weight is made of R(τ), which has its γ^t already."""


V = ("value",)
R = ("reward",)
N2 = "use a baseline without the sample's own return: leave-one-out, or a critic fitted earlier"


def _gae(decay):
    return lambda d: d.gae(decay)


ADVANTAGES: tuple[Entry, ...] = (
    Entry("correct", "R_t", "", lambda d: d.returns),
    Entry("correct", "R_t - V(s_t)", "", lambda d: d.returns - d.value, (*R, *V)),
    Entry("correct", "R(τ)", "", lambda d: d.whole * d.mask, R, whole=True),
    Entry("no-reward-sum", "the weight is the reward of one step, not the sum of rewards from there on", "sum the rewards from t to the end", lambda d: d.reward, R),
    Entry("returns-misordered", "the sum runs over the rewards before t instead of those after it", "accumulate from the last step to the first", forward, R),
    Entry("returns-misordered", "the returns are in reversed order of time", "reverse the list of returns once, after the loop", lambda d: reversed_in_time(d, d.returns), R),
    Entry("returns-misordered", "the rewards so far, in reversed order of time", "accumulate from the last step to the first", lambda d: reversed_in_time(d, forward(d)), R),
    Entry("reward-delayed", "the reward of a step is stored one row late", "store r_{t+1} in the row of a_t", delayed, R),
    Entry("own-reward-missing", "the return starts one step late, without the reward that answers a_t", "R_t includes r_{t+1}", lambda d: (d.returns - d.reward) / (d.discount or 1.0), R),
    Entry("gamma-t-twice", "the return is discounted with γ² instead of γ", "discount once per step", lambda d: d.returns_of(d.reward, d.discount**2), R),
    Entry("undiscounted-return", "the return is the plain sum while γ < 1", "discount inside the return", lambda d: d.returns_of(d.reward, 1.0), R),
    Entry("meanlogp-sumreturn", "mean of log-probabilities times sum of returns: every action is paid for all returns", "multiply step by step, then sum", lambda d: np.sum(d.returns * d.mask, 2, keepdims=True) / d.mask.sum(2, keepdims=True), R),
    Entry("sumlogp-sumreturn", "sum of log-probabilities times sum of returns: rewards are counted again for every step before them", "multiply step by step, then sum", lambda d: np.sum(d.returns * d.mask, 2, keepdims=True) * d.mask, R),
    Entry("whiten-per-episode", "returns are shifted and scaled within one episode: the baseline contains the step's own future reward", N2, whitened(Data.over_steps, lambda d: d.returns), R),
    Entry("whiten-per-episode", "the same, with the sample standard deviation", N2, whitened(Data.over_steps, lambda d: d.returns, ddof=1), R),
    Entry("whiten-per-episode", "returns are shifted by their mean within one episode", N2, lambda d: d.returns - d.over_steps(d.returns), R),
    Entry("scale-not-centred", "returns are divided by their deviation within one episode, not shifted", "do not divide by a statistic of the same sample", whitened(Data.over_steps, lambda d: d.returns, centred=False), R),
    Entry("scale-not-centred", "returns are divided by their deviation over the batch, not shifted", "do not divide by a statistic of the same sample", whitened(Data.over_batch, lambda d: d.returns, centred=False), R),
    Entry("own-sample-baseline", "the baseline is the mean return of the batch, own sample included", N2, lambda d: d.whole - d.whole.mean(axis=1, keepdims=True), R, whole=True),
    Entry("own-sample-baseline", "the baseline is the mean over the episodes running at t, own sample included", N2, lambda d: d.returns - d.over_time_step(d.returns), R),
    Entry("own-sample-baseline", "the baseline is the mean return of the prompt's group, own sample included", N2, lambda d: d.whole - d.over_group(d.whole), (*R, "group"), whole=True),
    Entry("whiten-batch", "returns are shifted by their mean over the batch", N2, lambda d: d.returns - d.over_batch(d.returns), R),
    Entry("whiten-batch", "returns are shifted and scaled over the batch (deliberate in most libraries; a bias of order 1/N)", N2, whitened(Data.over_batch, lambda d: d.returns), R),
    Entry("whiten-batch", "the same, with the sample standard deviation", N2, whitened(Data.over_batch, lambda d: d.returns, ddof=1), R),
    Entry("whiten-batch", "advantages are shifted and scaled over the batch (deliberate in most libraries; a bias of order 1/N)", N2, whitened(Data.over_batch, lambda d: d.returns - d.value), (*R, *V)),
    Entry("whiten-batch", "the same, with the sample standard deviation", N2, whitened(Data.over_batch, lambda d: d.returns - d.value, ddof=1), (*R, *V)),
    Entry("whiten-batch", "returns are shifted and scaled over the episodes running at t", N2, whitened(Data.over_time_step, lambda d: d.returns), R),
    Entry("grpo-std", "whole returns are divided by the deviation over the batch", "leave out the division: Dr. GRPO, RLOO", lambda d: episodes_whitened(d, 0), R, whole=True),
    Entry("grpo-std", "the same, with the sample standard deviation", "leave out the division: Dr. GRPO, RLOO", lambda d: episodes_whitened(d, 1), R, whole=True),
    Entry("grpo-std", "whole returns are divided by the deviation of the prompt's group: easy and hard prompts weigh more", "leave out the division: Dr. GRPO, RLOO", whitened(Data.over_group, lambda d: d.whole), (*R, "group"), whole=True),
    Entry("grpo-std", "the same, with the sample standard deviation", "leave out the division: Dr. GRPO, RLOO", whitened(Data.over_group, lambda d: d.whole, ddof=1), (*R, "group"), whole=True),
    Entry("drop-zero-variance", "groups whose rewards are all equal are left out, and the rest is averaged: prompts weigh by how often they are kept", "count every group that was sampled", kept_groups, (*R, "group"), whole=True),
    Entry("batch-fit-baseline", "the baseline was fitted to this batch before it is subtracted", N2, lambda d: d.returns - same_state_mean(d), R),
    Entry("broadcast-NxN", "shapes broadcast to [N, N]: the mean weight multiplies the mean score", "make both arrays of one shape before multiplying", lambda d: d.over_batch(d.returns) * d.mask, R),
    Entry("mean-advantage", "the advantage is averaged over the batch before it multiplies", "multiply sample by sample, then average", lambda d: d.over_batch(d.returns - d.value) * d.mask, (*R, *V)),
    Entry("broadcast-NxN", "whole returns are averaged over the batch before they multiply", "multiply sample by sample, then average", lambda d: d.whole.mean(axis=1, keepdims=True) * d.mask, R, whole=True),
    Entry("constant-weight", "the weight does not depend on what happened: E[∇ log π] = 0", "multiply by the return", lambda d: d.mask),
    Entry("boot-through-terminal", "a value is added for the state in which the episode terminated", "multiply the next value by 1 - terminated", lambda d: d.returns + final(d, d.next_value, d.terminated), R),
    Entry("boot-through-terminal", "a value is added for the state in which the episode ended, whether terminated or truncated", "multiply the next value by 1 - terminated", lambda d: d.returns + final(d, d.next_value, d.done), R),
    Entry("trunc-bootstrapped", "a value is added where the time limit cuts, which is right for the task that goes on", "choose --target continuing, or leave it out", lambda d: d.returns + final(d, d.next_value, d.truncated), R),
    Entry("trunc-wrong-state", "where the time limit cuts, the value of the last state before the end is added, not of the final one", "take the value of the true final observation", lambda d: d.returns + final(d, d.value, d.truncated), (*R, *V)),
    Entry("trunc-wrong-state", "where the episode ends, the value of the last state before the end is added", "take the value of the true final observation, and none after termination", lambda d: d.returns + final(d, d.value, d.done), (*R, *V)),
    Entry("no-cut", "the sum runs on into the next episode", "cut at every end of an episode", lambda d: d.scan(d.bootstrapped(d.reward, d.discount), d.discount, d.done & False, across=not d.rollout), R),
    Entry("no-cut", "advantages run on into the next episode, while next values are cut", "cut at every end of an episode", lambda d: d.gae(1.0, cut=d.done & False, across=not d.rollout), (*R, *V)),
    Entry("no-cut", "advantages with λ = 0.95 run on into the next episode", "cut at every end of an episode", lambda d: d.gae(0.95, cut=d.done & False, across=not d.rollout), (*R, *V)),
    Entry("cut-not-bootstrapped", "what comes after the end of the rollout counts as nothing", "add γ V(s) of the state that the rollout goes on from", lambda d: d.scan(d.reward, d.discount, d.done), R),
    Entry("done-shifted", "episodes are cut one row too late or too early", "done[t] cuts between t and t + 1", lambda d: d.scan(d.bootstrapped(d.reward, d.discount), d.discount, np.roll(d.done, -1, axis=2)), R),
    Entry("trunc-boundary-ignored", "the sum is cut where an episode terminates, not where it is truncated", "cut at terminated or truncated", lambda d: d.scan(d.bootstrapped(d.reward, d.discount), d.discount, d.terminated, across=not d.rollout), R),
    Entry("trunc-boundary-ignored", "advantages are cut where an episode terminates, not where it is truncated", "cut at terminated or truncated", lambda d: d.gae(1.0, boot=~d.terminated, cut=d.terminated, across=not d.rollout), (*R, *V)),
    *(Entry("gae-lambda", f"advantages with λ = {decay:g} and a critic that is not exact (deliberate: less variance)", "λ = 1, or accept the bias", _gae(decay), (*R, *V)) for decay in (0.0, 0.5, 0.8, 0.9, 0.92, 0.95, 0.97, 0.98, 0.99)),
    *(Entry("gae-lambda", f"advantages with λ = {decay:g} through truncation, and a critic that is not exact (deliberate: less variance)", "λ = 1, or accept the bias", lambda d, decay=decay: d.gae(decay, boot=~d.terminated), (*R, *V)) for decay in (0.0, 0.5, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99)),
    *(Entry("whiten-batch", f"advantages with λ = {decay:g}, shifted and scaled over the batch (deliberate in most libraries)", N2, whitened(Data.over_batch, lambda d, decay=decay: d.gae(decay), ddof=ddof), (*R, *V)) for decay in (0.9, 0.95, 0.97) for ddof in (0, 1)),
    Entry("overlong-filter", "episodes that the time limit cut are left out: short ones are preferred", "count every episode that was started", lambda d: d.returns * ~d.truncated.any(axis=2, keepdims=True), R),
    *(Entry("step-budget-stopping", f"whole episodes are taken until {least} steps are there: the last one is length-biased", "fix the number of episodes", budget(least), R) for least in (2, 3, 4)),
    Entry("reward-clip", "rewards are replaced by their sign: another objective", "leave the rewards as they are", lambda d: d.returns_of(np.sign(d.reward), d.discount), R),
    Entry("reward-clip", "rewards are clipped to [-1, 1]: another objective", "leave the rewards as they are", clipped_reward(-1.0, 1.0), R),
    Entry("normalize-reward", "rewards are divided by a deviation of the same batch", "divide by a constant, or by statistics of earlier batches", scaled_reward, R),
    Entry("masked-token-leak", "padding enters the mean that is subtracted", "take means over the mask", lambda d: (d.returns - d.returns.mean(axis=(1, 2), keepdims=True)) * d.mask, R),
    Entry("masked-token-leak", "padding enters the mean and the deviation", "take statistics over the mask", lambda d: (d.returns - d.returns.mean(axis=(1, 2), keepdims=True)) / (d.returns.std(axis=(1, 2), keepdims=True) + 1e-8) * d.mask, R),
    *(Entry("prob-floor", f"the score vanishes where π(a) is below {floor:g}", "use log_softmax; no floor", lambda d, f=floor: d.returns * (d.log_prob > np.log(f)), R) for floor in (1e-8, 1e-6, 1e-5)),
    *(Entry("prob-floor", f"{floor:g} is added inside the logarithm", "use log_softmax; nothing added", lambda d, f=floor: d.returns / (1 + f * np.exp(-d.log_prob)), R) for floor in (1e-10, 1e-8, 1e-7, 1e-6, 1e-5)),
)  # fmt: skip


POWERS: tuple[Entry, ...] = (
    Entry("power", "γ^t", "", lambda d: d.discount ** d.fields["step"]),
    Entry("gamma-t-missing", "γ^t is missing, as in most libraries (deliberate): the gradient of no objective", "multiply by γ^t, or check against --target conventional", lambda d: np.ones_like(d.mask)),
    Entry("gamma-t-twice", "γ^t is applied twice", "apply γ^t once", lambda d: d.discount ** (2 * d.fields["step"])),
)  # fmt: skip


@dataclass(frozen=True)
class Ratio:
    """How old data are weighted."""

    name: str
    explanation: str
    remedy: str
    apply: Callable[[Data, ndarray], ndarray]


_PRODUCT = "multiply by the product of the ratios up to the reward (per decision)"


def _length_root(d):
    return np.prod(d.ratio, axis=2, keepdims=True) ** (1 / d.fields["length"][:, :, None])


RATIOS: tuple[Ratio, ...] = (
    Ratio("importance", "per-decision importance weights", "", per_decision),
    Ratio("old-logp-recomputed", "the ratio is 1 whatever policy acted: old_log_prob is not used, or computed anew", _PRODUCT, lambda d, a: a),
    Ratio("per-step-ratio", "only the ratio of the step itself (PPO, GRPO; deliberate): right on the first step after sampling only", _PRODUCT, lambda d, a: a * d.ratio),
    *(Ratio("ppo-clip", f"clipped ratios with ε = {e:g} (deliberate): right on the first step after sampling only", _PRODUCT, clip(e)) for e in (0.1, 0.2, 0.25, 0.3)),
    Ratio("gspo-ratio", "the geometric mean of the ratios (GSPO; deliberate)", _PRODUCT, lambda d, a: a * _length_root(d)),
    Ratio("gspo-ratio", "the geometric mean of the ratios, and its derivative shared by length (GSPO; deliberate)", _PRODUCT, lambda d, a: a * _length_root(d) / d.fields["length"][:, :, None]),
    *(Ratio("truncated-is", f"the product of ratios is cut at {c:g} (deliberate: less variance)", _PRODUCT, lambda d, a, c=c: a * np.minimum(np.prod(d.ratio, 2, keepdims=True), c)) for c in (1.0, 1.5, 2.0, 5.0)),
    *(Ratio("truncated-is", f"the ratio of the step is cut at {c:g} (deliberate: less variance)", _PRODUCT, lambda d, a, c=c: a * np.minimum(d.ratio, c)) for c in (1.0, 1.5, 2.0, 5.0)),
    *(Ratio("clip-wrong", f"the ratio is clipped to 1 ± {e:g} before it meets the advantage: no pessimistic minimum", "min(ρ A, clip(ρ) A)", lambda d, a, e=e: a * d.ratio * (np.abs(d.ratio - 1) < e)) for e in (0.1, 0.2, 0.3)),
    *(Ratio("clip-wrong", f"min(ρ, clip(ρ)) × A with ε = {e:g}: the minimum is taken before the advantage", "min(ρ A, clip(ρ) A)", lambda d, a, e=e: a * d.ratio * (d.ratio < 1 + e)) for e in (0.1, 0.2, 0.3)),
    Ratio("inverse-ratio", "the ratio is upside down", "π over the law that acted", lambda d, a: a / d.ratio),
)  # fmt: skip

AGGREGATIONS: tuple[Entry, ...] = (
    Entry("sum", "sum over t, mean over episodes", "", lambda d: d.mask),
    Entry("masked-token-leak", "padded rows have weight too: the mask is not applied", "multiply by the mask", lambda d: np.ones_like(d.mask)),
    Entry("per-episode-1/T", "the mean over the steps of each episode: long episodes weigh less", "sum over t, mean over episodes", lambda d: d.mask / d.mask.sum(2, keepdims=True)),
    Entry("mean-over-all-steps", "the mean over all steps of the batch: only nearly a constant factor, as lengths vary", "sum over t, mean over episodes", lambda d: d.mask.shape[1] * d.mask / d.mask.sum((1, 2), keepdims=True)),
    Entry("drgrpo-padded-len", "the mean includes padding: the factor depends on the longest episode of the batch", "sum over t, mean over episodes", lambda d: d.mask / d.mask.shape[2]),
)  # fmt: skip


@dataclass(frozen=True)
class Score:
    """What stands in place of ∇ log π: the derivative of a weighted score by the logits [batch, episode, time, A]."""

    name: str
    explanation: str
    remedy: str
    by_logits: Callable[[ndarray, Data, ndarray], ndarray]


SCORES: tuple[Score, ...] = (
    Score("score", "∇ log π(a_t|s_t)", "", lambda logits, d, weight: weight),
    Score("double-softmax", "probabilities are passed where logits are expected: a second softmax", "pass logits to log_softmax, once", double_softmax),
    Score("softmax-wrong-axis", "the softmax runs over the episodes of the batch, not over the actions", "softmax over the last axis", softmax_over(1)),
    Score("softmax-wrong-axis", "the softmax runs over time, not over the actions", "softmax over the last axis", softmax_over(2)),
)  # fmt: skip

KL: tuple[Entry, ...] = (
    Entry("kl-k1-loss", "log π - log reference as a loss: its expected gradient is zero", "k1 as a reward, with the rewards to go", lambda d: -d.mask, ("reference_log_prob",)),
    Entry("kl-k3-loss", "the k3 estimate as a loss: the gradient of the forward KL(reference, π) of each state (deliberate in GRPO)", "k1 as a reward, or check against --target forward-kl-per-step", lambda d: d.mask * (np.exp(d.fields["reference_log_prob"] - d.log_prob) - 1), ("reference_log_prob",)),
    Entry("kl-k3-reward", "k3 only as a reward: the part through the sample itself is missing", "k1 as a reward", lambda d: -d.scan(k3(d), 1.0, d.done), ("reference_log_prob",)),
    Entry("kl-token-loss", "the KL of each step without its effect on later states", "k1 as a reward, with the rewards to go", lambda d: -d.mask * (d.log_prob - d.fields["reference_log_prob"]), ("reference_log_prob",)),
)  # fmt: skip
