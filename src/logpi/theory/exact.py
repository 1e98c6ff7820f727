"""J(θ) and ∇J(θ) of a finite MDP, exactly, in float64 NumPy [D0, D3].

The policy is tabular: π(a|o) = softmax(logits[o])_a, `logits` [O, A] with one row per observation.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from numpy.typing import ArrayLike

from logpi.core.errors import LogpiError
from logpi.theory.mdp import FiniteMDP


def softmax(logits: Float[ndarray, "*batch A"]) -> Float[ndarray, "*batch A"]:
    """π(a|o)."""
    exponential = np.exp(logits - logits.max(-1, keepdims=True))
    return exponential / exponential.sum(-1, keepdims=True)


def log_softmax(logits: Float[ndarray, "*batch A"]) -> Float[ndarray, "*batch A"]:
    """log π(a|o), also where π(a|o) is too small for a number."""
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def state_policy(mdp: FiniteMDP, logits: ArrayLike) -> Float[ndarray, "S A"]:
    """π(a|s), equal in states that look alike.

    **Raises:** `LogpiError` where `logits` are not one finite row of A numbers per observation.
    """
    table = np.asarray(logits, np.float64)
    if table.shape != (mdp.observations, mdp.actions) or not np.isfinite(table).all():
        raise LogpiError(
            f"logits must be finite, of shape [O, A] = {mdp.observations, mdp.actions}, got"
            f" {table.shape}"
        )
    return softmax(table)[mdp.observation]


class Values(NamedTuple):
    """V_t(s) for t = 0 … horizon and Q_t(s, a) for t = 0 … horizon - 1, both zero in terminal
    states.
    """

    state: Float[ndarray, "later S"]
    action: Float[ndarray, "time S A"]


def _action_value(mdp: FiniteMDP, later: Float[ndarray, " S"]) -> Float[ndarray, "S A"]:
    """Q(s,a) = Σ_{s'} p(s'|s,a) (r(s,a,s') + γ V(s')), and 0 where the episode is over."""
    value = np.einsum("sap,sap->sa", mdp.transition, mdp.reward + mdp.discount * later)
    return np.where(mdp.terminal[:, None], 0.0, value)


def policy_values(
    mdp: FiniteMDP, policy: Float[ndarray, "S A"], after_horizon: Float[ndarray, " S"] | None = None
) -> Values:
    """V_t and Q_t of any π(a|s), by backward induction from V_horizon = `after_horizon`, or 0."""
    state = np.zeros((mdp.horizon + 1, mdp.states))
    action = np.zeros((mdp.horizon, mdp.states, mdp.actions))
    if after_horizon is not None:
        state[mdp.horizon] = after_horizon
    for t in reversed(range(mdp.horizon)):
        action[t] = _action_value(mdp, state[t + 1])
        state[t] = np.sum(policy * action[t], axis=1)
    return Values(state, action)


def continuing_values(mdp: FiniteMDP, policy: Float[ndarray, "S A"]) -> Float[ndarray, " S"]:
    """V(s) of the task without a time limit: V = r_π + γ P_π V, zero in terminal states.

    **Raises:** `LogpiError` where the sum of rewards does not converge.
    """
    reward = np.sum(policy * _action_value(mdp, np.zeros(mdp.states)), axis=1)
    moves = np.where(mdp.terminal[:, None], 0.0, np.einsum("sa,sap->sp", policy, mdp.transition))
    moves = np.where(mdp.terminal, 0.0, moves)
    if mdp.discount * np.abs(np.linalg.eigvals(moves)).max() > 1 - 1e-12:
        raise LogpiError(
            "without its time limit the process does not end, and discount = 1: no finite value"
        )
    return np.linalg.solve(np.eye(mdp.states) - mdp.discount * moves, reward)


def exact_values(mdp: FiniteMDP, logits: ArrayLike) -> Values:
    """V_t and Q_t of the policy, by backward induction from V_horizon = 0."""
    return policy_values(mdp, state_policy(mdp, logits))


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


def occupancy(mdp: FiniteMDP, policy: Float[ndarray, "S A"]) -> Float[ndarray, "time S"]:
    """P(s_t = s and the episode is still running), t = 0 … horizon - 1."""
    occupied = [mdp.initial]
    for _ in range(mdp.horizon - 1):
        moved = np.einsum("s,sa,sap->p", occupied[-1], policy, mdp.transition)
        occupied.append(np.where(mdp.terminal, 0.0, moved))
    return np.stack(occupied)


def through_softmax(
    mdp: FiniteMDP, policy: Float[ndarray, "S A"], by_policy: Float[ndarray, "S A"]
) -> Float[ndarray, "O A"]:
    """∂f/∂logits[o,a] = Σ_{s seen as o} π(a|s) (f_{sa} - Σ_b π(b|s) f_{sb}),

    from f_{sa} = ∂f/∂π(a|s).
    """
    gradient = np.zeros((mdp.observations, mdp.actions))
    centred = by_policy - np.sum(policy * by_policy, axis=1, keepdims=True)
    np.add.at(gradient, mdp.observation, policy * centred)
    return gradient


def exact_gradient(mdp: FiniteMDP, logits: ArrayLike) -> Float[ndarray, "O A"]:
    """∂J/∂logits[o,a] = Σ_t γ^t Σ_{s seen as o} P(s_t = s) π(a|o) (Q_t(s,a) - V_t(s)).

    The policy gradient theorem with exact values and exact state probabilities: nothing is sampled
    or enumerated.
    """
    policy = state_policy(mdp, logits)
    power = mdp.discount ** np.arange(mdp.horizon)
    by_policy = np.einsum(
        "t,ts,tsa->sa", power, occupancy(mdp, policy), policy_values(mdp, policy).action
    )
    return through_softmax(mdp, policy, by_policy)
