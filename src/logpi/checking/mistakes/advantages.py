"""What stands in place of R_t: returns, advantages, and the known ways to get them wrong."""

from collections.abc import Callable
from operator import attrgetter
from typing import TypeAlias

import numpy as np
from numpy import ndarray

from logpi.checking.mistakes.batches import Batches, Weight, sample_size, whitened
from logpi.checking.mistakes.forms import Factor, Mistake

Compute: TypeAlias = Callable[[Batches], ndarray]
ADVANTAGES: Factor[Compute] = Factor()

REWARD = ("reward",)
CRITIC = ("reward", "value")
GROUP = ("reward", "group")

LEAVE_OUT = (
    "use a baseline without the sample's own return: leave-one-out, or a critic fitted earlier"
)
SUM_LAST = "multiply sample by sample, then average"
CUT = "cut at every end of an episode"
SAMPLE_DEVIATION = "with the sample standard deviation (ddof = 1, PyTorch's default)"
# By ddof, where one form stands for both.
BY_DEVIATION = ("", f" {SAMPLE_DEVIATION}")


@ADVANTAGES.right()
def reward_to_go(batches: Batches) -> Weight:
    """R_t."""
    return batches.returns


@ADVANTAGES.right(CRITIC)
def reward_to_go_less_value(batches: Batches) -> Weight:
    """R_t - V(s_t)."""
    return batches.advantage


@ADVANTAGES.right(REWARD, whole=True)
def whole_return(batches: Batches) -> Weight:
    """R(τ)."""
    return batches.whole


@ADVANTAGES.mistake(
    "no-reward-sum",
    "the weight is the reward of one step, not the sum of rewards from there on",
    "sum the rewards from t to the end",
    REWARD,
)
def reward_of_one_step(batches: Batches) -> Weight:
    return batches.reward


@ADVANTAGES.mistake(
    "returns-misordered",
    "the sum runs over the rewards before t instead of those after it",
    "accumulate from the last step to the first",
    REWARD,
)
def rewards_so_far(batches: Batches) -> Weight:
    out = np.zeros_like(batches.reward)
    before = np.zeros(batches.reward.shape[:2])
    for t in range(batches.reward.shape[2]):
        before = batches.reward[:, :, t] + batches.discount * before
        out[:, :, t] = before
    return out


@ADVANTAGES.mistake(
    "returns-misordered",
    "the returns are in reversed order of time",
    "reverse the list of returns once, after the loop",
    REWARD,
)
def returns_reversed(batches: Batches) -> Weight:
    return reversed_in_time(batches, batches.returns)


@ADVANTAGES.mistake(
    "returns-misordered",
    "the sum runs over the rewards so far, and stands in reversed order of time",
    "accumulate from the last step to the first",
    REWARD,
)
def rewards_so_far_reversed(batches: Batches) -> Weight:
    return reversed_in_time(batches, rewards_so_far(batches))


def reversed_in_time(batches: Batches, x: ndarray) -> ndarray:
    """Each episode back to front."""
    index = np.clip(batches.length - 1 - np.arange(x.shape[2]), 0, None)
    return np.take_along_axis(x, np.broadcast_to(index, x.shape), axis=2)


@ADVANTAGES.mistake(
    "reward-delayed",
    "the reward of a step is stored one row late",
    "store r_{t+1} in the row of a_t",
    REWARD,
)
def reward_one_row_late(batches: Batches) -> Weight:
    late = np.zeros_like(batches.reward)
    late[:, :, 1:] = batches.reward[:, :, :-1]
    return batches.returns_of(late, batches.discount)


@ADVANTAGES.mistake(
    "own-reward-missing",
    "the return starts one step late, without the reward that answers a_t",
    "R_t includes r_{t+1}",
    REWARD,
)
def return_without_own_reward(batches: Batches) -> Weight:
    return (batches.returns - batches.reward) / (batches.discount or 1.0)


@ADVANTAGES.mistake(
    "gamma-t-twice",
    "the return is discounted with γ² instead of γ",
    "discount once per step",
    REWARD,
)
def return_discounted_twice(batches: Batches) -> Weight:
    return batches.returns_of(batches.reward, batches.discount**2)


@ADVANTAGES.mistake(
    "undiscounted-return",
    "the return is the plain sum while γ < 1",
    "discount inside the return",
    REWARD,
)
def undiscounted_return(batches: Batches) -> Weight:
    return batches.returns_of(batches.reward, 1.0)


@ADVANTAGES.mistake(
    "meanlogp-sumreturn",
    "mean of log-probabilities times sum of returns: every action is paid for all returns",
    "multiply step by step, then sum",
    REWARD,
)
def sum_of_returns_by_mean_score(batches: Batches) -> Weight:
    steps = batches.mask.sum(2, keepdims=True)
    return np.sum(batches.returns * batches.mask, 2, keepdims=True) / steps


@ADVANTAGES.mistake(
    "sumlogp-sumreturn",
    "sum of log-probabilities times sum of returns: rewards are counted again for every step"
    " before them",
    "multiply step by step, then sum",
    REWARD,
)
def sum_of_returns_by_sum_of_scores(batches: Batches) -> Weight:
    return np.sum(batches.returns * batches.mask, 2, keepdims=True) * batches.mask


@ADVANTAGES.mistake(
    "whiten-per-episode",
    "returns are shifted and scaled within one episode: the baseline contains the step's own"
    " future reward",
    LEAVE_OUT,
    REWARD,
)
def whitened_within_episode(batches: Batches) -> Weight:
    return whitened(batches, batches.returns, Batches.over_steps)


@ADVANTAGES.mistake(
    "whiten-per-episode",
    f"returns are shifted and scaled within one episode {SAMPLE_DEVIATION}: the baseline contains"
    " the step's own future reward",
    LEAVE_OUT,
    REWARD,
)
def whitened_within_episode_by_sample(batches: Batches) -> Weight:
    return whitened(batches, batches.returns, Batches.over_steps, ddof=1)


@ADVANTAGES.mistake(
    "whiten-per-episode",
    "returns are shifted by their mean within one episode",
    LEAVE_OUT,
    REWARD,
)
def centred_within_episode(batches: Batches) -> Weight:
    return batches.returns - batches.over_steps(batches.returns)


@ADVANTAGES.mistake(
    "scale-not-centred",
    "returns are divided by their deviation within one episode, not shifted",
    "do not divide by a statistic of the same sample",
    REWARD,
)
def scaled_within_episode(batches: Batches) -> Weight:
    return whitened(batches, batches.returns, Batches.over_steps, centred=False)


@ADVANTAGES.mistake(
    "scale-not-centred",
    "returns are divided by their deviation over the batch, not shifted",
    "do not divide by a statistic of the same sample",
    REWARD,
)
def scaled_over_batch(batches: Batches) -> Weight:
    return whitened(batches, batches.returns, Batches.over_batch, centred=False)


@ADVANTAGES.mistake(
    "own-sample-baseline",
    "the baseline is the mean over the episodes running at t, own sample included",
    LEAVE_OUT,
    REWARD,
)
def return_less_mean_at_t(batches: Batches) -> Weight:
    return batches.returns - batches.over_time_step(batches.returns)


@ADVANTAGES.mistake(
    "whiten-batch", "returns are shifted by their mean over the batch", LEAVE_OUT, REWARD
)
def centred_over_batch(batches: Batches) -> Weight:
    return batches.returns - batches.over_batch(batches.returns)


@ADVANTAGES.mistake(
    "whiten-batch",
    "returns are shifted and scaled over the batch (deliberate in most libraries; a bias of order"
    " 1/N)",
    LEAVE_OUT,
    REWARD,
)
def whitened_over_batch(batches: Batches) -> Weight:
    return whitened(batches, batches.returns, Batches.over_batch)


@ADVANTAGES.mistake(
    "whiten-batch",
    f"returns are shifted and scaled over the batch {SAMPLE_DEVIATION} (deliberate in most"
    " libraries; a bias of order 1/N)",
    LEAVE_OUT,
    REWARD,
)
def whitened_over_batch_by_sample(batches: Batches) -> Weight:
    return whitened(batches, batches.returns, Batches.over_batch, ddof=1)


def _weights_whitened(ddof: int) -> Compute:
    def weight(batches: Batches) -> Weight:
        power = batches.discount ** batches.fields["step"]
        return whitened(batches, power * batches.returns, Batches.over_batch, ddof=ddof)

    return weight


for _ddof in (0, 1):
    ADVANTAGES.mistake(
        "whiten-batch",
        f"the weights γ^t R_t are shifted and scaled over the batch{BY_DEVIATION[_ddof]} (a bias of"
        " order 1/N)",
        LEAVE_OUT,
        REWARD,
        whole=True,
    )(_weights_whitened(_ddof))


@ADVANTAGES.mistake(
    "whiten-batch",
    "advantages are shifted and scaled over the batch (deliberate in most libraries; a bias of"
    " order 1/N)",
    LEAVE_OUT,
    CRITIC,
)
def advantage_whitened_over_batch(batches: Batches) -> Weight:
    return whitened(batches, batches.advantage, Batches.over_batch)


@ADVANTAGES.mistake(
    "whiten-batch",
    f"advantages are shifted and scaled over the batch {SAMPLE_DEVIATION} (deliberate in most"
    " libraries; a bias of order 1/N)",
    LEAVE_OUT,
    CRITIC,
)
def advantage_whitened_over_batch_by_sample(batches: Batches) -> Weight:
    return whitened(batches, batches.advantage, Batches.over_batch, ddof=1)


def _whitened_inside(of: Callable[[Batches], Weight]) -> Compute:
    """With what keeps the division from 0 inside of the root, as verl and TRL have it."""

    def weight(batches: Batches) -> Weight:
        return whitened(batches, of(batches), Batches.over_batch, ddof=1, inside=True)

    return weight


for _name, _of, _needs in (
    ("returns", attrgetter("returns"), REWARD),
    ("advantages", attrgetter("advantage"), CRITIC),
):
    ADVANTAGES.mistake(
        "whiten-batch",
        f"{_name} are shifted and scaled over the batch {SAMPLE_DEVIATION} (deliberate in most"
        " libraries; a bias of order 1/N)",
        LEAVE_OUT,
        _needs,
    )(_whitened_inside(_of))


@ADVANTAGES.mistake(
    "whiten-batch",
    "returns are shifted and scaled over the episodes running at t",
    LEAVE_OUT,
    REWARD,
)
def whitened_at_t(batches: Batches) -> Weight:
    return whitened(batches, batches.returns, Batches.over_time_step)


@ADVANTAGES.mistake(
    "drop-zero-variance",
    "groups whose rewards are all equal are left out, and the rest is averaged: prompts weigh by"
    " how often they are kept",
    "count every group that was sampled",
    GROUP,
    whole=True,
)
def unequal_groups_alone(batches: Batches) -> Weight:
    middle = batches.over_group(batches.whole)
    size = sample_size(batches, Batches.over_group)
    kept = batches.over_group((batches.whole - middle) ** 2) > 1e-18
    share = kept.shape[1] / np.maximum(kept.sum(axis=1, keepdims=True), 1)
    left_out = (batches.whole - middle) * size / np.maximum(size - 1, 1)
    return left_out * kept * share * batches.mask


@ADVANTAGES.mistake(
    "batch-fit-baseline",
    "the baseline was fitted to this batch before it is subtracted",
    LEAVE_OUT,
    REWARD,
)
def return_less_mean_of_state(batches: Batches) -> Weight:
    """A table of mean returns by observation, fitted to the batch."""
    count = len(batches.mask)
    seen = batches.fields["observation"].reshape(count, -1)
    mask = batches.mask.reshape(count, 1, -1)
    flat = (batches.returns * batches.mask).reshape(count, -1)
    same = (seen[:, :, None] == seen[:, None, :]) * mask
    fitted = np.einsum("bij,bj->bi", same, flat) / np.maximum(same.sum(2), 1)
    return batches.returns - fitted.reshape(batches.mask.shape)


@ADVANTAGES.mistake(
    "broadcast-NxN",
    "shapes broadcast to [N, N]: the mean weight multiplies the mean score",
    "make both arrays of one shape before multiplying",
    REWARD,
)
def mean_return(batches: Batches) -> Weight:
    return batches.over_batch(batches.returns) * batches.mask


@ADVANTAGES.mistake(
    "mean-advantage",
    "the advantage is averaged over the batch before it multiplies",
    SUM_LAST,
    CRITIC,
)
def mean_advantage(batches: Batches) -> Weight:
    return batches.over_batch(batches.advantage) * batches.mask


@ADVANTAGES.mistake(
    "broadcast-NxN",
    "whole returns are averaged over the batch before they multiply",
    SUM_LAST,
    REWARD,
    whole=True,
)
def mean_whole_return(batches: Batches) -> Weight:
    return batches.whole.mean(axis=1, keepdims=True) * batches.mask


@ADVANTAGES.mistake(
    "constant-weight",
    "the weight does not depend on what happened: E[∇ log π] = 0",
    "multiply by the return",
)
def constant(batches: Batches) -> Weight:
    return batches.mask


@ADVANTAGES.mistake(
    "boot-through-terminal",
    "a value is added for the state in which the episode terminated",
    "multiply the next value by 1 - terminated",
    REWARD,
)
def bootstrapped_through_termination(batches: Batches) -> Weight:
    return batches.returns + final(batches, batches.next_value, batches.terminated)


@ADVANTAGES.mistake(
    "boot-through-terminal",
    "a value is added for the state in which the episode ended, whether terminated or truncated",
    "multiply the next value by 1 - terminated",
    REWARD,
    goes_on=None,
)
def bootstrapped_through_every_end(batches: Batches) -> Weight:
    return batches.returns + final(batches, batches.next_value, batches.done)


@ADVANTAGES.right(REWARD, goes_on=True)
def bootstrapped_through_truncation(batches: Batches) -> Weight:
    """R_t, and V where the time limit cuts."""
    return batches.returns + final(batches, batches.next_value, batches.truncated)


@ADVANTAGES.mistake(
    "trunc-wrong-state",
    "where the time limit cuts, the value of the last state before the end is added, not of the"
    " final one",
    "take the value of the true final observation",
    CRITIC,
    goes_on=None,
)
def bootstrapped_by_the_state_before_truncation(batches: Batches) -> Weight:
    return batches.returns + final(batches, batches.value, batches.truncated)


@ADVANTAGES.mistake(
    "trunc-wrong-state",
    "where the episode ends, the value of the last state before the end is added",
    "take the value of the true final observation, and none after termination",
    CRITIC,
    goes_on=None,
)
def bootstrapped_by_the_state_before_the_end(batches: Batches) -> Weight:
    return batches.returns + final(batches, batches.value, batches.done)


def final(batches: Batches, x: ndarray, where: ndarray) -> Weight:
    """γ^{T-t} x at the end of the episode, where it ended in that way."""
    last = np.where(where, batches.discount * x, 0.0)
    return batches.scan(last, batches.discount, batches.done)


@ADVANTAGES.mistake("no-cut", "the sum runs on into the next episode", CUT, REWARD)
def return_never_cut(batches: Batches) -> Weight:
    delta = batches.bootstrapped(batches.reward, batches.discount)
    return batches.scan(delta, batches.discount, batches.never, across=not batches.rollout)


@ADVANTAGES.mistake(
    "no-cut",
    "advantages run on into the next episode, while next values are cut",
    CUT,
    CRITIC,
)
def advantage_never_cut(batches: Batches) -> Weight:
    return batches.gae(1.0, cut=batches.never, across=not batches.rollout)


@ADVANTAGES.mistake("no-cut", "advantages with λ = 0.95 run on into the next episode", CUT, CRITIC)
def decayed_advantage_never_cut(batches: Batches) -> Weight:
    return batches.gae(0.95, cut=batches.never, across=not batches.rollout)


@ADVANTAGES.mistake(
    "cut-not-bootstrapped",
    "what comes after the end of the rollout counts as nothing",
    "add γ V(s) of the state that the rollout goes on from",
    REWARD,
)
def return_of_the_rollout_alone(batches: Batches) -> Weight:
    return batches.scan(batches.reward, batches.discount, batches.done)


@ADVANTAGES.mistake(
    "done-shifted",
    "episodes are cut one row too late or too early",
    "done[t] cuts between t and t + 1",
    REWARD,
)
def return_cut_one_row_off(batches: Batches) -> Weight:
    delta = batches.bootstrapped(batches.reward, batches.discount)
    return batches.scan(delta, batches.discount, np.roll(batches.done, -1, axis=2))


@ADVANTAGES.mistake(
    "trunc-boundary-ignored",
    "the sum is cut where an episode terminates, not where it is truncated",
    "cut at terminated or truncated",
    REWARD,
    goes_on=None,
)
def return_through_truncation(batches: Batches) -> Weight:
    delta = batches.bootstrapped(batches.reward, batches.discount)
    across = not batches.rollout
    return batches.scan(delta, batches.discount, batches.terminated, across=across)


@ADVANTAGES.mistake(
    "trunc-boundary-ignored",
    "advantages are cut where an episode terminates, not where it is truncated",
    "cut at terminated or truncated",
    CRITIC,
    goes_on=None,
)
def advantage_through_truncation(batches: Batches) -> Weight:
    return batches.gae(
        1.0, boot=~batches.terminated, cut=batches.terminated, across=not batches.rollout
    )


@ADVANTAGES.mistake(
    "value-from-padding",
    "the critic's value in the padding is taken for that of the state after the last step",
    "multiply the next value by the mask of its own row",
    CRITIC,
)
def bootstrapped_from_padding(batches: Batches) -> Weight:
    after = np.zeros_like(batches.value)
    after[:, :, :-1] = batches.value[:, :, 1:]
    delta = batches.reward + batches.discount * after - batches.value
    return batches.scan(delta, batches.discount, batches.never)


def _advantage_with(decay: float) -> Compute:
    def advantage(batches: Batches) -> Weight:
        return batches.gae(decay)

    return advantage


def _advantage_through_truncation_with(decay: float) -> Compute:
    def advantage(batches: Batches) -> Weight:
        return batches.gae(decay, boot=~batches.terminated)

    return advantage


def _whitened_by(advantage: Compute, ddof: int) -> Compute:
    def weight(batches: Batches) -> Weight:
        return whitened(batches, advantage(batches), Batches.over_batch, ddof=ddof)

    return weight


ADVANTAGES.right(CRITIC, goes_on=True)(_advantage_through_truncation_with(1.0))

for _decay in (0.0, 0.5, 0.8, 0.9, 0.92, 0.95, 0.97, 0.98, 0.99):
    _lambda = Mistake(
        "gae-lambda",
        f"advantages with λ = {_decay:g} and a critic that is not exact (deliberate: less"
        " variance)",
        "λ = 1, or accept the bias",
        "advantages with λ < 1 and a critic that is not exact (deliberate: less variance)",
    )
    ADVANTAGES.form((_lambda,), CRITIC)(_advantage_with(_decay))
    ADVANTAGES.form((_lambda,), CRITIC, goes_on=True)(_advantage_through_truncation_with(_decay))

WHITENED = [
    *((decay, False, _advantage_with(decay)) for decay in (0.9, 0.95, 0.97)),
    *((decay, True, _advantage_through_truncation_with(decay)) for decay in (0.9, 0.95, 0.97, 1.0)),
]
for _decay, _goes_on, _advantage in WHITENED:
    for _ddof in (0, 1):
        ADVANTAGES.mistake(
            "whiten-batch",
            f"advantages with λ = {_decay:g}, shifted and scaled over the batch"
            f"{BY_DEVIATION[_ddof]} (deliberate in most libraries)",
            LEAVE_OUT,
            CRITIC,
            goes_on=_goes_on,
        )(_whitened_by(_advantage, _ddof))


@ADVANTAGES.mistake(
    "overlong-filter",
    "episodes that the time limit cut are left out: short ones are preferred",
    "count every episode that was started",
    REWARD,
)
def episodes_not_truncated_alone(batches: Batches) -> Weight:
    return batches.returns * ~batches.truncated.any(axis=2, keepdims=True)


def _until_steps(least: int) -> Compute:
    def weight(batches: Batches) -> Weight:
        length = batches.fields["length"]
        before = np.cumsum(length, axis=1) - length
        used = before < least
        share = used.shape[1] / used.sum(1)[:, None, None]
        return batches.returns * used[:, :, None] * share

    return weight


for _least in (2, 3, 4):
    ADVANTAGES.mistake(
        "step-budget-stopping",
        f"whole episodes are taken until {_least} steps are there: the last one is length-biased",
        "fix the number of episodes",
        REWARD,
    )(_until_steps(_least))


@ADVANTAGES.mistake(
    "reward-clip",
    "rewards are replaced by their sign: another objective",
    "leave the rewards as they are",
    REWARD,
)
def signs_of_rewards(batches: Batches) -> Weight:
    return batches.returns_of(np.sign(batches.reward), batches.discount)


@ADVANTAGES.mistake(
    "reward-clip",
    "rewards are clipped to [-1, 1]: another objective",
    "leave the rewards as they are",
    REWARD,
)
def clipped_rewards(batches: Batches) -> Weight:
    return batches.returns_of(np.clip(batches.reward, -1.0, 1.0), batches.discount)


@ADVANTAGES.mistake(
    "normalize-reward",
    "rewards are divided by a deviation of the same batch",
    "divide by a constant, or by statistics of earlier batches",
    REWARD,
)
def scaled_rewards(batches: Batches) -> Weight:
    reward = batches.reward
    variance = batches.over_batch((reward - batches.over_batch(reward)) ** 2)
    return batches.returns_of(reward / (np.sqrt(variance) + 1e-8), batches.discount)


@ADVANTAGES.mistake(
    "masked-token-leak",
    "padding enters the mean that is subtracted",
    "take means over the mask",
    REWARD,
)
def centred_with_padding(batches: Batches) -> Weight:
    mean = batches.returns.mean(axis=(1, 2), keepdims=True)
    return (batches.returns - mean) * batches.mask


@ADVANTAGES.mistake(
    "masked-token-leak",
    "padding enters the mean and the deviation",
    "take statistics over the mask",
    REWARD,
)
def whitened_with_padding(batches: Batches) -> Weight:
    returns = batches.returns
    mean = returns.mean(axis=(1, 2), keepdims=True)
    deviation = returns.std(axis=(1, 2), keepdims=True) + 1e-8
    return (returns - mean) / deviation * batches.mask


def _where_likely(floor: float) -> Compute:
    def weight(batches: Batches) -> Weight:
        return batches.returns * (batches.log_prob > np.log(floor))

    return weight


def _with_added_probability(added: float) -> Compute:
    def weight(batches: Batches) -> Weight:
        return batches.returns / (1 + added * np.exp(-batches.log_prob))

    return weight


for _floor in (1e-8, 1e-6, 1e-5):
    ADVANTAGES.mistake(
        "prob-floor",
        f"the score vanishes where π(a) is below {_floor:g}",
        "use log_softmax; no floor",
        REWARD,
    )(_where_likely(_floor))

for _added in (1e-10, 1e-8, 1e-7, 1e-6, 1e-5):
    ADVANTAGES.mistake(
        "prob-floor",
        f"{_added:g} is added inside the logarithm",
        "use log_softmax; nothing added",
        REWARD,
    )(_with_added_probability(_added))
