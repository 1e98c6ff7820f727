"""All trajectories of a finite MDP, and their probabilities [D3.1]."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from logpi.core.errors import LogpiError
from logpi.theory.mdp import FiniteMDP

# Half a gigabyte for what the derivation keeps of each.
MOST_TRAJECTORIES = 500_000


class Enumeration(NamedTuple):
    """Every trajectory that the process allows, one column each; rows after its end are zero."""

    environment: Float[ndarray, " trajectory"]
    """μ(s_0) Π_t p(s_{t+1}, r_{t+1}|s_t, a_t), the part of p(τ|θ) that θ does not touch."""
    state: Int[ndarray, "time trajectory"]
    action: Int[ndarray, "time trajectory"]
    reward: Float[ndarray, "time trajectory"]
    next_state: Int[ndarray, "time trajectory"]
    terminated: Bool[ndarray, "time trajectory"]
    truncated: Bool[ndarray, "time trajectory"]
    mask: Bool[ndarray, "time trajectory"]

    def probability(self, policy: Float[ndarray, "S A"]) -> Float[ndarray, " trajectory"]:
        """p(τ|θ) = μ(s_0) Π_t π(a_t|s_t; θ) p(s_{t+1}, r_{t+1}|s_t, a_t) [D3.1]."""
        return self.environment * np.where(self.mask, policy[self.state, self.action], 1.0).prod(
            axis=0
        )


def enumerate_trajectories(mdp: FiniteMDP) -> Enumeration:
    """Every τ that is possible whatever the policy.

    **Raises:** `LogpiError` where there are more than `MOST_TRAJECTORIES`.
    """
    joint = mdp.transition[..., None] * mdp.reward_probability
    outcome = np.argwhere(joint > 0)  # rows (s, a, s', k), sorted by s
    first = np.searchsorted(outcome[:, 0], np.arange(mdp.states + 1))
    start = np.flatnonzero(mdp.initial)
    environment = mdp.initial[start]
    state = start
    path = np.empty((0, len(start)), np.int64)
    ended: list[tuple[ndarray, ndarray]] = []
    for t in range(mdp.horizon):
        choices = first[state + 1] - first[state]
        if choices.sum() > MOST_TRAJECTORIES:
            raise LogpiError(
                f"more than {MOST_TRAJECTORIES:,} trajectories of {mdp.horizon} steps: shorten the"
                " horizon"
            )
        before = np.repeat(np.arange(len(state)), choices)
        within = np.arange(len(before)) - np.repeat(np.cumsum(choices) - choices, choices)
        chosen = first[state][before] + within
        environment = environment[before] * joint[tuple(outcome[chosen].T)]
        path = np.concatenate([path[:, before], chosen[None]])
        state = outcome[chosen, 2]
        over = mdp.terminal[state] | (t + 1 == mdp.horizon)
        ended.append(
            (
                environment[over],
                np.pad(path[:, over], ((0, mdp.horizon - t - 1), (0, 0)), constant_values=-1),
            )
        )
        environment = environment[~over]
        state = state[~over]
        path = path[:, ~over]
    probability = np.concatenate([each for each, _ in ended], axis=-1)
    paths = np.concatenate([each for _, each in ended], axis=-1)
    return _columns(mdp, outcome, probability, paths)


def _columns(mdp: FiniteMDP, outcome: ndarray, environment: ndarray, path: ndarray) -> Enumeration:
    mask = path >= 0
    state, action, after, which = (np.where(mask, outcome[path, i], 0) for i in range(4))
    last = mask & ~np.pad(mask[1:], ((0, 1), (0, 0)))
    terminated = last & mdp.terminal[after]
    reward = np.where(mask, mdp.reward_value[state, action, after, which], 0.0)
    return Enumeration(
        environment, state, action, reward, after, terminated, last & ~terminated, mask
    )
