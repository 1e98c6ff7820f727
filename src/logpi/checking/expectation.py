"""E[ĝ] and E[|ĝ|²] of an estimator on a probe: Σ over batches of p(batch) ĝ(batch)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from logpi.checking.cases import Cases, Columns, add_laws, batches, streams, trajectories
from logpi.checking.probes import Probe
from logpi.checking.request import Answer, Framework, Request
from logpi.checking.targets import Law
from logpi.core.errors import LogpiError
from logpi.estimators.contract import CRITIC, DIFFERENTIABLE, Layout
from logpi.theory.exact import continuing_values, log_softmax, policy_values, softmax

ROLLOUT_STEPS = 3


class Moments(NamedTuple):
    """Of the estimator, an ascent direction; sums over all batches."""

    mean: Float[ndarray, "O A"]
    second: float
    """E[|ĝ|²]."""
    single_precision: bool
    rounding: float
    """By how much `mean` may be wrong, given how a loss is differentiated."""

    @property
    def variance(self) -> float:
        """Trace of the covariance."""
        return self.second - float(np.sum(self.mean**2))


class Critic(NamedTuple):
    """What an estimator gets as V: numbers that are wrong on purpose, or `exact`.

    If `continuing`, V where the time limit cuts, which is always right, is that of the task without
    it.
    """

    exact: bool = False
    continuing: bool = False


WRONG = Critic()


@dataclass(frozen=True)
class Situation:
    """A probe as one layout sees it: who acts, what the critic says, how far a rollout goes."""

    probe: Probe
    layout: Layout
    law: Law
    critic: Critic = WRONG
    steps: int = ROLLOUT_STEPS

    @property
    def name(self) -> str:
        """For people."""
        size = self.probe.episodes
        if self.layout == "rollout":
            what = f"{self.steps} steps x {size}"
        else:
            what = f"N = {size}"
        return f"{self.probe.name}, {what}"

    def columns(self) -> Columns:
        """Trajectories or streams with everything that an estimator may be given."""
        law = self.law.table
        rollout = self.layout == "rollout"
        if rollout:
            columns = streams(self.probe, law, self.steps)
        else:
            columns = trajectories(self.probe, law)
        recorded = law
        if self.probe.recorded is not None:
            recorded = softmax(self.probe.recorded)
        add_laws(columns, law, recorded)
        self._add_critic(columns)
        return columns

    def _add_critic(self, columns: Columns) -> None:
        """V(s_t), V(s_{t+1}) and the last one; right where no correct estimator could do without
        it.
        """
        fields = columns.fields
        probe = self.probe
        limited, endless = self._exact_values()
        goes_on = limited
        if self.critic.continuing:
            goes_on = endless
        critic = probe.critic
        if self.critic.exact:
            critic = goes_on
        fields["value"] = critic[fields["state"]]
        after = fields["next_state"]
        next_value = critic[after]
        last_value = critic[fields["going_on"]]
        if self.critic.continuing:
            next_value = np.where(fields["truncated"], endless[after], next_value)
        last = fields["length"] - 1
        rows = np.arange(len(last))
        cut = ~fields["done"][rows, last]
        if self.layout == "rollout":
            next_value[rows, last] = np.where(
                cut, goes_on[after[rows, last]], next_value[rows, last]
            )
            last_value = np.where(cut, goes_on[fields["going_on"]], last_value)
        elif self.critic.continuing:
            last_value = np.where(
                fields["truncated"][rows, last], endless[after[rows, last]], last_value
            )
        fields["next_value"] = next_value
        fields["last_value"] = last_value

    def _exact_values(self) -> tuple[Float[ndarray, " S"], Float[ndarray, " S"]]:
        """V of the time-limited task, 0 at the limit, and of the one that goes on."""
        mdp = self.probe.mdp
        policy = self.law.table[self.probe.mdp.observation]
        by_time = policy_values(mdp, policy).state
        limited = by_time[np.minimum(self.probe.step, mdp.horizon), np.arange(mdp.states)]
        if self.critic.continuing:
            endless = continuing_values(mdp, policy)
        else:
            endless = limited
        return np.where(mdp.terminal, 0.0, limited), endless


def all_cases(situation: Situation, columns: Columns) -> list[Cases]:
    """Every batch, those of one padded length together."""
    return list(batches(situation.probe, columns))


def moments(
    framework: Framework,
    make: Callable[[Situation, Cases], Request],
    situation: Situation,
    cases: list[Cases],
) -> Moments:
    """Σ_batch p(batch) ĝ(batch), exactly; `make` asks for the batches of one shape.

    **Raises:** `LogpiError` for an estimator that fails, and `NotFinite` where its gradient is not
    finite.
    """
    mean = np.zeros_like(situation.probe.logits)
    second = 0.0
    single = False
    rounding = 0.0
    for case in cases:
        request = make(situation, case)
        with np.errstate(all="ignore"):
            answer = framework.evaluate(request)
            if not answer.finite:
                raise NotFinite(situation.name, request, answer)
            gradient = ascent(situation, case, answer)
            mean += np.tensordot(case.probability, gradient, axes=1)
            second += float(case.probability @ np.sum(gradient**2, axis=(1, 2)))
        single |= answer.single_precision
        rounding += float(case.probability @ answer.rounding)
    return Moments(mean, second, single, rounding)


class NotFinite(LogpiError):
    """The loss or the gradient of some batch is NaN or infinite."""

    def __init__(self, probe: str, request: Request, answer: Answer):
        bad = int(np.argmin(answer.finite_batches))
        shown = {
            n: np.round(request.constant[n][bad], 3).tolist()
            for n in ("reward",)
            if n in request.constant
        }
        given = "".join(f", {name} {value}" for name, value in shown.items())
        super().__init__(f"the loss or its gradient is not finite on probe {probe}{given}")


def make_request(situation: Situation, case: Cases, names: tuple[str, ...]) -> Request:
    """The arrays that the layout's author would see."""
    table = situation.probe.logits
    log_policy = log_softmax(table)
    seen = case.observation
    action = case.fields["action"]
    leaves = {
        "log_prob": log_policy[seen, action],
        "logits": table[seen],
        "entropy": -np.sum(np.exp(log_policy) * log_policy, axis=-1)[seen],
        **{name: case.fields[name] for name in CRITIC},
    }
    constant = {
        name: _as_layout(situation.layout, array)
        for name, array in case.fields.items()
        if name in names and name not in DIFFERENTIABLE
    }
    differentiable = {name: _as_layout(situation.layout, array) for name, array in leaves.items()}
    differentiable["policy"] = table
    actions = table.shape[1]
    cells = {
        "log_prob": seen * actions + action,
        "logits": seen[..., None] * actions + np.arange(actions),
        "entropy": seen,
    }
    return Request(
        names=names,
        constant=constant,
        leaves={name: differentiable[name] for name in DIFFERENTIABLE if name in names},
        discount=situation.probe.mdp.discount,
        shape=_as_layout(situation.layout, seen).shape[1:],
        count=len(case.probability),
        cells={name: _as_layout(situation.layout, array) for name, array in cells.items()},
    )


def _as_layout(layout: Layout, array: ndarray) -> ndarray:
    """[batch, episodes, time, …] → [batch, time, …] for one episode, [batch, time, env, …] for a
    rollout.
    """
    if layout == "episode":
        return array[:, 0]
    if layout == "rollout" and array.ndim > 2:
        return np.swapaxes(array, 1, 2)
    return array


def _from_layout(layout: Layout, array: ndarray) -> ndarray:
    if layout == "episode":
        return array[:, None]
    if layout == "rollout" and array.ndim > 2:
        return np.swapaxes(array, 1, 2)
    return array


def ascent(situation: Situation, case: Cases, answer: Answer) -> Float[ndarray, "batch O A"]:
    """ĝ of every batch: -∂loss/∂θ, or the sum over t and mean over episodes of weight × ∇ log π."""
    probe = situation.probe
    policy = situation.probe.policy
    if answer.weights is not None:
        weight = _from_layout(situation.layout, answer.weights)
        share = case.fields["mask"] / _terms(situation, case)
        return score_sums(probe, case, share * weight)
    found = {
        name: _from_layout(situation.layout, -cotangent)
        for name, cotangent in answer.cotangents.items()
        if name != "policy"
    }
    gradient = np.zeros((len(case.probability), *probe.logits.shape))
    if "log_prob" in found:
        gradient += score_sums(probe, case, found["log_prob"])
    if "logits" in found:
        for action in range(probe.mdp.actions):
            gradient[:, :, action] += by_row(
                case.observation, found["logits"][..., action], len(probe.logits)
            )
    if "entropy" in found:
        log_policy = np.log(policy)
        slope = -policy * (log_policy - np.sum(policy * log_policy, axis=1, keepdims=True))
        gradient += by_row(case.observation, found["entropy"], len(probe.logits))[..., None] * slope
    if "policy" in answer.cotangents:
        gradient -= answer.cotangents["policy"]
    return gradient


def _terms(situation: Situation, case: Cases) -> int:
    """What a sum over a batch is divided by: its episodes, or the rows of a rollout."""
    episodes = case.observation.shape[1]
    if situation.layout == "rollout":
        return episodes * situation.steps
    return episodes


def critic_share(situation: Situation, case: Cases, answer: Answer) -> Float[ndarray, "batch O A"]:
    """What a critic that shares parameters with the policy would add: ∂V(s)/∂θ is a fixed table
    here.
    """
    probe = situation.probe
    states = situation.probe.mdp.states
    where = {"value": "state", "next_value": "next_state", "last_value": "going_on"}
    by_state = np.zeros((len(case.probability), states))
    for name, field in where.items():
        if name in answer.cotangents:
            cotangent = _from_layout(situation.layout, -answer.cotangents[name])
            by_state += by_row(case.fields[field], cotangent, states)
    table = 0.3 * np.cos(1.0 + np.arange(states * probe.logits.size)).reshape(
        states, *probe.logits.shape
    )
    return np.tensordot(by_state, table, axes=1)


def by_row(index: ndarray, value: ndarray, rows: int) -> Float[ndarray, "batch rows"]:
    """Sum of `value` where `index` is the row, separately for each batch."""
    count = len(index)
    flat = np.arange(count).reshape(-1, *[1] * (index.ndim - 1)) * rows + index
    return np.bincount(flat.ravel(), value.ravel(), count * rows).reshape(count, rows)


def score_sums(
    probe: Probe, case: Cases, weight: Float[ndarray, "batch episode time"]
) -> Float[ndarray, "batch O A"]:
    """Σ weight × ∇ log π(a|o), where ∇ log π(a|o) is 1[a] - π(·|o) in row o."""
    rows, actions = probe.logits.shape
    tally = by_row(case.observation * actions + case.fields["action"], weight, rows * actions)
    tally = tally.reshape(-1, rows, actions)
    return tally - probe.policy * tally.sum(axis=2, keepdims=True)


def least_variance(situation: Situation, columns: Columns, power: float, discount: float) -> float:
    """The smallest trace of the covariance, of one episode, over all state baselines b.

    ĝ = Σ_t power^t (R_t - b(s_t)) ∇ log π, R_t with `discount`.
    """
    probe = situation.probe
    fields = columns.fields
    single = Cases(
        columns.probability, {n: a[:, None] if a.ndim == 2 else a for n, a in fields.items()}
    )
    powers = np.where(single.fields["mask"], power ** single.fields["step"], 0.0)
    returns = reward_to_go(single.fields["reward"], discount)
    rows = len(probe.logits)
    whole = score_sums(probe, single, powers * returns).reshape(len(columns.probability), -1)
    parts = np.stack(
        [
            score_sums(probe, single, powers * (single.observation == o)).reshape(whole.shape)
            for o in range(rows)
        ],
        axis=2,
    )
    weighted = parts * columns.probability[:, None, None]
    best = np.linalg.lstsq(
        np.einsum("bgi,bgj->ij", weighted, parts), np.einsum("bgi,bg->i", weighted, whole)
    )[0]
    left = whole - parts @ best
    mean = columns.probability @ left
    return float(columns.probability @ np.sum(left**2, axis=1) - mean @ mean)


def reward_to_go(
    reward: Float[ndarray, "*more time"], discount: float
) -> Float[ndarray, "*more time"]:
    """R_t = r_{t+1} + γ R_{t+1}."""
    returns = np.zeros_like(reward)
    later = 0.0
    for t in reversed(range(reward.shape[-1])):
        returns[..., t] = later = reward[..., t] + discount * later
    return returns
