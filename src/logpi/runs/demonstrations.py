"""Demonstrations: episodes that somebody has played, in a file."""

import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import gymnasium as gym
import jax
import numpy as np
from jaxtyping import Float
from numpy import ndarray

from logpi.core.checks import is_whole, require, shown
from logpi.core.errors import LogpiError
from logpi.core.foreign import one_line
from logpi.environments.registry import EnvironmentLike
from logpi.environments.spec import EnvironmentSpec, space_to_json
from logpi.networks.policy import Policy, Unflattened
from logpi.runs.files import write_whole
from logpi.runs.loop import Run
from logpi.runs.trained import Which, playable
from logpi.sampling.recording import record_episodes

MINARI = "minari:"


@dataclass(frozen=True)
class Demonstrations:
    """Episodes, one after another, a row for each step.

    `observations` are what the environment has shown and `actions` what it has received, the
    numbers of each in one row: those of a Dict or Tuple space in the order in which Gymnasium
    flattens. `lengths` has the steps of each episode; one that was not `terminated` was cut.
    `spaces` says what observations and actions are.
    """

    observations: ndarray
    actions: ndarray
    rewards: ndarray
    lengths: ndarray
    terminated: ndarray
    spaces: Mapping[str, object]

    @property
    def returns(self) -> Float[ndarray, " episode"]:
        """Sum of the rewards of each episode."""
        return np.add.reduceat(self.rewards, np.cumsum(self.lengths) - self.lengths)

    def save(self, path: str | Path) -> None:
        """Write a `.npz` file that NumPy reads: `observations`, `actions`, `rewards`, `lengths`,
        `terminated`, and `spaces` as JSON.

        **Raises:** `LogpiError` where it cannot be written.
        """
        target = Path(path)
        if target.suffix != ".npz":
            raise LogpiError(f"{target} must end in .npz")
        arrays = dict(vars(self), spaces=np.array(json.dumps(self.spaces)))
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_whole(target, lambda file: np.savez_compressed(file, **arrays))
        except OSError as error:
            raise LogpiError(f"cannot write {target}: {error.strerror or error}") from None


def record(
    policy: Policy | Run | str | Path,
    environment: EnvironmentLike | None = None,
    episodes: int = 100,
    *,
    which: Which = "latest",
    deterministic: bool = False,
    seed: int | None = None,
    max_episode_steps: int | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    wrapper: str | None = None,
    trust: bool = False,
) -> Demonstrations:
    """Play the episodes that `evaluate` plays, and keep every step of them.

    Actions are drawn from the policy: whoever imitates them learns how probable each is. The other
    arguments are those of `evaluate`.

    **Raises:** `LogpiError`, as `evaluate`.
    """
    require(is_whole(episodes) and episodes >= 1, "episodes", "a whole number >= 1", episodes)
    asked = (max_episode_steps, env_kwargs, wrapper)
    played, made, seed = playable(policy, environment, which, seed, trust, asked)
    recorded = list(record_episodes(made, played, episodes, deterministic, seed))
    spec = made.spec
    observations = np.concatenate([episode.observation for episode in recorded])
    if spec.origin is not None:
        observations = observations.astype(float) + np.reshape(spec.origin, observations.shape[1:])
    actions = np.asarray(played.execute(np.concatenate([each.action for each in recorded])))
    return Demonstrations(
        observations=observations,
        actions=actions.reshape(_rows_of_actions(spec, len(actions))),
        rewards=np.concatenate([episode.reward for episode in recorded]).astype(float),
        lengths=np.array([len(episode.reward) for episode in recorded]),
        terminated=np.array([episode.is_terminated for episode in recorded]),
        spaces=_spaces_of(spec),
    )


def read_demonstrations(source: str | Path, spec: EnvironmentSpec) -> Demonstrations:
    """What `Demonstrations.save` wrote, or `minari:ID`, a data set of Minari that is on this
    machine, as an environment with this `spec` shows and receives them.

    **Raises:** `LogpiError` where there is none, or it is of another environment.
    """
    if str(source).startswith(MINARI):
        found = _from_minari(str(source).removeprefix(MINARI), spec)
    else:
        found = _from_file(Path(source))
    require_demonstrated(found, spec, str(source))
    return found


def _spaces_of(spec: EnvironmentSpec) -> dict[str, object]:
    """What must be alike for demonstrations to be of use, as JSON. The bounds of observations need
    not be: two versions of an environment often differ in them.
    """
    observation = space_to_json(spec.observation_space)
    if isinstance(spec.observation_space, gym.spaces.Box):
        observation = {"kind": "Box", "shape": observation["shape"]}
    return {
        "observations": observation,
        "actions": space_to_json(spec.action_space),
        "masks": spec.masked,
    }


def _rows_of_actions(spec: EnvironmentSpec, count: int) -> tuple[int, ...]:
    """The shape of so many actions: a number each of a Discrete space, else a row each."""
    if isinstance(spec.action_space, gym.spaces.Discrete):
        return (count,)
    return (count, -1)


def _from_file(path: Path) -> Demonstrations:
    """What `Demonstrations.save` wrote.

    **Raises:** `LogpiError` for anything else.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            named = {name: arrays[name] for name in Demonstrations.__dataclass_fields__}
            spaces = json.loads(str(named.pop("spaces")))
            return Demonstrations(**named, spaces=spaces)
    except FileNotFoundError:
        raise LogpiError(f"there is no file {path}") from None
    except (OSError, EOFError, LookupError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        reason = one_line(str(error))
        raise LogpiError(f"{path} holds no demonstrations of `logpi record`: {reason}") from None


def _from_minari(name: str, spec: EnvironmentSpec) -> Demonstrations:
    """A data set of Minari that has been downloaded or made.

    **Raises:** `LogpiError` where there is none of this name, or its spaces are others.
    """
    try:
        minari: Any = import_module("minari")
    except ImportError:
        raise LogpiError(f"{MINARI}{name} needs a package: pip install 'logpi[minari]'") from None
    try:
        dataset = minari.load_dataset(name)
        episodes = list(dataset.iterate_episodes())
    except Exception as error:
        remedy = f"`minari download {name}` fetches one that is published"
        raise LogpiError(
            f"{MINARI}{name} cannot be read: {one_line(str(error))}; {remedy}"
        ) from None
    shown = dataset.observation_space
    taken = dataset.action_space
    lengths = [len(episode.rewards) for episode in episodes]
    observations = [_flat(shown, each.observations, len(each.rewards)) for each in episodes]
    actions = [_flat(taken, each.actions, len(each.rewards)) for each in episodes]
    return Demonstrations(
        observations=np.concatenate(observations),
        actions=np.concatenate(actions),
        rewards=np.concatenate([episode.rewards for episode in episodes]).astype(float),
        lengths=np.array(lengths),
        terminated=np.array([episode.terminations[-1] for episode in episodes], bool),
        spaces=_spaces_of(spec),
    )


def _flat(space: gym.Space, values: Any, count: int) -> ndarray:
    """The first `count` values of a space, the numbers of each in a row; those of a Box or of whole
    numbers as they are.
    """
    if space.shape is not None:
        return np.asarray(values)[:count]
    nested = Unflattened(space)

    def at(step: int) -> Any:
        return jax.tree.map(lambda x: x[step], values)

    return np.array([nested.flatten(at(step)) for step in range(count)])


def require_demonstrated(found: Demonstrations, spec: EnvironmentSpec, source: str) -> None:
    """Refuse demonstrations that an environment with this `spec` cannot have shown.

    **Raises:** `LogpiError` that names `source` and what does not fit.
    """
    for name, here in _spaces_of(spec).items():
        there = found.spaces.get(name)
        if there != here:
            differs = f"{name} are {shown(there)}, there {shown(here)}"
            raise LogpiError(f"{source} is not of {spec.name}: its {differs}")
    steps = len(found.rewards)
    lengths = found.lengths
    is_whole_number = lengths.ndim == 1 and lengths.dtype.kind in "iu"
    if not is_whole_number or len(lengths) < 1 or lengths.min() < 1 or lengths.sum() != steps:
        raise LogpiError(f"{source}: the lengths of its episodes are not those of its steps")
    if found.terminated.shape != lengths.shape or found.rewards.shape != (steps,):
        raise LogpiError(f"{source}: rewards or ends are not those of its episodes")
    low, high = _bounds_of_actions(spec.action_space)
    rows = found.actions.reshape(len(found.actions), -1)
    if rows.shape != (steps, len(low)):
        asked = f"{len(low)} numbers a step"
        raise LogpiError(f"{source}: actions of {spec.name} are {asked}, here {rows.shape[1:]}")
    wrong = ~((rows >= low) & (rows <= high)).all(axis=1)
    if wrong.any():
        step = int(np.argmax(wrong))
        raise LogpiError(f"{source}: step {step} has the action {rows[step]}, which is none")
    shape = spec.observation_space.shape
    if found.observations.shape != (steps, *(shape or ())):
        got = found.observations.shape[1:]
        raise LogpiError(f"{source}: observations of {spec.name} have shape {shape}, here {got}")
    if not np.isfinite(found.observations).all():
        raise LogpiError(f"{source}: an observation is not finite")


def _bounds_of_actions(space: gym.Space) -> tuple[ndarray, ndarray]:
    """The least and the greatest that each number of an action may be."""
    match space:
        case gym.spaces.Discrete():
            return np.array([space.start]), np.array([space.start + space.n - 1])
        case gym.spaces.MultiDiscrete():
            return space.start.ravel(), (space.start + space.nvec - 1).ravel()
        case gym.spaces.MultiBinary():
            count = int(np.prod(space.shape))
            return np.zeros(count), np.ones(count)
        case gym.spaces.Box():
            return space.low.ravel(), space.high.ravel()
        case gym.spaces.Dict():
            parts = [_bounds_of_actions(part) for part in space.spaces.values()]
        case _:
            assert isinstance(space, gym.spaces.Tuple)
            parts = [_bounds_of_actions(part) for part in space.spaces]
    low, high = zip(*parts, strict=True)
    return np.concatenate(low), np.concatenate(high)
