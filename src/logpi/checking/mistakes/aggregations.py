"""How the steps of a batch are added up, and the power of γ that each of them carries."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy import ndarray

from logpi.checking.mistakes.batches import Batches, Weight, are_same
from logpi.checking.mistakes.forms import Factor

Compute: TypeAlias = Callable[[Batches], ndarray]
AGGREGATIONS: Factor[Compute] = Factor()
POWERS: Factor[Compute] = Factor()

SUM = "sum over t, mean over episodes"


@AGGREGATIONS.right(SUM)
def sum_over_steps(batches: Batches) -> Weight:
    return batches.mask


@AGGREGATIONS.mistake(
    "masked-token-leak",
    "padded rows have weight too: the mask is not applied",
    "multiply by the mask",
)
def sum_over_rows(batches: Batches) -> Weight:
    return np.ones_like(batches.mask)


@AGGREGATIONS.mistake(
    "per-episode-1/T",
    "the mean over the steps of each episode: long episodes weigh less",
    SUM,
)
def mean_of_each_episode(batches: Batches) -> Weight:
    return batches.mask / batches.mask.sum(2, keepdims=True)


@AGGREGATIONS.mistake(
    "mean-over-all-steps",
    "the mean over all steps of the batch: only nearly a constant factor, as lengths vary",
    SUM,
)
def mean_over_all_steps(batches: Batches) -> Weight:
    steps = batches.mask.sum((1, 2), keepdims=True)
    return batches.mask.shape[1] * batches.mask / steps


@AGGREGATIONS.mistake(
    "drgrpo-padded-len",
    "the mean includes padding: the factor depends on the longest episode of the batch",
    SUM,
)
def mean_over_rows(batches: Batches) -> Weight:
    return batches.mask / batches.mask.shape[2]


@AGGREGATIONS.mistake(
    "drop-zero-variance",
    "the mean over the steps of those groups whose returns differ: how much an episode weighs"
    " depends on the other groups (DAPO; deliberate)",
    SUM,
    needs=("group",),
)
def mean_over_steps_of_groups_that_differ(batches: Batches) -> Weight:
    distance = np.abs(batches.whole - batches.over_group(batches.whole))
    kept = batches.mask * (batches.over_group(distance) > 1e-12)
    steps = np.maximum(kept.sum((1, 2), keepdims=True), 1)
    return batches.mask.shape[1] * kept / steps


@AGGREGATIONS.mistake(
    "microbatch-norm",
    "the mean over the steps of each micro-batch: how much an episode weighs depends on which"
    " others are in its part",
    "divide by what the whole batch has, the same number for each micro-batch",
    needs=("micro_batch",),
)
def mean_over_steps_of_micro_batch(batches: Batches) -> Weight:
    part = batches.fields["micro_batch"]
    steps = np.einsum("bij,bjt->bi", are_same(part).astype(float), batches.mask)[:, :, None]
    parts = part.max(axis=1)[:, None, None] + 1
    return batches.mask.shape[1] * batches.mask / (parts * steps)


@POWERS.right("γ^t")
def power(batches: Batches) -> Weight:
    return batches.discount ** batches.fields["step"]


@POWERS.mistake(
    "gamma-t-missing",
    "γ^t is missing, as in most libraries (deliberate): the gradient of no objective",
    "multiply by γ^t, or check against --target conventional",
)
def no_power(batches: Batches) -> Weight:
    return np.ones_like(batches.mask)


@POWERS.mistake("gamma-t-twice", "γ^t is applied twice", "apply γ^t once")
def power_twice(batches: Batches) -> Weight:
    return batches.discount ** (2 * batches.fields["step"])
