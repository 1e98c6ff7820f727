"""How the steps of a batch are added up, and the power of γ that each of them carries."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy import ndarray

from logpi.checking.mistakes.batches import Batches, Weight, are_same, sum_over
from logpi.checking.mistakes.forms import Factor, Mistake

Compute: TypeAlias = Callable[[Batches], ndarray]
AGGREGATIONS: Factor[Compute] = Factor()
POWERS: Factor[Compute] = Factor()

SUM = "sum over t, mean over episodes"


@AGGREGATIONS.right()
def sum_over_steps(batches: Batches) -> Weight:
    """Sum over t, mean over episodes."""
    return batches.mask


LEAK = Mistake(
    "masked-token-leak",
    "padded rows have weight too: the mask is not applied",
    "multiply by the mask",
)
OVER_EPISODE = Mistake(
    "per-episode-1/T",
    "the mean over the steps of each episode: long episodes weigh less",
    SUM,
)
OVER_ROWS = Mistake(
    "drgrpo-padded-len",
    "the mean includes padding: the factor depends on the longest episode of the batch",
    SUM,
)
FIRST = "the first step of each episode has no weight"
SHIFTED = "shift the mask as log_prob is shifted: both belong to the token that is predicted"


@AGGREGATIONS.form((LEAK,))
def sum_over_rows(batches: Batches) -> Weight:
    return np.ones_like(batches.mask)


@AGGREGATIONS.form((LEAK, OVER_ROWS))
def mean_over_rows_and_padding(batches: Batches) -> Weight:
    return np.ones_like(batches.mask) / batches.mask.shape[2]


@AGGREGATIONS.form((LEAK, OVER_EPISODE))
def sum_over_rows_by_length(batches: Batches) -> Weight:
    return np.ones_like(batches.mask) / batches.mask.sum(2, keepdims=True)


@AGGREGATIONS.mistake(
    "mask-shifted",
    "the last step of each episode, such as the end of a text, has no weight: its row is masked",
    SHIFTED,
)
def without_the_last_step(batches: Batches) -> Weight:
    return np.pad(batches.mask, ((0, 0), (0, 0), (0, 1)))[:, :, 1:]


@AGGREGATIONS.mistake(
    "mask-shifted",
    f"the mask is one row late: {FIRST}, and one row of its padding has",
    SHIFTED,
    vague=FIRST,
)
def one_row_late(batches: Batches) -> Weight:
    return np.pad(batches.mask, ((0, 0), (0, 0), (1, 0)))[:, :, :-1]


@AGGREGATIONS.mistake("mask-shifted", FIRST, SHIFTED, vague=FIRST)
def without_the_first_step(batches: Batches) -> Weight:
    return batches.mask * one_row_late(batches)


@AGGREGATIONS.form((OVER_EPISODE,))
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
    "mean-over-group",
    "the mean over the steps of each group: a step weighs less where the others of its group are"
    " long",
    SUM,
    needs=("group",),
)
def mean_over_steps_of_group(batches: Batches) -> Weight:
    groups = np.sum(1 / batches.same_group.sum(2), axis=1)[:, None, None]
    steps = sum_over(batches.same_group, batches.mask).sum(2, keepdims=True)
    return batches.mask.shape[1] * batches.mask / (groups * steps)


@AGGREGATIONS.form((OVER_ROWS,))
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
    steps = sum_over(are_same(part), batches.mask).sum(2, keepdims=True)
    parts = part.max(axis=1)[:, None, None] + 1
    return batches.mask.shape[1] * batches.mask / (parts * steps)


@POWERS.right()
def power(batches: Batches) -> Weight:
    """γ^t."""
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
