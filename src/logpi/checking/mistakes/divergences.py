"""Losses that should be the KL to a reference policy, as weights of ∇ log π."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy import ndarray

from logpi.checking.mistakes.batches import Batches, Weight
from logpi.checking.mistakes.forms import Factor

Compute: TypeAlias = Callable[[Batches], ndarray]
DIVERGENCES: Factor[Compute] = Factor()

REFERENCE = ("reference_log_prob",)
AS_REWARD = "k1 as a reward, with the rewards to go"


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
    "k1 as a reward, or check against --target forward-kl-per-step",
    REFERENCE,
)
def k3_as_loss(batches: Batches) -> Weight:
    return batches.mask * (np.exp(batches.log_ratio_of_reference) - 1)


@DIVERGENCES.mistake(
    "kl-k3-reward",
    "k3 only as a reward: the part through the sample itself is missing",
    "k1 as a reward",
    REFERENCE,
)
def k3_as_reward(batches: Batches) -> Weight:
    """k3 is Schulman's estimate of the KL: r - 1 - log r, r being reference over π."""
    log_ratio = batches.log_ratio_of_reference
    k3 = batches.mask * (np.exp(log_ratio) - 1 - log_ratio)
    return -batches.scan(k3, 1.0, batches.done)


@DIVERGENCES.mistake(
    "kl-token-loss",
    "the KL of each step without its effect on later states",
    AS_REWARD,
    REFERENCE,
)
def kl_of_each_step(batches: Batches) -> Weight:
    return batches.mask * batches.log_ratio_of_reference
