"""Objectives that are no sum of rewards: a number for each episode, or one for a group of them, and
its exact gradient by enumeration.
"""

from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from logpi.checking.cases import Cases
from logpi.checking.expectation import score_sums
from logpi.checking.probes import Probe
from logpi.core.errors import LogpiError
from logpi.core.user_files import name_of
from logpi.estimators.contract import as_estimator, call, requested_names

# What is known of an episode once it was played.
PLAYED: Mapping[str, str] = {
    "observation": "[episodes, time] the number of what was seen",
    "action": "[episodes, time]",
    "reward": "[episodes, time], 0 after the end",
    "terminated": "[episodes, time]",
    "truncated": "[episodes, time]",
    "done": "[episodes, time]",
    "mask": "[episodes, time] true for the steps of the episode",
    "step": "[episodes, time] t",
    "length": "[episodes] number of steps T",
    "discount": "γ, a number",
}
# Targets that are the expectation over groups of k episodes.
OF_GROUPS = ("best-of-k", "pass-at-k")

Function: TypeAlias = Callable[..., Any]


class Objective(NamedTuple):
    """J = E[f], with f of each episode or of a group of episodes that start alike."""

    target: str
    function: Function
    names: tuple[str, ...]
    least: int = 1
    """The fewest episodes that a group must have."""

    def has_room(self, probe: Probe) -> bool:
        """Whether the groups of a probe's batches are large enough."""
        starts = probe.designs[0].starts
        return len(starts) // len(set(starts)) >= self.least

    def values(self, cases: Cases, discount: float) -> Float[ndarray, "batch episode"]:
        """f of each episode, or of its group.

        **Raises:** `LogpiError` for a function that fails or returns something else.
        """
        found = np.empty(cases.fields["group"].shape)
        for batch, group in enumerate(cases.fields["group"]):
            for start in np.unique(group):
                members = np.flatnonzero(group == start)
                found[batch, members] = self._value(cases, discount, batch, members)
        return found

    def is_of_group(self, cases: Cases, discount: float) -> bool:
        """Whether f is one number for the group."""
        group = cases.fields["group"][0]
        return self._value(cases, discount, 0, np.flatnonzero(group == group[0])).ndim == 0

    def _value(self, cases: Cases, discount: float, batch: int, members: ndarray) -> ndarray:
        """f of the group that these episodes of a batch are."""
        inputs: dict[str, Any] = {"discount": discount}
        inputs |= {name: array[batch, members] for name, array in cases.fields.items()}
        value = np.asarray(call(self.function, {name: inputs[name] for name in self.names}))
        is_number = value.dtype.kind in "fiub" and bool(np.isfinite(value).all())
        if value.shape not in ((), (len(members),)) or not is_number:
            raise LogpiError(
                f"{name_of(self.function)} must return a finite number for the group, or one for"
                f" each of its {len(members)} episodes; it returned {value.dtype} of shape"
                f" {value.shape}"
            )
        return value


def best_of(k: int | None) -> Function:
    """max of the returns of k episodes, the mean over all ways to choose them from the group; k is
    the size of the group where it is None.
    """

    def best(reward: Float[ndarray, "episode time"]) -> float:
        returns = reward.sum(axis=-1)
        chosen = list(combinations(returns, k or len(returns)))
        return float(np.mean(np.max(chosen, axis=1)))

    return best


def make_objective(target: str, function: Function | None, k: int | None) -> Objective | None:
    """The objective of a target; None for targets that are computed without trajectories.

    **Raises:** `LogpiError` for a target `objective` without a function, a function or a k that the
    target does not take, and names that are unknown before an episode is played.
    """
    if target != "objective" and function is not None:
        raise LogpiError(f"target {target!r} has no objective of your own: leave one of them out")
    if target not in OF_GROUPS and k is not None:
        raise LogpiError(f"k belongs to the targets {' and '.join(OF_GROUPS)}, not to {target!r}")
    if k is not None and (not isinstance(k, int) or k < 1):
        raise LogpiError(f"k must be a whole number >= 1, got {k!r}")
    if target in OF_GROUPS:
        return Objective(target, best_of(k), ("reward",), k or 1)
    if target != "objective":
        return None
    if function is None:
        raise LogpiError("target 'objective' needs a function: --objective FILE.py:NAME")
    own = as_estimator(function)
    return Objective(target, own, requested_names(own, PLAYED))


def objective_gradient(
    objective: Objective, probe: Probe, cases: list[Cases]
) -> Float[ndarray, "O A"]:
    """∇ E[f] = E[f Σ_i Σ_t ∇ log π(a_t|s_t)] over the episodes i of a group; where each episode has
    a number of its own, E[f_i Σ_t ∇ log π].

    The mean over the groups of a batch.
    """
    discount = probe.mdp.discount
    gradient = np.zeros_like(probe.logits)
    for case in cases:
        parts = case.fields["group"].shape[1]
        if objective.is_of_group(case, discount):
            parts = len(np.unique(case.fields["group"][0]))
        weight = objective.values(case, discount)[:, :, None] * case.fields["mask"] / parts
        gradient += np.tensordot(case.probability, score_sums(probe, case, weight), axes=1)
    return gradient


def pays_with(objective: Objective, probe: Probe, cases: Cases) -> Cases:
    """The same batches with f in the place of the rewards, at the last step of each episode; what
    they were is `plain_reward`.
    """
    fields = cases.fields
    last = np.arange(fields["mask"].shape[2]) == fields["length"][:, :, None] - 1
    value = objective.values(cases, probe.mdp.discount)
    paid = np.where(last, value[:, :, None], 0.0)
    return Cases(cases.probability, fields | {"reward": paid, "plain_reward": fields["reward"]})
