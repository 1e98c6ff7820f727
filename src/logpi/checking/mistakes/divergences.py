"""The KL to a reference policy: losses that should be it, as weights of ∇ log π, and how it is
taken off beside a reward.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy import ndarray

from logpi.checking.mistakes.batches import Batches, Weight
from logpi.checking.mistakes.forms import Factor, Mistake

Compute: TypeAlias = Callable[[Batches], ndarray]
DIVERGENCES: Factor[Compute] = Factor()

REFERENCE = ("reference_log_prob",)
AS_REWARD = "subtract log π - log reference from the reward of each step"


def k1_of_each_step(batches: Batches) -> Weight:
    """log π - log reference."""
    return -batches.mask * batches.log_ratio_of_reference


def k3_of_each_step(batches: Batches) -> Weight:
    """r - 1 - log r, r being reference over π (Schulman's estimate of the KL)."""
    log_ratio = batches.log_ratio_of_reference
    return batches.mask * (np.exp(log_ratio) - 1 - log_ratio)


@DIVERGENCES.mistake(
    "kl-k1-loss",
    "log π - log reference as a loss: its expected gradient is zero",
    AS_REWARD,
    REFERENCE,
)
def k1_as_loss(batches: Batches) -> Weight:
    return -batches.mask


@DIVERGENCES.mistake(
    "kl-k3-loss",
    "the k3 estimate as a loss: the gradient of the forward KL(reference, π) of each state"
    " (deliberate in GRPO)",
    AS_REWARD,
    REFERENCE,
)
def k3_as_loss(batches: Batches) -> Weight:
    return batches.mask * (np.exp(batches.log_ratio_of_reference) - 1)


@DIVERGENCES.mistake(
    "kl-k3-reversed",
    "k3 as a loss with the ratio turned over, π / reference for reference / π",
    f"{AS_REWARD}; in k3 the ratio is reference / π",
    REFERENCE,
)
def k3_turned_over_as_loss(batches: Batches) -> Weight:
    return batches.mask * (1 - np.exp(-batches.log_ratio_of_reference))


@DIVERGENCES.mistake(
    "kl-k3-reward",
    "k3 is taken off the reward but not differentiated, so a part of the KL's gradient is missing",
    AS_REWARD,
    REFERENCE,
)
def k3_as_reward(batches: Batches) -> Weight:
    return -batches.scan(k3_of_each_step(batches), 1.0, batches.done)


@DIVERGENCES.mistake(
    "kl-token-loss",
    "the KL of each step without its effect on later states",
    AS_REWARD,
    REFERENCE,
)
def kl_of_each_step(batches: Batches) -> Weight:
    return -k1_of_each_step(batches)


@dataclass(frozen=True, eq=False)
class Penalty:
    """What is taken off, β times, and the mistakes in it where the target is J - β KL.

    `of_rewards`: off each reward; else off each weight of ∇ log π. `is_per_step`: it is the KL of
    each step, without its effect on later states.
    """

    compute: Compute
    of_rewards: bool
    mistakes: tuple[Mistake, ...] = ()
    is_per_step: bool = False
    needs: tuple[str, ...] = ()
    beta: float = 1.0

    def taken_off(self, batches: Batches) -> Weight:
        """β times what `compute` says."""
        return self.beta * self.compute(batches)


def rated_k1_of_each_step(batches: Batches) -> Weight:
    """π / π_old × k1: what π / π_old × k3 as a loss has on average (DeepSeek-V3.2)."""
    return batches.ratio * k1_of_each_step(batches)


def _mistakes_of(compute: Compute) -> tuple[Mistake, ...]:
    return next(form.mistakes for form in DIVERGENCES if form.compute is compute)


def _off_the_weights(compute: Compute) -> Penalty:
    """The known loss of this gradient, beside a reward."""

    def weight(batches: Batches) -> Weight:
        return -compute(batches)

    return Penalty(
        weight,
        of_rewards=False,
        mistakes=_mistakes_of(compute),
        is_per_step=compute is kl_of_each_step,
    )


PENALTIES = (
    Penalty(k1_of_each_step, of_rewards=True),
    Penalty(k3_of_each_step, of_rewards=True, mistakes=_mistakes_of(k3_as_reward)),
    *(
        _off_the_weights(compute)
        for compute in (k1_as_loss, k3_as_loss, k3_turned_over_as_loss, kl_of_each_step)
    ),
    Penalty(
        rated_k1_of_each_step,
        of_rewards=False,
        mistakes=_mistakes_of(kl_of_each_step),
        is_per_step=True,
        needs=("old_log_prob",),
    ),
)
