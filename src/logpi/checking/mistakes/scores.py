"""What stands in place of ∇ log π: the derivative of a weighted score by the logits."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from logpi.checking.mistakes.batches import Batches, Weight
from logpi.checking.mistakes.forms import Factor
from logpi.theory.exact import softmax

Logits: TypeAlias = Float[ndarray, "batch episode time A"]
ByLogits: TypeAlias = Callable[[Batches, Logits, Weight], Logits]
SCORES: Factor[ByLogits] = Factor()

LAST_AXIS = "softmax over the last axis"


@SCORES.right()
def score(batches: Batches, logits: Logits, weight: Weight) -> Logits:
    """weight × (1[a] - π)."""
    return weight[..., None] * (_chosen(batches, logits) - softmax(logits))


def _chosen(batches: Batches, logits: Logits) -> Logits:
    """1 for the action that was taken, 0 for the others."""
    return np.eye(logits.shape[-1])[batches.fields["action"]]


@SCORES.mistake(
    "double-softmax",
    "probabilities are passed where logits are expected: a second softmax",
    "pass logits to log_softmax, once",
)
def double_softmax(batches: Batches, logits: Logits, weight: Weight) -> Logits:
    """weight × ∂ log softmax(softmax(logits))_a / ∂ logits."""
    first = softmax(logits)
    by_first = _chosen(batches, logits) - softmax(first)
    mean = np.sum(first * by_first, axis=-1, keepdims=True)
    return weight[..., None] * first * (by_first - mean)


def _softmax_over(axis: int, batches: Batches, logits: Logits, weight: Weight) -> Logits:
    """Σ weight × ∂ log softmax over another axis / ∂ logits."""
    chosen = _chosen(batches, logits) * weight[..., None]
    exponential = np.exp(logits)
    share = exponential / exponential.sum(axis, keepdims=True)
    return chosen - share * chosen.sum(axis, keepdims=True)


@SCORES.mistake(
    "softmax-wrong-axis",
    "the softmax runs over the episodes of the batch, not over the actions",
    LAST_AXIS,
)
def softmax_over_episodes(batches: Batches, logits: Logits, weight: Weight) -> Logits:
    return _softmax_over(1, batches, logits, weight)


@SCORES.mistake(
    "softmax-wrong-axis",
    "the softmax runs over time, not over the actions",
    LAST_AXIS,
)
def softmax_over_time(batches: Batches, logits: Logits, weight: Weight) -> Logits:
    return _softmax_over(2, batches, logits, weight)
