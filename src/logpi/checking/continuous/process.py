"""One step with a Gaussian action, and the places at which its law is looked at.

o ~ p(o),  u ~ N(μ_o, σ_o²) in each dimension,  a = clip(u, -1, 1) or tanh(u),  r = r(o, a)
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from logpi.checking.continuous.quadrature import gaussian_rule
from logpi.checking.expectation import Moments, by_row
from logpi.checking.fitting import Size
from logpi.estimators.contract import NAMES

# How the action reaches the environment: clipped to [-1, 1], or by tanh.
GaussianActions: TypeAlias = Literal["gaussian", "tanh-gaussian"]
GAUSSIAN_NAMES: Mapping[str, str] = {
    "mean": "[episodes, time, dimensions] μ of the Gaussian, differentiable",
    "log_std": "[episodes, time, dimensions] log σ of the Gaussian, differentiable",
    "raw_action": "[episodes, time, dimensions] u, what was drawn from the Gaussian",
    "action": "[episodes, time, dimensions] what the environment executes: u clipped, or tanh(u)",
    **{
        name: NAMES[name]
        for name in (
            "log_prob",
            "entropy",
            "observation",
            "reward",
            "terminated",
            "truncated",
            "done",
            "mask",
            "step",
            "length",
            "discount",
            "value",
            "old_log_prob",
        )
    },
}
GAUSSIAN_DIFFERENTIABLE = ("mean", "log_std", "log_prob", "entropy")
START = np.array([0.6, 0.4])
# Of 1, a, a² and a³, for each observation.
REWARD = np.array([[1.3, 0.9, -0.7, 0.4], [0.6, -0.8, 0.5, 0.7]])
# Of the product of the actions of two dimensions.
TOGETHER = 0.6
# Of a rule in each interval: for single actions, and for pairs of them, of which there are many.
NODES: Mapping[GaussianActions, tuple[int, int]] = {
    "gaussian": (16, 4),
    "tanh-gaussian": (30, 14),
}
# A critic that is wrong on purpose.
VALUE = np.array([0.7, -0.4])


class Gaussian(NamedTuple):
    """μ and log σ of every observation."""

    mean: Float[ndarray, "O D"]
    log_std: Float[ndarray, "O D"]


@dataclass(frozen=True)
class GaussianProbe:
    """A policy, the law that acts if that is another one, and the size of a batch."""

    name: str
    actions: GaussianActions
    policy: Gaussian
    acting: Gaussian
    episodes: int
    nodes: int
    """Of the rule, in each interval of each dimension."""

    @property
    def dimensions(self) -> int:
        return self.policy.mean.shape[1]

    def execute(self, raw: Float[ndarray, "*more D"]) -> Float[ndarray, "*more D"]:
        """a, what the environment gets."""
        if self.actions == "gaussian":
            return np.clip(raw, -1.0, 1.0)
        return np.tanh(raw)

    def log_jacobian(self, raw: Float[ndarray, "*more D"]) -> Float[ndarray, "*more D"]:
        """log |da/du|, which the density of tanh(u) is divided by; 0 where clipping comes after
        what the policy gives.
        """
        if self.actions == "gaussian":
            return np.zeros_like(raw)
        return np.log1p(-(np.tanh(raw) ** 2))

    def reward(
        self, observation: Int[ndarray, "*more"], raw: Float[ndarray, "*more D"]
    ) -> Float[ndarray, "*more"]:
        """r(o, a)."""
        executed = self.execute(raw)
        powers = executed[..., None] ** np.arange(4)
        found = np.sum(powers * REWARD[observation][..., None, :], axis=(-2, -1))
        if self.dimensions > 1:
            found = found + TOGETHER * executed[..., 0] * executed[..., 1]
        return found

    @cached_property
    def points(self) -> "Points":
        """Those of the law that acts."""
        return points_of(self, self.acting)

    @cached_property
    def own_points(self) -> "Points":
        """Those of the policy, which targets and entropies are integrals over."""
        return points_of(self, self.policy)

    @cached_property
    def batches(self) -> "Points":
        """All ordered batches of `episodes` points: arrays [batch, episode]."""
        single = self.points
        count = len(single.probability)
        index = np.array(list(product(range(count), repeat=self.episodes)))
        probability = np.prod(single.probability[index], axis=1)
        return Points(probability, single.observation[index], single.raw[index])


class Points(NamedTuple):
    """Places of the law that acts, and their probabilities: E[f] = Σ p f; single ones, or batches
    of them.
    """

    probability: Float[ndarray, " batch"]
    observation: Int[ndarray, "batch ..."]
    raw: Float[ndarray, "batch ... D"]


@dataclass(frozen=True)
class GaussianMeasurement:
    """One probe, what the estimator does there, and the gradients of all targets."""

    probe: GaussianProbe
    moments: Moments
    targets: dict[str, ndarray]
    discount: float

    @property
    def size(self) -> Size:
        """N; there is one step, and no group."""
        return self.probe.episodes, 0, 1


def points_of(probe: GaussianProbe, law: Gaussian) -> Points:
    """The product of the rules of the dimensions, for each observation."""
    probability = []
    observation = []
    raw = []
    for number, start in enumerate(START):
        rules = []
        for mean, std in zip(law.mean[number], np.exp(law.log_std[number]), strict=True):
            edges = ()
            if probe.actions == "gaussian":
                edges = ((-1 - mean) / std, (1 - mean) / std)
            rule = gaussian_rule(edges, probe.nodes)
            rules.append((mean + std * rule.node, rule.weight))
        places = np.meshgrid(*(node for node, _ in rules), indexing="ij")
        weights = np.meshgrid(*(weight for _, weight in rules), indexing="ij")
        raw.append(np.stack([place.ravel() for place in places], axis=-1))
        probability.append(start * np.prod([weight.ravel() for weight in weights], axis=0))
        observation.append(np.full(len(raw[-1]), number))
    return Points(np.concatenate(probability), np.concatenate(observation), np.concatenate(raw))


def log_normal(
    law: Gaussian, observation: Int[ndarray, "*more"], raw: Float[ndarray, "*more D"]
) -> Float[ndarray, "*more D"]:
    """log N(u; μ_o, σ_o²) = -((u - μ)/σ)²/2 - log σ - log(2π)/2."""
    log_std = law.log_std[observation]
    distance = (raw - law.mean[observation]) / np.exp(log_std)
    return -(distance**2) / 2 - log_std - np.log(2 * np.pi) / 2


def log_density(
    probe: GaussianProbe,
    law: Gaussian,
    observation: Int[ndarray, "*more"],
    raw: Float[ndarray, "*more D"],
) -> Float[ndarray, "*more"]:
    """log π of what the policy gives: u where the environment clips it, tanh(u) where the policy
    does that, log N(u) - log(1 - tanh²(u)).
    """
    return np.sum(log_normal(law, observation, raw) - probe.log_jacobian(raw), axis=-1)


def score(
    law: Gaussian, observation: Int[ndarray, "*more"], raw: Float[ndarray, "*more D"]
) -> Float[ndarray, "*more D 2"]:
    """∇ log N(u; μ, σ²) by μ, (u - μ)/σ², and by log σ, ((u - μ)/σ)² - 1, in each dimension."""
    std = np.exp(law.log_std[observation])
    distance = (raw - law.mean[observation]) / std
    return np.stack([distance / std, distance**2 - 1], axis=-1)


def by_observation(
    observation: Int[ndarray, "batch episode"], slope: Float[ndarray, "batch episode D 2"]
) -> Float[ndarray, "batch O P"]:
    """Σ over the episodes of a batch of what each adds to μ_o and log σ_o of its observation."""
    flat = slope.reshape(*observation.shape, -1)
    columns = [
        by_row(observation, flat[..., parameter], len(START)) for parameter in range(flat.shape[-1])
    ]
    return np.stack(columns, axis=-1)


def expected_score(probe: GaussianProbe, value: Float[ndarray, " point"]) -> Float[ndarray, "O P"]:
    """Σ_o p(o) ∫ N(u) f(o, u) ∇ log N(u) du of a value f at the policy's own points."""
    points = probe.own_points
    scores = score(probe.policy, points.observation, points.raw)
    weighted = (points.probability * value)[:, None, None] * scores
    return by_observation(points.observation[:, None], weighted[:, None]).sum(axis=0)


def entropy(probe: GaussianProbe) -> Float[ndarray, " O"]:
    """H_o = Σ_d (log σ + log(2πe)/2) + E[log |da/du|]."""
    own = np.sum(probe.policy.log_std + np.log(2 * np.pi * np.e) / 2, axis=1)
    points = probe.own_points
    stretched = points.probability * np.sum(probe.log_jacobian(points.raw), axis=1)
    return own + by_row(points.observation[None], stretched[None], len(START))[0] / START


def entropy_slope(probe: GaussianProbe, of_gaussian: bool = False) -> Float[ndarray, "O D 2"]:
    """∇H_o: 1 by log σ, and ∇E[log |da/du|] = E[log |da/du| ∇ log N], which an entropy of the
    Gaussian alone leaves out.
    """
    slope = np.zeros((*probe.policy.mean.shape, 2))
    slope[..., 1] = 1.0
    if of_gaussian:
        return slope
    added = expected_score(probe, np.sum(probe.log_jacobian(probe.own_points.raw), axis=1))
    return slope + added.reshape(slope.shape) / START[:, None, None]


def gradients(probe: GaussianProbe, coefficient: float) -> dict[str, Float[ndarray, "O P"]]:
    """∇J = Σ_o p(o) ∫ N(u) r(o, a) ∇ log N(u) du, ∇ of the expected entropy, and their sum."""
    points = probe.own_points
    of_reward = expected_score(probe, probe.reward(points.observation, points.raw))
    of_entropy = (START[:, None, None] * entropy_slope(probe)).reshape(of_reward.shape)
    return {
        "discounted": of_reward,
        "entropy": of_entropy,
        "entropy-regularised": of_reward + coefficient * of_entropy,
    }


def make_gaussian_probes(
    actions: GaussianActions, least_episodes: int, has_older: bool
) -> list[GaussianProbe]:
    """One dimension in batches of `least_episodes` and of two, two dimensions, and data of an older
    policy where an estimator asks for its log-probabilities.
    """
    many, few = NODES[actions]
    policy = Gaussian(np.array([[0.7], [-0.5]]), np.log([[0.3], [0.25]]))
    older = Gaussian(np.array([[0.55], [-0.4]]), np.log([[0.32], [0.28]]))
    both = Gaussian(np.array([[0.7, -0.3], [-0.5, 0.8]]), np.log([[0.3, 0.2], [0.25, 0.3]]))
    one = GaussianProbe("one action", actions, policy, policy, 1, many)
    pairs = replace(one, episodes=2, nodes=few)
    first = one
    if least_episodes == 2:
        first = pairs
    probes = [first]
    if least_episodes == 1:
        probes.append(pairs)
        probes.append(replace(one, name="two dimensions", policy=both, acting=both, nodes=few))
    if has_older:
        probes.append(replace(first, name="older policy", acting=older))
    return probes
