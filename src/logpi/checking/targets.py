"""What an expected gradient may be the gradient of: the named targets, each computed without
trajectories.

All are written as Σ_{t,s} (visits of s at t) × ∂/∂π(a|s), pulled through the softmax, or through
the sampler's law.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from logpi.checking.cases import Columns
from logpi.checking.probes import Probe
from logpi.core.differences import STEP, derivative
from logpi.core.errors import LogpiError
from logpi.estimators.contract import Layout
from logpi.theory.exact import continuing_values, occupancy, policy_values, softmax, through_softmax
from logpi.theory.mdp import FiniteMDP

TARGETS: Mapping[str, str] = {
    "discounted": "∇J of the discounted return, with γ^t",
    "undiscounted": "∇J of the plain sum of rewards",
    "conventional": "Σ_t E[A_t ∇ log π] without γ^t, as most libraries have it",
    "continuing": "the task that goes on after the time limit, with γ^t",
    "conventional-continuing": "the task that goes on after the time limit, without γ^t",
    "policy": "∇J of the policy itself, where a sampler acts in its place",
    "reverse-kl": "-∇KL(π, reference) of whole trajectories",
    "forward-kl": "-∇KL(reference, π) of whole trajectories",
    "reverse-kl-per-step": (
        "-∇ of KL(π, reference) in each visited state, without its effect on later states"
    ),
    "forward-kl-per-step": (
        "-∇ of KL(reference, π) in each visited state, without its effect on later states"
    ),
    "entropy": "∇ of the entropy in each visited state, without its effect on later states",
    "entropy-objective": "∇ of the expected sum of entropies, with its effect on later states",
    "entropy-regularised": "∇ of J with entropy_coefficient × entropy added to every reward",
    "entropy-bonus": "∇J plus entropy_coefficient × the entropy in each visited state",
    "regularised": "∇ of J, the plain sum of rewards, minus kl_coefficient × KL(π, reference)",
    "regularised-per-step": (
        "∇ of J, the plain sum of rewards, minus kl_coefficient × KL(π, reference) in each visited"
        " state"
    ),
    "best-of-k": "∇ of the expected maximum of the returns of k answers to one prompt",
    "pass-at-k": "∇ of the probability that one of k answers to a prompt is right: rewards 0 and 1",
    "objective": "∇ of the expectation of your own function of an episode, or of a group of them",
}


class Coefficients(NamedTuple):
    """How much of the entropy, and of the KL to the reference, stands beside the reward."""

    entropy: float = 0.01
    kl: float = 0.1


@dataclass(frozen=True)
class Law:
    """The law that actions are drawn from, as a function of the policy's logits."""

    table: Float[ndarray, "O A"]
    jacobian: Float[ndarray, "O A O A"] | None = None
    """∂law/∂logits; None for the softmax itself."""


# By what is subtracted from the reward.
REGULARISED = {"reverse-kl": "regularised", "reverse-kl-per-step": "regularised-per-step"}

Measure = Callable[[ndarray], ndarray]  # π(a|s) → visits [time, S]


def visits(probe: Probe, layout: Layout, columns: Columns | None) -> Float[ndarray, "time S"]:
    """How often state s at its step t is met: P(s_t = s) in an episode, the share of the rows of a
    rollout.
    """
    mdp = probe.mdp
    if layout != "rollout" or columns is None:
        return occupancy(mdp, probe.policy[mdp.observation])
    state = columns.fields["state"]
    met = np.zeros((mdp.horizon, mdp.states))
    where = (probe.step[state], state)
    np.add.at(
        met, where, np.broadcast_to(columns.probability[:, None], state.shape) / state.shape[1]
    )
    return met


def targets(
    probe: Probe,
    layout: Layout,
    law: Law,
    columns: Columns | None,
    names: tuple[str, ...],
    coefficients: Coefficients,
) -> dict[str, Float[ndarray, "O A"]]:
    """The gradients of all targets that make sense for an estimator which asks for `names`."""
    acted = _Gradients(probe, law, layout, columns)
    found = {
        "discounted": acted.reward(),
        "undiscounted": acted.reward(discount=1.0),
        "conventional": acted.reward(power=False),
    }
    with suppress(LogpiError):  # a process that never ends may have none
        found["continuing"] = acted.reward(continuing=True)
        found["conventional-continuing"] = acted.reward(power=False, continuing=True)
    if law.jacobian is not None:
        found["policy"] = _Gradients(probe, Law(probe.policy), layout, columns).reward()
    if "reference_log_prob" in names:
        found |= acted.kl()
        for kl, regularised in REGULARISED.items():
            found[regularised] = found["undiscounted"] + coefficients.kl * found[kl]
    if {"entropy", "logits", "policy", "log_prob"} & set(names):
        found |= acted.entropy(coefficients.entropy)
    return found


class _Gradients:
    def __init__(self, probe: Probe, law: Law, layout: Layout, columns: Columns | None):
        self.probe = probe
        self.mdp = probe.mdp
        self.law = law
        self.policy = law.table[self.mdp.observation]
        self.visits = visits(
            replace(probe, logits=np.log(np.maximum(law.table, 1e-300))), layout, columns
        )

    def pull(self, by_policy: Float[ndarray, "S A"]) -> Float[ndarray, "O A"]:
        """∂f/∂logits from ∂f/∂π(a|s)."""
        if self.law.jacobian is None:
            return through_softmax(self.mdp, self.policy, by_policy)
        by_observation = np.zeros(self.law.table.shape)
        np.add.at(by_observation, self.mdp.observation, by_policy)
        return np.tensordot(by_observation, self.law.jacobian, axes=2)

    def weighted(
        self, process: FiniteMDP, power: float, value: Float[ndarray, "time S A"]
    ) -> Float[ndarray, "S A"]:
        """Σ_t power^t visits_t(s) f_t(s,a)."""
        return np.einsum("t,ts,tsa->sa", power ** np.arange(process.horizon), self.visits, value)

    def reward(
        self, discount: float | None = None, power: bool = True, continuing: bool = False
    ) -> ndarray:
        """Σ_t γ^t visits ∇π Q."""
        if discount is None:
            process = self.mdp
        else:
            process = self.mdp.replace(discount=discount)
        if continuing:
            after = continuing_values(process, self.policy)
        else:
            after = None
        q = policy_values(process, self.policy, after).action
        return self.pull(self.weighted(process, process.discount if power else 1.0, q))

    def kl(self) -> dict[str, ndarray]:
        """Of whole trajectories by dynamic programming on log π/reference as a reward, and state by
        state.
        """
        mdp = self.mdp
        policy = self.policy
        reference = softmax(self.probe.reference)[mdp.observation]
        ratio = np.log(np.maximum(policy, 1e-300) / reference)
        process = mdp.replace(
            discount=1.0, reward=np.broadcast_to(ratio[:, :, None], mdp.reward.shape)
        )
        q = policy_values(process, policy).action
        ones = np.ones((mdp.horizon, 1, 1))
        return {
            "reverse-kl": -self.pull(self.weighted(mdp, 1.0, q)),
            "forward-kl": self.pull(occupancy(mdp, reference).sum(0)[:, None] * reference / policy),
            "reverse-kl-per-step": -self.pull(self.weighted(mdp, 1.0, ones * (ratio + 1))),
            "forward-kl-per-step": self.pull(self.weighted(mdp, 1.0, ones * reference / policy)),
        }

    def entropy(self, coefficient: float) -> dict[str, ndarray]:
        """Of visited states, of the whole objective, and both beside the reward."""
        mdp = self.mdp
        policy = self.policy
        own = -np.log(np.maximum(policy, 1e-300)) - 1
        entropy = np.sum(policy * (own + 1), axis=1)
        bonus = np.broadcast_to(entropy[:, None, None], mdp.reward.shape)
        ones = np.ones((mdp.horizon, 1, 1))
        per_step = self.pull(self.weighted(mdp, 1.0, ones * own))

        def objective(process: FiniteMDP, scale: float) -> ndarray:
            q = policy_values(process, policy).action + scale * own
            return self.pull(self.weighted(process, process.discount, q))

        return {
            "entropy": per_step,
            "entropy-objective": objective(mdp.replace(discount=1.0, reward=bonus), 1.0),
            "entropy-regularised": objective(
                mdp.replace(reward=mdp.reward + coefficient * bonus), coefficient
            ),
            "entropy-bonus": self.reward() + coefficient * per_step,
        }


def law_of(logits: Float[ndarray, "O A"], sampler: Callable[[ndarray], ndarray]) -> Law:
    """The sampler's law at these logits, and its derivative: in small steps, since laws with argmax
    have jumps.

    Steps are large where the law is in single precision, whose rounding a small step would blow up.
    """
    law = sampler(logits)
    step = STEP if law.dtype == np.float32 else 2.0**-9
    return Law(
        law.astype(np.float64), derivative(lambda x: sampler(x).astype(np.float64), logits, step)
    )
