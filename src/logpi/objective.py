"""J(θ) and ∇J(θ) of a finite MDP, exactly, in float64 NumPy [D0, D3].

The policy is tabular: π(a|o) = softmax(logits[o])_a, `logits` [O, A] with one row per observation.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from numpy.typing import ArrayLike

from logpi.errors import LogpiError
from logpi.mdp import FiniteMDP


def softmax(logits: Float[ndarray, "*batch A"]) -> Float[ndarray, "*batch A"]:
    """π(a|o)."""
    exponential = np.exp(logits - logits.max(-1, keepdims=True))
    return exponential / exponential.sum(-1, keepdims=True)


def state_policy(mdp: FiniteMDP, logits: ArrayLike) -> Float[ndarray, "S A"]:
    """π(a|s), equal in states that look alike.

    **Raises:** `LogpiError` where `logits` are not one finite row of A numbers per observation.
    """
    table = np.asarray(logits, np.float64)
    if table.shape != (mdp.observations, mdp.actions) or not np.isfinite(table).all():
        raise LogpiError(f"logits must be finite, of shape [O, A] = {mdp.observations, mdp.actions}, got {table.shape}")
    return softmax(table)[mdp.observation]


class Values(NamedTuple):
    """V_t(s) for t = 0 … horizon and Q_t(s, a) for t = 0 … horizon - 1, both zero in terminal states."""

    state: Float[ndarray, "later S"]
    action: Float[ndarray, "time S A"]


def _action_value(mdp: FiniteMDP, later: Float[ndarray, "S"]) -> Float[ndarray, "S A"]:
    """Q(s,a) = Σ_{s'} p(s'|s,a) (r(s,a,s') + γ V(s')), and 0 where the episode is over."""
    value = np.einsum("sap,sap->sa", mdp.transition, mdp.reward + mdp.discount * later)
    return np.where(mdp.terminal[:, None], 0.0, value)


def exact_values(mdp: FiniteMDP, logits: ArrayLike) -> Values:
    """V_t and Q_t of the policy, by backward induction from V_horizon = 0."""
    policy = state_policy(mdp, logits)
    state, action = np.zeros((mdp.horizon + 1, mdp.states)), np.zeros((mdp.horizon, mdp.states, mdp.actions))
    for t in reversed(range(mdp.horizon)):
        action[t] = _action_value(mdp, state[t + 1])
        state[t] = np.sum(policy * action[t], axis=1)
    return Values(state, action)


def optimal_values(mdp: FiniteMDP) -> Float[ndarray, "later S"]:
    """max over all policies, time-dependent and fully observing ones included, of V_t(s)."""
    state = np.zeros((mdp.horizon + 1, mdp.states))
    for t in reversed(range(mdp.horizon)):
        state[t] = _action_value(mdp, state[t + 1]).max(axis=1)
    return state


def optimal_objective(mdp: FiniteMDP) -> float:
    """The largest J that any policy reaches: Σ_s μ(s) V*_0(s)."""
    return float(mdp.initial @ optimal_values(mdp)[0])


def exact_objective(mdp: FiniteMDP, logits: ArrayLike) -> float:
    """J(θ) = E_τ[ Σ_t γ^t r_{t+1} ] = Σ_s μ(s) V_0(s) [D0.1, D0.3]."""
    return float(mdp.initial @ exact_values(mdp, logits).state[0])


def exact_gradient(mdp: FiniteMDP, logits: ArrayLike) -> Float[ndarray, "O A"]:
    """∂J/∂logits[o,a] = Σ_t γ^t Σ_{s seen as o} P(s_t = s) π(a|o) (Q_t(s,a) - V_t(s)).

    The policy gradient theorem with exact values and exact state probabilities: nothing is sampled or enumerated.
    """
    policy = state_policy(mdp, logits)
    values = exact_values(mdp, logits)
    occupied = np.where(mdp.terminal, 0.0, mdp.initial)
    gradient = np.zeros((mdp.observations, mdp.actions))
    for t in range(mdp.horizon):
        advantage = values.action[t] - values.state[t][:, None]
        np.add.at(gradient, mdp.observation, mdp.discount**t * occupied[:, None] * policy * advantage)
        occupied = np.where(mdp.terminal, 0.0, np.einsum("s,sa,sap->p", occupied, policy, mdp.transition))
    return gradient


class Enumeration(NamedTuple):
    """All trajectories of a finite MDP, arrays `[time, trajectory]`, with their probabilities [D3.1]."""

    probability: Float[ndarray, "trajectory"]
    state: Int[ndarray, "time trajectory"]
    action: Int[ndarray, "time trajectory"]
    reward: Float[ndarray, "time trajectory"]
    terminated: Bool[ndarray, "time trajectory"]
    truncated: Bool[ndarray, "time trajectory"]
    mask: Bool[ndarray, "time trajectory"]


def enumerate_trajectories(mdp: FiniteMDP, logits: ArrayLike) -> Enumeration:
    """Every τ of positive probability, with p(τ|θ) = μ(s_0) Π_t π(a_t|s_t) p(s_{t+1}|s_t, a_t) [D3.1]."""
    policy = state_policy(mdp, logits)
    running = [(mdp.initial[s], [], int(s)) for s in np.flatnonzero(mdp.initial)]
    finished: list[tuple[float, list[tuple[int, int, float, bool, bool]]]] = []
    for t in range(mdp.horizon):
        extended = []
        for probability, steps, state in running:
            for action in range(mdp.actions):
                for after in np.flatnonzero(mdp.transition[state, action]):
                    now = probability * policy[state, action] * mdp.transition[state, action, after]
                    terminated = bool(mdp.terminal[after])
                    truncated = t + 1 == mdp.horizon and not terminated
                    row = (state, action, float(mdp.reward[state, action, after]), terminated, truncated)
                    if terminated or truncated:
                        finished.append((now, [*steps, row]))
                    else:
                        extended.append((now, [*steps, row], int(after)))
        running = extended
    return _padded(finished, mdp.horizon)


def _padded(finished: list[tuple[float, list[tuple[int, int, float, bool, bool]]]], horizon: int) -> Enumeration:
    columns = [np.zeros((horizon, len(finished)), dtype) for dtype in (int, int, float, bool, bool)]
    mask = np.zeros((horizon, len(finished)), bool)
    for i, (_, steps) in enumerate(finished):
        mask[: len(steps), i] = True
        for column, values in zip(columns, zip(*steps, strict=True), strict=True):
            column[: len(steps), i] = values
    state, action, reward, terminated, truncated = columns
    probabilities = np.array([probability for probability, _ in finished])
    return Enumeration(probabilities, state, action, reward, terminated, truncated, mask)
