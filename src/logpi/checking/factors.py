"""The parts of wrong and right estimators: weights of ∇ log π as arrays [batch, episode, time]."""

from collections.abc import Callable, Mapping
from functools import cached_property

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from logpi.theory.exact import softmax

Weight = Float[ndarray, "batch episode time"]


class Data:
    """The fields of all batches of one shape, and what most entries need of them."""

    def __init__(
        self,
        fields: Mapping[str, ndarray],
        discount: float,
        log_prob: ndarray,
        probability: ndarray,
        rollout: bool,
    ):
        self.fields, self.discount, self.rollout = fields, discount, rollout
        self.log_prob, self.probability = log_prob, probability
        self.mask = fields["mask"].astype(float)
        self.reward, self.value, self.next_value = (
            fields["reward"],
            fields["value"],
            fields["next_value"],
        )
        self.terminated, self.truncated, self.done = (
            fields[n] for n in ("terminated", "truncated", "done")
        )

    @cached_property
    def returns(self) -> Weight:
        """R_t; in a rollout with the critic's value of the state that it goes on from."""
        return self.returns_of(self.reward, self.discount)

    def returns_of(self, reward: ndarray, discount: float) -> Weight:
        """R_t of other rewards or another discount."""
        return self.scan(self.bootstrapped(reward, discount), discount, self.done)

    def bootstrapped(self, reward: ndarray, discount: float) -> Weight:
        """Rewards, the last row of a rollout with γ V(s_K) added where it is cut."""
        if not self.rollout:
            return reward
        extra = np.zeros_like(reward)
        extra[:, :, -1] = discount * np.where(self.done[:, :, -1], 0.0, self.next_value[:, :, -1])
        return reward + extra

    def scan(self, delta: ndarray, decay: float, cut: ndarray, across: bool = False) -> Weight:
        """x_t = delta_t + decay x_{t+1} from the end, x_{t+1} left out after a cut; `across`: into the next episode."""
        out, later = np.zeros_like(delta), np.zeros(len(delta))
        for n in reversed(range(delta.shape[1])):
            later = later if across else np.zeros(len(delta))
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
        next_value: ndarray | None = None,
    ) -> Weight:
        """Generalised advantages; `boot` marks steps whose next value counts, `cut` those after which the sum ends."""
        boot = ~self.done if boot is None else boot
        cut = self.done if cut is None else cut
        after = self.next_value if next_value is None else next_value
        delta = self.reward + self.discount * np.where(boot, after, 0.0) - self.value
        return self.scan(delta, self.discount * decay, cut, across)

    @cached_property
    def whole(self) -> Float[ndarray, "batch episode 1"]:
        """R(τ) of each episode."""
        return self.returns[:, :, :1]

    def over_steps(self, x: ndarray) -> ndarray:
        """Mean over the steps of each episode, kept as [batch, episode, 1]."""
        return np.sum(x * self.mask, axis=2, keepdims=True) / np.sum(
            self.mask, axis=2, keepdims=True
        )

    def over_batch(self, x: ndarray) -> ndarray:
        """Mean over all steps of the batch, kept as [batch, 1, 1]."""
        return np.sum(x * self.mask, axis=(1, 2), keepdims=True) / np.sum(
            self.mask, axis=(1, 2), keepdims=True
        )

    def over_time_step(self, x: ndarray) -> ndarray:
        """Mean over the episodes that are running at t, kept as [batch, 1, time]."""
        return np.sum(x * self.mask, axis=1, keepdims=True) / np.maximum(
            np.sum(self.mask, axis=1, keepdims=True), 1
        )

    def over_group(self, x: Float[ndarray, "batch episode #time"]) -> ndarray:
        """Mean over the episodes with the same prompt."""
        group = self.fields["group"]
        same = (group[:, :, None] == group[:, None, :]).astype(float)
        return np.einsum("bij,bjk->bik", same / same.sum(2, keepdims=True), x)

    @cached_property
    def ratio(self) -> Weight:
        """ρ_t = π(a_t|s_t) / law that a_t was drawn from."""
        return np.where(self.mask > 0, np.exp(self.log_prob - self.fields["old_log_prob"]), 1.0)


def whitened(
    mean: Callable[[Data, ndarray], ndarray],
    what: Callable[[Data], ndarray],
    centred: bool = True,
    ddof: int = 0,
) -> Callable[[Data], ndarray]:
    """(x - mean) / (deviation + 1e-8), both taken over the same sample; `ddof` as in NumPy's std."""

    def weight(d: Data) -> ndarray:
        x = what(d) * np.ones_like(d.mask)
        middle = mean(d, x)
        variance = mean(d, (x - middle) ** 2)
        if ddof:
            size = sample_size(d, mean)
            variance = variance * size / (size - 1)
        return (x - middle if centred else x) / (np.sqrt(variance) + 1e-8)

    return weight


def sample_size(d: Data, mean: Callable[[Data, ndarray], ndarray]) -> ndarray:
    """How many numbers a mean is over."""
    if mean is Data.over_steps:
        return d.mask.sum(axis=2, keepdims=True)
    if mean is Data.over_batch:
        return d.mask.sum(axis=(1, 2), keepdims=True)
    if mean is Data.over_time_step:
        return np.maximum(d.mask.sum(axis=1, keepdims=True), 1)
    group = d.fields["group"]
    return (group[:, :, None] == group[:, None, :]).sum(2)[:, :, None]


def kept_groups(d: Data) -> ndarray:
    """R(τ) minus the mean of the others of its group, averaged over groups with unequal R(τ) only."""
    middle = d.over_group(d.whole)
    size = sample_size(d, Data.over_group)
    kept = d.over_group((d.whole - middle) ** 2) > 1e-18
    share = kept.shape[1] / np.maximum(kept.sum(axis=1, keepdims=True), 1)
    return (d.whole - middle) * size / np.maximum(size - 1, 1) * kept * share * d.mask


def forward(d: Data) -> ndarray:
    """Discounted sum of the rewards so far, instead of those to come."""
    out, before = np.zeros_like(d.reward), np.zeros(d.reward.shape[:2])
    for t in range(d.reward.shape[2]):
        out[:, :, t] = before = d.reward[:, :, t] + d.discount * before
    return out


def reversed_in_time(d: Data, x: ndarray) -> ndarray:
    """Each episode back to front."""
    length = d.fields["length"][:, :, None]
    index = np.clip(length - 1 - np.arange(x.shape[2]), 0, None)
    return np.take_along_axis(x, np.broadcast_to(index, x.shape), axis=2)


def delayed(d: Data) -> ndarray:
    """Returns of rewards that stand one row late."""
    late = np.zeros_like(d.reward)
    late[:, :, 1:] = d.reward[:, :, :-1]
    return d.returns_of(late, d.discount)


def same_state_mean(d: Data) -> ndarray:
    """Mean return over all steps of the batch with the same observation: a table fitted to the batch."""
    seen = d.fields["observation"].reshape(len(d.mask), -1)
    flat = (d.returns * d.mask).reshape(len(d.mask), -1)
    same = (seen[:, :, None] == seen[:, None, :]) * d.mask.reshape(len(d.mask), 1, -1)
    return (np.einsum("bij,bj->bi", same, flat) / np.maximum(same.sum(2), 1)).reshape(d.mask.shape)


def final(d: Data, x: ndarray, where: ndarray) -> ndarray:
    """γ^{T-t} x at the end of the episode, where it ended in that way."""
    return d.scan(np.where(where, d.discount * x, 0.0), d.discount, d.done)


def clipped_reward(low: float, high: float) -> Callable[[Data], ndarray]:
    """Returns of rewards clipped to [low, high]."""
    return lambda d: d.returns_of(np.clip(d.reward, low, high), d.discount)


def scaled_reward(d: Data) -> ndarray:
    """Returns of rewards divided by their deviation over the batch."""
    deviation = np.sqrt(d.over_batch((d.reward - d.over_batch(d.reward)) ** 2))
    return d.returns_of(d.reward / (deviation + 1e-8), d.discount)


def budget(least: int) -> Callable[[Data], ndarray]:
    """Whole episodes until `least` steps are there; the others are not looked at."""

    def weight(d: Data) -> ndarray:
        before = np.cumsum(d.fields["length"], axis=1) - d.fields["length"]
        used = before < least
        return d.returns * used[:, :, None] * used.shape[1] / used.sum(1)[:, None, None]

    return weight


def episodes_whitened(d: Data, ddof: int) -> ndarray:
    """R(τ) shifted and scaled over the episodes of the batch."""
    with np.errstate(all="ignore"):
        deviation = (
            d.whole.std(axis=1, keepdims=True, ddof=ddof) if d.whole.shape[1] > ddof else np.nan
        )
    return (d.whole - d.whole.mean(axis=1, keepdims=True)) / (deviation + 1e-8) * d.mask


def cumulative(d: Data) -> ndarray:
    """Π_{j≤t} ρ_j."""
    return np.cumprod(d.ratio, axis=2)


def per_decision(d: Data, advantage: ndarray) -> ndarray:
    """Σ_{k≥t} γ^{k-t} r_k Π_{j≤k} ρ_j in place of R_t, for the advantage that is R_t; else the whole product."""
    if advantage is d.returns:
        return d.returns_of(d.reward * cumulative(d), d.discount)
    return advantage * np.prod(d.ratio, axis=2, keepdims=True)


def clip(epsilon: float) -> Callable[[Data, ndarray], ndarray]:
    """Derivative of PPO's pessimistic surrogate by log π: ρ A, or 0 where the clipped branch is taken."""

    def weight(d: Data, advantage: ndarray) -> ndarray:
        stopped = np.where(advantage > 0, d.ratio > 1 + epsilon, d.ratio < 1 - epsilon)
        return advantage * d.ratio * ~stopped

    return weight


def double_softmax(logits: ndarray, d: Data, weight: ndarray) -> ndarray:
    """weight × ∂ log softmax(softmax(logits))_a / ∂ logits."""
    first = softmax(logits)
    by_first = np.eye(logits.shape[-1])[d.fields["action"]] - softmax(first)
    return weight[..., None] * first * (by_first - np.sum(first * by_first, axis=-1, keepdims=True))


def softmax_over(axis: int) -> Callable[[ndarray, Data, ndarray], ndarray]:
    """Σ weight × ∂ log softmax over another axis / ∂ logits."""

    def by_logits(logits: ndarray, d: Data, weight: ndarray) -> ndarray:
        chosen = np.eye(logits.shape[-1])[d.fields["action"]] * weight[..., None]
        exponential = np.exp(logits)
        return chosen - exponential / exponential.sum(axis, keepdims=True) * chosen.sum(
            axis, keepdims=True
        )

    return by_logits


def k3(d: Data) -> ndarray:
    """Schulman's estimate of the KL, r - 1 - log r where r is reference over π."""
    log_ratio = d.fields["reference_log_prob"] - d.log_prob
    return d.mask * (np.exp(log_ratio) - 1 - log_ratio)
