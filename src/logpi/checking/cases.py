"""All batches of a probe as arrays, each with its probability: the finite sum that an expectation
is.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from logpi.checking.probes import MOST_BATCHES, Probe
from logpi.core.errors import LogpiError
from logpi.theory.enumeration import enumerate_trajectories
from logpi.theory.exact import log_softmax


@dataclass(frozen=True)
class Cases:
    """Batches of one shape: fields [batch, episode, time] or [batch, episode], and what they were
    made from.
    """

    probability: Float[ndarray, " batch"]
    fields: dict[str, ndarray]

    @property
    def observation(self) -> Int[ndarray, "batch episode time"]:
        return self.fields["observation"]


@dataclass(frozen=True)
class Columns:
    """Single trajectories, or streams of a rollout: arrays [column, time] and their
    probabilities.
    """

    probability: Float[ndarray, " column"]
    start: Int[ndarray, " column"]
    fields: dict[str, ndarray]


def trajectories(probe: Probe, law: Float[ndarray, "O A"]) -> Columns:
    """Whole episodes, acted by `law`."""
    every = enumerate_trajectories(probe.mdp)
    length = every.mask.sum(axis=0)
    final = every.next_state[length - 1, np.arange(len(length))]
    raw = {
        name: getattr(every, name).T
        for name in ("state", "action", "reward", "next_state", "terminated", "truncated", "mask")
    }
    raw["going_on"] = final
    raw["length"] = length
    return _columns(probe, every.probability(law[probe.mdp.observation]), every.state[0], raw)


def streams(probe: Probe, law: Float[ndarray, "O A"], steps: int) -> Columns:
    """`steps` steps of an environment that resets itself: the row after an end belongs to the next
    episode.
    """
    mdp = probe.mdp
    running: list[tuple[float, int, list[tuple[Any, ...]]]] = [
        (mdp.initial[s], int(s), []) for s in np.flatnonzero(mdp.initial)
    ]
    for _ in range(steps):
        extended = []
        for probability, state, rows in running:
            for action, after in product(range(mdp.actions), range(mdp.states)):
                taken = probability * law[mdp.observation[state], action]
                now = taken * mdp.transition[state, action, after]
                if mdp.transition[state, action, after] == 0:
                    continue
                reward = mdp.reward[state, action, after]
                terminated = bool(mdp.terminal[after])
                truncated = not terminated and int(probe.step[after]) == mdp.horizon
                row = (state, action, reward, after, terminated, truncated)
                if not (terminated or truncated):
                    extended.append((now, after, [*rows, row]))
                    continue
                for start in np.flatnonzero(mdp.initial):
                    extended.append((now * mdp.initial[start], int(start), [*rows, row]))
        running = extended
    names = ("state", "action", "reward", "next_state", "terminated", "truncated")
    histories = [rows for _, _, rows in running]
    raw: dict[str, ndarray] = {}
    for position, name in enumerate(names):
        raw[name] = np.array([[row[position] for row in rows] for rows in histories])
    raw["mask"] = np.ones(raw["state"].shape, bool)
    raw["going_on"] = np.array([state for _, state, _ in running])
    raw["length"] = np.full(len(running), steps)
    return _columns(probe, np.array([p for p, _, _ in running]), raw["state"][:, 0], raw)


def _columns(
    probe: Probe, probability: ndarray, start: ndarray, raw: dict[str, ndarray]
) -> Columns:
    """What an estimator may ask for, from what happened; critics come later, they depend on the
    target.
    """
    state = raw["state"]
    action = raw["action"]
    seen = probe.mdp.observation[state]
    fields = {
        name: raw[name]
        for name in ("action", "reward", "terminated", "truncated", "mask", "length")
    }
    fields["observation"] = seen
    fields["done"] = raw["terminated"] | raw["truncated"]
    fields["step"] = np.where(raw["mask"], probe.step[state], 0)
    fields["group"] = start
    fields["state"] = state
    fields["next_state"] = raw["next_state"]
    fields["going_on"] = raw["going_on"]
    fields["reference_log_prob"] = log_softmax(probe.reference)[seen, action]
    return Columns(probability, start, fields)


def add_laws(
    columns: Columns, acting: Float[ndarray, "O A"], recorded: Float[ndarray, "O A"]
) -> None:
    """`sampling_log_prob` and `old_log_prob`: of the law that the actions were drawn from, and of
    the one that the trainer kept; 0 where padding has an impossible action.
    """
    place = (columns.fields["observation"], columns.fields["action"])
    for name, law in (("sampling_log_prob", acting), ("old_log_prob", recorded)):
        probability = law[place]
        columns.fields[name] = np.log(np.where(probability > 0, probability, 1.0))


def batches(probe: Probe, columns: Columns) -> Iterator[Cases]:
    """All ordered batches of the probe's designs, those of one padded length together."""
    choices = []
    probabilities = []
    for design in probe.designs:
        slots = [_columns_from(columns, start) for start in design.starts]
        count = np.prod([float(len(slot)) for slot in slots])
        if count > MOST_BATCHES:
            raise LogpiError(f"{count:.3g} batches of {len(slots)} episodes: too many to enumerate")
        chosen = np.stack(np.meshgrid(*slots, indexing="ij"), axis=-1).reshape(-1, len(slots))
        given = np.array([_chance_of(columns, start) for start in design.starts])
        each = columns.probability[chosen] / given
        choices.append(chosen)
        probabilities.append(design.probability * np.prod(each, axis=1))
    choice = np.concatenate(choices)
    probability = np.concatenate(probabilities)
    possible = probability > 0
    choice = choice[possible]
    probability = probability[possible]
    longest = columns.fields["length"][choice].max(axis=1)
    for length in np.unique(longest):
        rows = choice[longest == length]
        fields = {name: _cut(array[rows], int(length)) for name, array in columns.fields.items()}
        yield Cases(probability[longest == length], fields)


def _columns_from(columns: Columns, start: int | None) -> ndarray:
    """Which columns start in a state; all of them for None."""
    if start is None:
        return np.arange(len(columns.start))
    return np.flatnonzero(columns.start == start)


def _chance_of(columns: Columns, start: int | None) -> float:
    """The probability of starting in a state; 1 for None."""
    if start is None:
        return 1.0
    return columns.probability[columns.start == start].sum()


def _cut(array: ndarray, length: int) -> ndarray:
    """The first `length` steps of [batch, episode, time]; what has no time stays as it is."""
    return array[:, :, :length] if array.ndim == 3 else array
