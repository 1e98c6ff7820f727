"""The lines of the derivation [D0.1] … [D4.4], each with both sides computed.

The left side never uses the line that is shown: it comes from dynamic programming, from finite
differences, or from a recursion; the right side is the line itself, as a sum over all trajectories.
A wrong line would show.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from logpi.core.differences import derivative
from logpi.theory.enumeration import Enumeration, enumerate_trajectories
from logpi.theory.exact import (
    exact_objective,
    occupancy,
    policy_values,
    softmax,
    state_policy,
    through_softmax,
)
from logpi.theory.mdp import FiniteMDP


@dataclass(frozen=True)
class Line:
    """One equation, and its two sides for one process and one policy."""

    tag: str
    equation: str
    left: ndarray
    left_is: str
    right: ndarray
    right_is: str

    @property
    def difference(self) -> float:
        """The largest absolute difference between the two sides."""
        return float(np.abs(self.left - self.right).max())

    @property
    def largest(self) -> tuple[float, float]:
        """Both sides of the entry that is largest on the left."""
        where = np.abs(self.left).argmax()
        return float(self.left.flat[where]), float(self.right.flat[where])


@dataclass
class Sides:
    """What the two sides are made of. Trajectories are the last axis but those of θ."""

    mdp: FiniteMDP
    logits: Float[ndarray, "O A"]
    policy: Float[ndarray, "S A"]

    @cached_property
    def every(self) -> Enumeration:
        return enumerate_trajectories(self.mdp)

    @cached_property
    def probability(self) -> Float[ndarray, " trajectory"]:
        return self.every.probability(self.policy)

    @cached_property
    def gradient(self) -> Float[ndarray, "O A"]:
        """∇J by finite differences of the J of dynamic programming."""
        return derivative(lambda logits: exact_objective(self.mdp, logits), self.logits)

    @cached_property
    def power(self) -> Float[ndarray, "time 1"]:
        return self.mdp.discount ** np.arange(self.mdp.horizon)[:, None]

    @cached_property
    def whole(self) -> Float[ndarray, " trajectory"]:
        """R(τ) [D0.3]."""
        return np.sum(self.power * self.every.reward, axis=0)

    @cached_property
    def returns(self) -> Float[ndarray, "time trajectory"]:
        """R_t by its recursion [D4.2]."""
        returns = np.zeros_like(self.every.reward)
        later = 0.0
        for t in reversed(range(self.mdp.horizon)):
            returns[t] = later = self.every.reward[t] + self.mdp.discount * later
        return returns

    def mean(self, value: Float[ndarray, " trajectory *more"]) -> ndarray:
        """E_τ[ value(τ) ] = Σ_τ p(τ|θ) value(τ)."""
        return np.tensordot(self.probability, value, axes=1)

    def score_sum(
        self, weight: Float[ndarray, "time trajectory"]
    ) -> Float[ndarray, "trajectory O A"]:
        """Σ_t w_t ∇ log π(a_t|s_t; θ), ∇ log π(a|o) being 1[a] - π(·|o) in row o and zero in the
        others.
        """
        every = self.every
        total = np.zeros((len(self.probability), *self.logits.shape))
        column = np.arange(len(self.probability))
        for t in range(self.mdp.horizon):
            w = np.where(every.mask[t], weight[t], 0.0)
            seen = self.mdp.observation[every.state[t]]
            total[column, seen] -= w[:, None] * self.policy[every.state[t]]
            total[column, seen, every.action[t]] += w
        return total

    @cached_property
    def estimates(self) -> Float[ndarray, "trajectory O A"]:
        """Σ_t γ^t R_t ∇ log π(a_t|s_t; θ) of each trajectory [D4.4]."""
        return self.score_sum(self.power * self.returns)

    def field(self, factor: float) -> Callable[[ndarray], ndarray]:
        """θ ↦ E[ Σ_t factor^t R_t ∇ log π ], as a sum over states instead of trajectories."""

        def value(logits: ndarray) -> ndarray:
            policy = state_policy(self.mdp, logits)
            steps = factor ** np.arange(self.mdp.horizon)
            q = policy_values(self.mdp, policy).action
            return through_softmax(
                self.mdp, policy, np.einsum("t,ts,tsa->sa", steps, occupancy(self.mdp, policy), q)
            )

        return value

    def one_after_another(self, alpha: float) -> float:
        """θ moved at every step t of the episode instead of once: how far (E[θ'] - θ)/α is from
        ∇J.
        """
        every = self.every
        column = np.arange(len(self.probability))
        moving = np.tile(self.logits, (len(column), 1, 1))
        for t in range(self.mdp.horizon):
            seen = self.mdp.observation[every.state[t]]
            score = np.eye(self.mdp.actions)[every.action[t]] - softmax(moving[column, seen])
            step = np.where(every.mask[t], self.power[t] * self.returns[t], 0.0)
            moving[column, seen] += alpha * step[:, None] * score
        return float(np.abs(self.mean(moving - self.logits) / alpha - self.gradient).max())


def _objective_lines(sides: Sides) -> Iterator[Line]:
    """J(θ) and the return of a trajectory."""
    every = sides.every
    horner = sides.returns[0]
    plain = np.zeros(len(sides.probability))
    for reward in every.reward[::-1]:
        plain = reward + plain
    yield Line(
        "D0.1",
        "J(θ) = E_{τ ~ p(τ|θ)} [ R(τ) ]",
        np.asarray(exact_objective(sides.mdp, sides.logits)),
        "values by dynamic programming",
        np.asarray(sides.mean(sides.whole)),
        "sum over all trajectories",
    )
    yield Line(
        "D0.2",
        "R(τ) = Σ_{t=0}^{T-1} r_{t+1}",
        plain,
        "R_t = r_{t+1} + R_{t+1} from the end, each τ",
        every.reward.sum(axis=0),
        "the plain sum, each τ",
    )
    yield Line(
        "D0.3",
        "R(τ) = Σ_{t=0}^{T-1} γ^t r_{t+1}",
        horner,
        "R_t = r_{t+1} + γ R_{t+1} from the end, each τ",
        sides.whole,
        "the discounted sum, each τ",
    )


def _identity_lines(sides: Sides) -> Iterator[Line]:
    """Three identities that the derivation uses."""
    log_slope = derivative(lambda logits: np.log(softmax(logits)), sides.logits)
    slope = derivative(softmax, sides.logits)
    yield Line(
        "D1.1",
        "∇_θ log z = (1/z) ∇_θ z",
        log_slope,
        "finite differences of log π(a|s)",
        slope / softmax(sides.logits)[..., None, None],
        "finite differences of π(a|s), over π(a|s)",
    )
    edges = np.concatenate([[0.0], np.cumsum(sides.probability)])
    yield Line(
        "D1.2",
        "E_{x~p(x)}[ f(x) ] = ∫ p(x) f(x) dx",
        np.asarray(np.diff(edges) @ sides.whole),
        "f(x(u)) over the uniform number u that draws x = τ",
        np.asarray(sides.mean(sides.whole)),
        "Σ_τ p(τ|θ) f(τ), f = R",
    )
    other = np.full_like(sides.policy, 1 / sides.mdp.actions)
    drawn = sides.every.probability(other)
    yield Line(
        "D1.3",
        "a/b = (a p(x))/(b p(x)): E_p[f] = Σ_x q(x) (p(x)/q(x)) f(x) = E_q[ (p/q) f ], q > 0 where"
        " p > 0",
        np.asarray(exact_objective(sides.mdp, sides.logits)),
        "J by dynamic programming",
        np.asarray(np.sum(drawn * (sides.probability / drawn) * sides.whole)),
        "τ from the uniform policy q, weighted by p/q",
    )


def _transition_lines(sides: Sides) -> Iterator[Line]:
    """The gradient for one transition."""
    mdp = sides.mdp
    start = int(np.flatnonzero(sides.mdp.initial)[0])
    once = mdp.replace(initial=np.eye(mdp.states)[start], horizon=1, discount=1.0)
    seen = mdp.observation[start]
    reward = np.sum(mdp.transition[start] * mdp.reward[start], axis=1)
    probability = sides.policy[start]
    row = derivative(lambda logits: exact_objective(once, logits), sides.logits)[seen]
    left_is = "finite differences of the value of one step"
    score = np.eye(mdp.actions) - probability  # ∇ log π(a|s), one row for each a
    slope = probability[:, None] * score  # ∇ π(a|s)
    tau = enumerate_trajectories(once)
    drawn = tau.probability(sides.policy)
    expectation = np.sum((drawn * tau.reward[0])[:, None] * score[tau.action[0]], axis=0)

    def line(tag: str, equation: str, right: ndarray, right_is: str) -> Line:
        return Line(tag, equation, row, left_is, right, right_is)

    yield line(
        "D2.1",
        "∇_θ E_{a~π(a|s;θ)}[ r(a) ] = ∇_θ Σ_a π(a|s;θ) r(a)",
        derivative(lambda logits: softmax(logits)[seen] @ reward, sides.logits)[seen],
        "finite differences of the sum",
    )
    yield line(
        "D2.2",
        "= Σ_a r(a) ∇_θ π(a|s;θ), as r does not depend on θ",
        reward @ slope,
        "∇π = π(a)(1[a] - π)",
    )
    yield line(
        "D2.3",
        "= Σ_a r(a) π(a|s;θ) · ∇_θ π(a|s;θ) / π(a|s;θ), by D1.3",
        (reward * probability) @ (slope / probability[:, None]),
        "the same, times π/π",
    )
    yield line(
        "D2.4",
        "= Σ_a r(a) π(a|s;θ) ∇_θ log π(a|s;θ), by D1.1",
        (reward * probability) @ score,
        "∇log π = 1[a] - π",
    )
    yield line(
        "D2.5",
        "= E_{a~π(a|s;θ)}[ r(a) ∇_θ log π(a|s;θ) ], by D1.2",
        expectation,
        "all transitions that can be drawn",
    )


def _log_probability(sides: Sides, logits: ndarray) -> Float[ndarray, " trajectory"]:
    return np.log(sides.every.probability(softmax(logits)[sides.mdp.observation]))


def _trajectory_lines(sides: Sides) -> Iterator[Line]:
    """The gradient for a whole trajectory."""
    mdp = sides.mdp
    every = sides.every
    flow = np.einsum("ts,sa,sap->tsap", occupancy(mdp, sides.policy), sides.policy, mdp.transition)
    counted = np.zeros_like(flow)
    time = np.broadcast_to(np.arange(mdp.horizon)[:, None], every.mask.shape)
    where = tuple(
        index[every.mask] for index in (time, every.state, every.action, every.next_state)
    )
    np.add.at(counted, where, np.broadcast_to(sides.probability, every.mask.shape)[every.mask])
    yield Line(
        "D3.1",
        "p(τ|θ) = μ(s_0) Π_{t=0}^{T-1} [ π(a_t|s_t;θ) · p(s_{t+1}, r_{t+1}|s_t, a_t) ]",
        flow,
        "P(s_t, a_t, s_{t+1}) by forward recursion",
        counted,
        "sum of p(τ|θ) over the τ that pass there",
    )
    slope = derivative(lambda logits: _log_probability(sides, logits), sides.logits)
    yield Line(
        "D3.2",
        "∇_θ E_τ[ R(τ) ] = E_τ[ R(τ) ∇_θ log p(τ|θ) ]",
        sides.gradient,
        "finite differences of J",
        sides.mean(sides.whole[:, None, None] * slope),
        "finite differences of log p(τ|θ), all τ",
    )
    log_policy = np.where(every.mask, np.log(sides.policy)[every.state, every.action], 0.0)
    yield Line(
        "D3.3",
        "log p(τ|θ) = log μ(s_0) + Σ_t [ log π(a_t|s_t;θ) + log p(s_{t+1}, r_{t+1}|s_t, a_t) ]",
        np.log(sides.probability),
        "logarithm of the product, each τ",
        np.log(every.environment) + log_policy.sum(axis=0),
        "sum of logarithms, each τ",
    )
    score = sides.score_sum(np.ones_like(every.reward))
    yield Line(
        "D3.4",
        "∇_θ log p(τ|θ) = Σ_t ∇_θ log π(a_t|s_t;θ), as only the middle term depends on θ",
        slope,
        "finite differences of log p(τ|θ), each τ",
        score,
        "1[a_t] - π(·|s_t), summed over t, each τ",
    )
    yield Line(
        "D3.5",
        "∇_θ J(θ) = E_τ[ R(τ) Σ_{t=0}^{T-1} ∇_θ log π(a_t|s_t;θ) ]",
        sides.gradient,
        "finite differences of J",
        sides.mean(sides.whole[:, None, None] * score),
        "sum over all trajectories",
    )


def _reinforce_lines(sides: Sides) -> Iterator[Line]:
    """REINFORCE."""
    mdp = sides.mdp
    every = sides.every
    cumulative = np.cumsum(sides.policy, axis=1)
    interval = np.diff(cumulative, prepend=0.0, axis=1)[every.state, every.action]
    yield Line(
        "D4.1",
        "sample a trajectory with π(a|s;θ)",
        every.environment * np.where(every.mask, interval, 1.0).prod(axis=0),
        "volume of the uniform numbers that draw τ by inverting Σπ",
        sides.probability,
        "p(τ|θ), each τ",
    )
    explicit = np.stack(
        [
            np.sum(sides.power[: mdp.horizon - t] * every.reward[t:], axis=0)
            for t in range(mdp.horizon)
        ]
    )
    yield Line(
        "D4.2",
        "R_t = Σ_{k=t+1}^{T} γ^{k-t-1} r_k",
        sides.returns,
        "R_t = r_{t+1} + γ R_{t+1} from the end, each τ and t",
        explicit,
        "the sum, each τ and t",
    )
    step = sides.mean(sides.estimates)

    def along(alpha):
        return exact_objective(mdp, sides.logits + alpha * step)

    yield Line(
        "D4.3",
        "θ ← θ + α γ^t R_t ∇_θ log π(a_t|s_t;θ): on average dJ/dα = |E[step/α]|² at α = 0",
        derivative(along, np.zeros(())),
        "finite differences of J along the expected step",
        np.asarray(np.sum(step**2)),
        "squared length of the expected step",
    )
    yield Line(
        "D4.4",
        "∇_θ J(θ) = E_τ[ Σ_t γ^t R_t ∇_θ log π(a_t|s_t;θ) ]",
        sides.gradient,
        "∇J by finite differences",
        step,
        "sum over all trajectories",
    )


def all_lines(sides: Sides) -> tuple[Line, ...]:
    """The whole derivation."""
    return (
        *_objective_lines(sides),
        *_identity_lines(sides),
        *_transition_lines(sides),
        *_trajectory_lines(sides),
        *_reinforce_lines(sides),
    )
