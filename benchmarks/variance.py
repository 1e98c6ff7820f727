"""The exact variance of the policy gradient of one episode, by what is subtracted from the return.

python benchmarks/variance.py

tr Cov(ĝ), with all episodes of a probe of `logpi check` enumerated, relative to that with the exact
V as the baseline: the median over random probes, with the least and the most in brackets. Every
row has the expectation ∇J, which is tested here too. V, Q and A are exact: what a learned one can
do at best.
"""

import statistics
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from logpi.checking.expectation import reward_to_go
from logpi.checking.probes import Probe, make_probes
from logpi.theory.enumeration import Enumeration, enumerate_trajectories
from logpi.theory.exact import exact_gradient, exact_values

DISCOUNT = 0.95
SEEDS = range(20)


class Episodes(NamedTuple):
    """All episodes of a probe, with what an estimator may use of each step."""

    probe: Probe
    every: Enumeration
    probability: Float[ndarray, " trajectory"]
    returns: Float[ndarray, "time trajectory"]
    """R_t."""
    value: Float[ndarray, "time trajectory"]
    """V(s_t)."""
    action_values: Float[ndarray, "time trajectory A"]
    """Q(s_t, a) of every action a."""
    power: Float[ndarray, "time trajectory"]
    """γ^t, and 0 after the end."""
    score: Float[ndarray, "time trajectory parameters"]
    """γ^t ∇ log π(a_t|s_t)."""

    @property
    def advantage(self) -> Float[ndarray, "time trajectory"]:
        """A(s_t, a_t) = Q(s_t, a_t) - V(s_t)."""
        taken = np.take_along_axis(self.action_values, self.every.action[..., None], axis=2)
        return np.where(self.every.mask, taken[..., 0] - self.value, 0.0)


def episodes_of(probe: Probe) -> Episodes:
    """Everything about every episode."""
    mdp = probe.mdp
    every = enumerate_trajectories(mdp)
    policy = probe.policy
    values = exact_values(mdp, probe.logits)
    times = np.arange(mdp.horizon)[:, None]
    shown = mdp.observation[every.state]
    in_row = np.eye(mdp.observations)[shown]
    score = np.eye(mdp.actions)[every.action] - policy[shown]
    power = np.where(every.mask, mdp.discount**times, 0.0)
    gradient = power[..., None, None] * in_row[..., :, None] * score[..., None, :]
    return Episodes(
        probe=probe,
        every=every,
        probability=every.probability(policy[mdp.observation]),
        returns=discounted_sums(every.reward, mdp.discount),
        value=np.where(every.mask, values.state[times, every.state], 0.0),
        action_values=values.action[times, every.state],
        power=power,
        score=gradient.reshape(*every.mask.shape, -1),
    )


def discounted_sums(
    x: Float[ndarray, "time trajectory"], discount: float
) -> Float[ndarray, "time trajectory"]:
    """x_t + γ x_{t+1} + γ² x_{t+2} + …"""
    return reward_to_go(x.T, discount).T


def weighted(
    episodes: Episodes, weight: Float[ndarray, "time trajectory"]
) -> Float[ndarray, "trajectory parameters"]:
    """ĝ = Σ_t γ^t w_t ∇ log π(a_t|s_t) of every episode."""
    return np.einsum("tip,ti->ip", episodes.score, weight)


def without_baseline(episodes: Episodes) -> Float[ndarray, "trajectory parameters"]:
    """w_t = R_t."""
    return weighted(episodes, episodes.returns)


def with_value(episodes: Episodes) -> Float[ndarray, "trajectory parameters"]:
    """w_t = R_t - V(s_t)."""
    return weighted(episodes, episodes.returns - episodes.value)


def baseline_terms(episodes: Episodes) -> Float[ndarray, "trajectory parameters O"]:
    """By how much ĝ falls when the baseline of each observation grows by one."""
    shown = episodes.probe.mdp.observation[episodes.every.state]
    return np.einsum("tip,tio->ipo", episodes.score, np.eye(episodes.probe.mdp.observations)[shown])


def with_best_baseline(episodes: Episodes) -> Float[ndarray, "trajectory parameters"]:
    """w_t = R_t - b(s_t), b being the baseline with the least tr Cov(ĝ)."""
    plain = without_baseline(episodes)
    terms = baseline_terms(episodes)
    by_probability = terms * episodes.probability[:, None, None]
    matrix = np.einsum("ipo,ipq->oq", by_probability, terms)
    best = np.linalg.lstsq(matrix, np.einsum("ipo,ip->o", by_probability, plain))[0]
    return plain - terms @ best


def with_best_baselines(episodes: Episodes) -> Float[ndarray, "trajectory parameters"]:
    """The same with a baseline of its own for each parameter."""
    plain = without_baseline(episodes)
    terms = baseline_terms(episodes)
    left = np.zeros_like(plain)
    for p in range(plain.shape[1]):
        by_probability = terms[:, p] * episodes.probability[:, None]
        matrix = by_probability.T @ terms[:, p]
        best = np.linalg.lstsq(matrix, by_probability.T @ plain[:, p])[0]
        left[:, p] = plain[:, p] - terms[:, p] @ best
    return left


def without_later_actions(episodes: Episodes) -> Float[ndarray, "trajectory parameters"]:
    """w_t = R_t - V(s_t) - Σ_{k>t} γ^{k-t} A(s_k, a_k) (Cheng, Yan & Boots 2019)."""
    advantage = episodes.advantage
    later = discounted_sums(advantage, episodes.probe.mdp.discount) - advantage
    return weighted(episodes, episodes.returns - episodes.value - later)


def over_all_actions(episodes: Episodes) -> Float[ndarray, "trajectory parameters"]:
    """Σ_t γ^t Σ_a Q(s_t, a) ∇π(a|s_t) (Ciosek & Whiteson 2020)."""
    mdp = episodes.probe.mdp
    shown = mdp.observation[episodes.every.state]
    policy = episodes.probe.policy[shown]
    centred = episodes.action_values - np.sum(policy * episodes.action_values, axis=2)[..., None]
    by_logits = episodes.power[..., None] * policy * centred
    gradient = np.einsum("tio,tia->ioa", np.eye(mdp.observations)[shown], by_logits)
    return gradient.reshape(len(gradient), -1)


def without_own_and_later_actions(
    episodes: Episodes,
) -> Float[ndarray, "trajectory parameters"]:
    """Σ_t γ^t (Σ_a Q(s_t, a) ∇π(a|s_t) + w_t ∇ log π(a_t|s_t)), w_t = R_t - Q(s_t, a_t) - what later
    actions are worth: its expectation is ∇J whatever Q is."""
    own = weighted(episodes, episodes.advantage)
    return without_later_actions(episodes) - own + over_all_actions(episodes)


ESTIMATORS: Mapping[str, Callable[[Episodes], Float[ndarray, "trajectory parameters"]]] = {
    "R_t": without_baseline,
    "R_t - V(s_t)": with_value,
    "R_t - the best baseline of each state": with_best_baseline,
    "R_t - the best baseline of each state and parameter": with_best_baselines,
    "R_t - V(s_t) - what later actions are worth": without_later_actions,
    "the same, and all actions at t by Q(s_t, a)": without_own_and_later_actions,
    "all actions by Q(s_t, a), without R_t: ∇J for the right Q alone": over_all_actions,
}


def variance(episodes: Episodes, gradient: Float[ndarray, "trajectory parameters"]) -> float:
    """tr Cov(ĝ), of a ĝ whose expectation is ∇J."""
    probe = episodes.probe
    mean = episodes.probability @ gradient
    np.testing.assert_allclose(mean, exact_gradient(probe.mdp, probe.logits).ravel(), atol=1e-9)
    return float(episodes.probability @ np.sum((gradient - mean) ** 2, axis=1))


def main() -> None:
    """Print a table."""
    print("| what multiplies ∇ log π | stop | chain | answers |\n|---|---|---|---|")
    found: dict[str, list[list[float]]] = {name: [] for name in ESTIMATORS}
    for seed in SEEDS:
        probes = make_probes(DISCOUNT, seed=seed)
        shown = [episodes_of(probe) for probe in (probes.stop, probes.chain, probes.answers)]
        usual = [variance(episodes, with_value(episodes)) for episodes in shown]
        for name, estimate in ESTIMATORS.items():
            variances = [variance(episodes, estimate(episodes)) for episodes in shown]
            found[name].append([one / other for one, other in zip(variances, usual, strict=True)])
    for name, rows in found.items():
        cells = [
            f"{statistics.median(column):.2f} [{min(column):.2f}, {max(column):.2f}]"
            for column in zip(*rows, strict=True)
        ]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
