"""How data of an older policy are weighted: importance ratios, and the known ways to get them
wrong.
"""

from collections.abc import Callable
from itertools import product
from typing import TypeAlias

import numpy as np
from numpy import ndarray

from logpi.checking.mistakes.batches import Batches
from logpi.checking.mistakes.forms import Factor, Mistake

Apply: TypeAlias = Callable[[Batches, ndarray], ndarray]
RATIOS: Factor[Apply] = Factor()

PRODUCT = "multiply by the product of the ratios up to the reward (per decision)"
AT_FIRST = " (deliberate): right on the first step after sampling only"
CLIPPED = f"clipped ratios{AT_FIRST}"
MINIMUM = "min(ρ A, clip(ρ) A)"
NO_RATIO = (
    "old-logp-recomputed",
    "the ratio is 1 whatever policy acted: old_log_prob is not used, or computed anew",
)


@RATIOS.right()
def per_decision(batches: Batches, advantage: ndarray) -> ndarray:
    """Σ_{k≥t} γ^{k-t} r_k Π_{j≤k} ρ_j for the advantage that is R_t; else the whole product."""
    if advantage is batches.returns:
        reached = np.cumprod(batches.ratio, axis=2)
        return batches.returns_of(batches.reward * reached, batches.discount)
    return advantage * batches.ratio_of_episode


@RATIOS.mistake(*NO_RATIO, PRODUCT)
def no_ratio(batches: Batches, advantage: ndarray) -> ndarray:
    return advantage


@RATIOS.mistake(
    "per-step-ratio",
    "only the ratio of the step itself (PPO, GRPO; deliberate): right on the first step after"
    " sampling only",
    PRODUCT,
)
def ratio_of_the_step(batches: Batches, advantage: ndarray) -> ndarray:
    return advantage * batches.ratio


def not_stopped(ratio: ndarray, advantage: ndarray, low: float, high: float) -> ndarray:
    """Where min(ρ A, clip(ρ, 1 - low, 1 + high) A) has a derivative by ρ."""
    return ~np.where(advantage > 0, ratio > 1 + high, ratio < 1 - low)


def clipped(ratio: ndarray, advantage: ndarray, low: float, high: float) -> ndarray:
    """Derivative of PPO's surrogate by log π: ρ A, or 0 where the clipped branch is taken."""
    return advantage * ratio * not_stopped(ratio, advantage, low, high)


def _clipped_steps(low: float, high: float) -> Apply:
    def apply(batches: Batches, advantage: ndarray) -> ndarray:
        return clipped(batches.ratio, advantage, low, high)

    return apply


def _clipped_product(low: float, high: float) -> Apply:
    def apply(batches: Batches, advantage: ndarray) -> ndarray:
        return clipped(batches.ratio_of_episode, advantage, low, high)

    return apply


def _clip(low: float, high: float, what: str = "clipped ratios") -> Mistake:
    """What is said of limits to a ratio."""
    limits = f"ε = {low:g}"
    if high != low:
        limits = f"ε = {low:g} below and {high:g} above"
    return Mistake("ppo-clip", f"{what} with {limits}{AT_FIRST}", PRODUCT, what + AT_FIRST)


for _low, _high in ((0.1, 0.1), (0.2, 0.2), (0.25, 0.25), (0.3, 0.3), (0.2, 0.28)):
    RATIOS.form((_clip(_low, _high),))(_clipped_steps(_low, _high))

for _low, _high in ((0.1, 0.1), (0.2, 0.2), (0.2, 0.28)):
    _said = _clip(_low, _high, "the product of the ratios is clipped")
    RATIOS.form((_said,))(_clipped_product(_low, _high))


DUAL = 3.0


@RATIOS.mistake(
    "ppo-clip",
    f"clipped ratios with ε = 0.2, and those of negative advantages cut at {DUAL:g} (dual clip;"
    " deliberate): right on the first step after sampling only",
    PRODUCT,
    vague=CLIPPED,
)
def dual_clip(batches: Batches, advantage: ndarray) -> ndarray:
    """max(min(ρ A, clip(ρ) A), c A) for A < 0 (Ye et al. 2020)."""
    cut = (advantage < 0) & (batches.ratio > DUAL)
    return clipped(batches.ratio, advantage, 0.2, 0.2) * ~cut


@RATIOS.mistake(
    "dual-clip-wrong",
    f"the lower limit c A of the dual clip, c = {DUAL:g}, holds for positive advantages too: these"
    " have no gradient",
    "apply the dual clip where the advantage is negative",
)
def dual_clip_of_all(batches: Batches, advantage: ndarray) -> ndarray:
    return np.where(advantage < 0, dual_clip(batches, advantage), 0.0)


def geometric_mean(batches: Batches) -> ndarray:
    """(Π_t ρ_t)^{1/T} of each episode."""
    return batches.ratio_of_episode ** (1 / batches.length)


@RATIOS.mistake("gspo-ratio", "the geometric mean of the ratios (GSPO; deliberate)", PRODUCT)
def geometric_ratio(batches: Batches, advantage: ndarray) -> ndarray:
    return advantage * geometric_mean(batches)


@RATIOS.mistake(
    "gspo-ratio",
    "the geometric mean of the ratios, and its derivative shared by length (GSPO; deliberate)",
    PRODUCT,
)
def geometric_ratio_by_length(batches: Batches, advantage: ndarray) -> ndarray:
    return advantage * geometric_mean(batches) / batches.length


def _clipped_geometric(low: float, high: float, shared: bool) -> Apply:
    """Derivative of GSPO's clipped surrogate, shared by length or not."""

    def apply(batches: Batches, advantage: ndarray) -> ndarray:
        weight = clipped(geometric_mean(batches), advantage, low, high)
        if shared:
            weight = weight / batches.length
        return weight

    return apply


for _low, _high, _shared in (
    (3e-4, 4e-4, True),
    (0.2, 0.2, True),
    (3e-4, 4e-4, False),
    (0.2, 0.2, False),
):
    RATIOS.mistake(
        "gspo-ratio",
        f"the geometric mean of the ratios, clipped with ε = {_low:g} below and {_high:g} above"
        " (GSPO; deliberate)",
        PRODUCT,
        vague="the geometric mean of the ratios, clipped (GSPO; deliberate)",
    )(_clipped_geometric(_low, _high, _shared))


def _cut(words: str, limit: float) -> Mistake:
    """What is said of a ratio that is cut; `words` have {} where the limit is said."""
    why = " (deliberate: less variance)"
    said = words.format(f" at {limit:g}") + why
    return Mistake("truncated-is", said, PRODUCT, words.format("") + why)


def _truncated_product(limit: float) -> Apply:
    def apply(batches: Batches, advantage: ndarray) -> ndarray:
        return advantage * np.minimum(batches.ratio_of_episode, limit)

    return apply


def _truncated_step(limit: float) -> Apply:
    def apply(batches: Batches, advantage: ndarray) -> ndarray:
        return advantage * np.minimum(batches.ratio, limit)

    return apply


for _limit in (1.0, 1.5, 2.0, 5.0):
    RATIOS.form((_cut("the product of ratios is cut{}", _limit),))(_truncated_product(_limit))

for _limit in (1.0, 1.5, 2.0):  # no ratio of a probe's step is larger
    RATIOS.form((_cut("the ratio of the step is cut{}", _limit),))(_truncated_step(_limit))


def _clipped_as_data(low: float, high: float) -> Apply:
    def apply(batches: Batches, advantage: ndarray) -> ndarray:
        return advantage * np.clip(batches.ratio, 1 - low, 1 + high)

    return apply


for _low, _high in ((0.2, 0.2), (0.2, 0.28)):
    RATIOS.mistake(
        "truncated-is",
        f"the ratio of the step is clipped to [{1 - _low:g}, {1 + _high:g}] and is data (CISPO;"
        " deliberate: less variance)",
        PRODUCT,
        vague="the ratio of the step is clipped and is data (CISPO; deliberate: less variance)",
    )(_clipped_as_data(_low, _high))


def _v_trace(limit: float) -> Apply:
    """A_t = min(ρ_t, limit) (δ_t + γ A_{t+1}) (Espeholt et al. 2018), for A_t = R_t - V(s_t)."""

    def apply(batches: Batches, advantage: ndarray) -> ndarray:
        cut = np.minimum(batches.ratio, limit)
        if advantage is not batches.advantage:
            return np.full_like(cut, np.nan)  # it is not defined without a critic
        goes_on = np.where(batches.done, 0.0, 1.0)
        delta = batches.reward + batches.discount * goes_on * batches.next_value - batches.value
        out = np.zeros_like(delta)
        later = np.zeros(delta.shape[:2])
        for t in reversed(range(delta.shape[2])):
            later = cut[:, :, t] * (delta[:, :, t] + batches.discount * goes_on[:, :, t] * later)
            later = np.where(batches.mask[:, :, t] > 0, later, 0.0)
            out[:, :, t] = later
        return out

    return apply


for _limit in (1.0, 1.5, 2.0):
    _said = _cut("V-trace: ratios from the step on, each cut{}", _limit)
    RATIOS.form((_said,))(_v_trace(_limit))


def _clipped_alone(epsilon: float) -> Apply:
    def apply(batches: Batches, advantage: ndarray) -> ndarray:
        return advantage * batches.ratio * (np.abs(batches.ratio - 1) < epsilon)

    return apply


def _minimum_alone(epsilon: float) -> Apply:
    def apply(batches: Batches, advantage: ndarray) -> ndarray:
        return advantage * batches.ratio * (batches.ratio < 1 + epsilon)

    return apply


for _epsilon in (0.1, 0.2, 0.3):
    RATIOS.mistake(
        "clip-wrong",
        f"the ratio is clipped to 1 ± {_epsilon:g} before it meets the advantage: no pessimistic"
        " minimum",
        MINIMUM,
        vague="the ratio is clipped before it meets the advantage: no pessimistic minimum",
    )(_clipped_alone(_epsilon))

for _epsilon in (0.1, 0.2, 0.3):
    RATIOS.mistake(
        "clip-wrong",
        f"min(ρ, clip(ρ)) × A with ε = {_epsilon:g}: the minimum is taken before the advantage",
        MINIMUM,
        vague="min(ρ, clip(ρ)) × A: the minimum is taken before the advantage",
    )(_minimum_alone(_epsilon))


def _rejected(limit: float) -> Apply:
    def apply(batches: Batches, advantage: ndarray) -> ndarray:
        kept = np.abs(np.log(batches.ratio_of_episode)) < limit
        return advantage * kept

    return apply


for _limit in (0.1, 0.2, 0.3, 0.5, 0.7, 1.0):
    _said = "episodes that the old policy made too likely or too unlikely are left out"
    RATIOS.mistake(
        "rejected-samples",
        f"{_said}: |log Π ρ| above {_limit:g}; they stay in the baseline of the others",
        PRODUCT,
        vague=f"{_said}; they stay in the baseline of the others",
    )(_rejected(_limit))


@RATIOS.mistake(
    "masked-token-leak",
    "the ratio of an episode is over its padding too: log π is summed without the mask",
    "multiply by the mask before the sum over t",
)
def product_over_rows(batches: Batches, advantage: ndarray) -> ndarray:
    return advantage * batches.ratio.prod(axis=2, keepdims=True)


@RATIOS.mistake(
    "inverse-ratio",
    "the ratio is inverted",
    "divide π by the probability under the policy that acted",
)
def inverse_ratio(batches: Batches, advantage: ndarray) -> ndarray:
    return advantage / batches.ratio


CONFUSED = (
    "the ratio is to the trainer's own log-probabilities, old_log_prob, while another law drew the"
    " actions, sampling_log_prob"
)
TO_SAMPLER = "divide by sampling_log_prob, or multiply by the product of old over sampling"
BOTH = ("old_log_prob", "sampling_log_prob")


@RATIOS.mistake("sampler-confused", CONFUSED, TO_SAMPLER, needs=BOTH)
def product_to_trainer(batches: Batches, advantage: ndarray) -> ndarray:
    return advantage * batches.product_over_steps(batches.ratio_to("old_log_prob"))


@RATIOS.mistake("sampler-confused", CONFUSED, TO_SAMPLER, needs=BOTH)
def step_to_trainer(batches: Batches, advantage: ndarray) -> ndarray:
    return advantage * batches.ratio_to("old_log_prob")


def _corrected(limit: float, of_episode: bool, clip: tuple[float, float] | None) -> Apply:
    """π/old of the step, clipped or not, times old/sampling cut at a limit, of the step or of the
    episode.
    """

    def apply(batches: Batches, advantage: ndarray) -> ndarray:
        to_trainer = batches.ratio_to("old_log_prob")
        between = batches.ratio / to_trainer
        if of_episode:
            between = batches.product_over_steps(between)
        weight = np.minimum(between, limit)
        if clip is None:
            return advantage * to_trainer * weight
        return clipped(to_trainer, advantage, *clip) * weight

    return apply


for _limit, _of_episode in product((1.0, 2.0, 3.0, 5.0), (False, True)):
    _words = "old over sampling is cut{} for each step"
    if _of_episode:
        _words = "the ratio of the step, and old over sampling of the episode cut{}"
    _truncated = _cut(_words, _limit)
    RATIOS.form((_truncated,), BOTH)(_corrected(_limit, _of_episode, None))
    for _limits in ((0.2, 0.2), (0.2, 0.28)):
        RATIOS.form((_clip(*_limits), _truncated), BOTH)(_corrected(_limit, _of_episode, _limits))
