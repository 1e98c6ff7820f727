"""All batches of one shape, and the parts of right and wrong weights that can be made of them.

Weights of ∇ log π are arrays [batch, episode, time].
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

Weight: TypeAlias = Float[ndarray, "batch episode time"]


class Batches:
    """The fields of all batches of one shape, and what most forms need of them."""

    def __init__(
        self, fields: Mapping[str, ndarray], discount: float, log_prob: ndarray, rollout: bool
    ):
        self.fields = fields
        self.discount = discount
        self.log_prob = log_prob
        self.rollout = rollout
        self.mask = fields["mask"].astype(float)
        self.reward = fields["reward"]
        self.value = fields["value"]
        self.next_value = fields["next_value"]
        self.terminated = fields["terminated"]
        self.truncated = fields["truncated"]
        self.done = fields["done"]
        self.length = fields["length"][:, :, None]

    @cached_property
    def returns(self) -> Weight:
        """R_t; in a rollout with the critic's value of the state that it goes on from."""
        return self.returns_of(self.reward, self.discount)

    @cached_property
    def advantage(self) -> Weight:
        """R_t - V(s_t)."""
        return self.returns - self.value

    @cached_property
    def whole(self) -> Float[ndarray, "batch episode 1"]:
        """R(τ) of each episode."""
        return self.returns[:, :, :1]

    def returns_of(self, reward: ndarray, discount: float) -> Weight:
        """R_t of other rewards or another discount."""
        return self.scan(self.bootstrapped(reward, discount), discount, self.done)

    def bootstrapped(self, reward: ndarray, discount: float) -> Weight:
        """Rewards, with γ V(s_K) added to the last row of a rollout where it is cut."""
        if not self.rollout:
            return reward
        extra = np.zeros_like(reward)
        ended = self.done[:, :, -1]
        extra[:, :, -1] = discount * np.where(ended, 0.0, self.next_value[:, :, -1])
        return reward + extra

    def scan(
        self,
        delta: ndarray,
        decay: float,
        cut: Bool[ndarray, "batch episode time"],
        across: bool = False,
    ) -> Weight:
        """x_t = delta_t + decay x_{t+1} from the end, x_{t+1} left out after a `cut`.

        With `across` the sum runs on into the next episode of the batch.
        """
        out = np.zeros_like(delta)
        later = np.zeros(len(delta))
        for n in reversed(range(delta.shape[1])):
            if not across:
                later = np.zeros(len(delta))
            for t in reversed(range(delta.shape[2])):
                now = delta[:, n, t] + decay * np.where(cut[:, n, t], 0.0, later)
                later = np.where(self.mask[:, n, t] > 0, now, later)
                out[:, n, t] = later
        return out * self.mask

    def gae(
        self,
        decay: float,
        boot: ndarray | None = None,
        cut: ndarray | None = None,
        across: bool = False,
    ) -> Weight:
        """Generalised advantages.

        `boot` marks steps whose next value counts, `cut` those after which the sum ends: by default
        where the episode goes on, and where it has ended.
        """
        counts = ~self.done if boot is None else boot
        ends = self.done if cut is None else cut
        future = self.discount * np.where(counts, self.next_value, 0.0)
        return self.scan(self.reward + future - self.value, self.discount * decay, ends, across)

    @property
    def never(self) -> Bool[ndarray, "batch episode time"]:
        """False at every step."""
        return np.zeros_like(self.done)

    def over_steps(self, x: ndarray) -> ndarray:
        """Mean over the steps of each episode, kept as [batch, episode, 1]."""
        total = np.sum(x * self.mask, axis=2, keepdims=True)
        return total / np.sum(self.mask, axis=2, keepdims=True)

    def over_batch(self, x: ndarray) -> ndarray:
        """Mean over all steps that the function which computes advantages sees at once, kept as
        [batch, episode, 1].
        """
        return self.over_call(x * self.mask) / self.over_call(self.mask)

    def over_call(self, x: Weight) -> ndarray:
        """Sum over those steps."""
        return sum_over(self.same_call, x).sum(axis=2, keepdims=True)

    def over_time_step(self, x: ndarray) -> ndarray:
        """Mean over the episodes that are seen at once and are running at t."""
        return self.at_time_step(x * self.mask) / np.maximum(self.at_time_step(self.mask), 1)

    def at_time_step(self, x: Weight) -> Weight:
        """Sum over those episodes."""
        return sum_over(self.same_call, x)

    def over_group(self, x: Float[ndarray, "batch episode #time"]) -> ndarray:
        """Mean over the episodes with the same prompt."""
        return sum_over(self.same_group, x) / self.same_group.sum(2, keepdims=True)

    @cached_property
    def same_group(self) -> Bool[ndarray, "batch episode episode"]:
        """Whether two episodes have the same prompt, and are seen at once."""
        return are_same(self.fields["group"]) & self.same_call

    @cached_property
    def same_call(self) -> Bool[ndarray, "batch episode episode"]:
        """Whether the function that computes advantages sees two episodes at once: those of a
        batch, or of a micro-batch.
        """
        if "call" in self.fields:
            return are_same(self.fields["call"])
        return np.ones_like(are_same(self.fields["group"]))

    @cached_property
    def ratio(self) -> Weight:
        """ρ_t = π(a_t|s_t) / law that a_t was drawn from."""
        return self.ratio_to("sampling_log_prob")

    def ratio_to(self, law: str) -> Weight:
        """π(a_t|s_t) / another law, the log-probabilities of which are a field; rows of padding
        have one too.
        """
        return np.exp(self.log_prob - self.fields[law])

    @cached_property
    def ratio_of_episode(self) -> Float[ndarray, "batch episode 1"]:
        """Π_t ρ_t."""
        return self.product_over_steps(self.ratio)

    def product_over_steps(self, x: Weight) -> Float[ndarray, "batch episode 1"]:
        """Π_t x_t of each episode."""
        return np.prod(np.where(self.mask > 0, x, 1.0), axis=2, keepdims=True)

    @cached_property
    def log_ratio_of_reference(self) -> Weight:
        """log(π_ref(a_t|s_t) / π(a_t|s_t))."""
        return self.fields["reference_log_prob"] - self.log_prob


def sum_over(
    same: Bool[ndarray, "batch episode episode"], x: Float[ndarray, "batch episode #time"]
) -> Float[ndarray, "batch episode #time"]:
    """Sum over the episodes that are the same as each, at each step."""
    return np.einsum("bij,bjt->bit", same.astype(float), x)


def are_same(
    number: Int[ndarray, "batch episode"],
) -> Bool[ndarray, "batch episode episode"]:
    """Which two episodes of a batch have the same number."""
    return number[:, :, None] == number[:, None, :]


Mean: TypeAlias = Callable[[Batches, ndarray], ndarray]


def whitened(
    batches: Batches,
    x: ndarray,
    mean: Mean,
    centred: bool = True,
    ddof: int = 0,
    inside: bool = False,
) -> ndarray:
    """(x - mean) / (deviation + 1e-8), both taken over the same sample, or `inside` of the root,
    √(variance + 1e-8); `ddof` as in NumPy's std.
    """
    x = x * np.ones_like(batches.mask)
    middle = mean(batches, x)
    variance = mean(batches, (x - middle) ** 2)
    if ddof:
        size = sample_size(batches, mean)
        variance = variance * size / (size - 1)
    shifted = x - middle if centred else x
    if inside:
        return shifted / np.sqrt(variance + 1e-8)
    return shifted / (np.sqrt(variance) + 1e-8)


def sample_size(batches: Batches, mean: Mean) -> ndarray:
    """How many numbers a mean is over."""
    mask = batches.mask
    if mean is Batches.over_steps:
        return mask.sum(axis=2, keepdims=True)
    if mean is Batches.over_batch:
        return batches.over_call(mask)
    if mean is Batches.over_time_step:
        return np.maximum(batches.at_time_step(mask), 1)
    return batches.same_group.sum(2)[:, :, None]
