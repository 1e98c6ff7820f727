"""The two kinds of environment, and what is known of one before it is stepped."""

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np

from logpi.core.checks import shown
from logpi.core.errors import LogpiError
from logpi.core.programs import Compiler, compile_program
from logpi.core.quantities import LARGEST
from logpi.environments.options import EnvironmentOptions

# Time limit of an environment that declares none: a whole-episode method needs every episode to
# end.
UNDECLARED_LIMIT = 1000
# 108,000 frames of four a step, as Atari is played (Machado et al. 2018).
ATARI_LIMIT = 27_000


# The name under which an environment gives the actions that it allows.
MASK = "action_mask"
# From here on what changes an observation may be lost in single precision, which has 7 digits.
FAR_FROM_ZERO = 1000.0


@dataclass(frozen=True)
class EnvironmentSpec:
    """What a policy, a sampler and a run folder need to know of an environment.

    `identity` holds whatever must be unchanged for a run to be resumed; it is JSON. `origin` is
    subtracted from observations before they become single precision: seconds since 1970 would
    otherwise be known to two minutes. None where it would be 0. `unflattened` is the space of what
    the environment gives, where `observation_space` is that of its numbers in one row.
    """

    name: str
    observation_space: gym.Space
    action_space: gym.Space
    max_episode_steps: int
    reward_threshold: float | None
    identity: Mapping[str, object]
    masked: bool = False
    """Whether an observation begins with the action mask."""
    origin: tuple[float, ...] | None = None
    unflattened: gym.Space | None = None

    def to_json(self) -> dict[str, object]:
        """The part that is compared when a run is resumed."""
        described: dict[str, object] = {
            "observation_space": space_to_json(self.observation_space),
            "action_space": space_to_json(self.action_space),
            "max_episode_steps": self.max_episode_steps,
            "masked": self.masked,
            **self.identity,
        }
        if self.origin is not None:
            described["origin"] = list(self.origin)
        if self.unflattened is not None:
            described["unflattened"] = space_to_json(self.unflattened)
        return described


@dataclass(frozen=True)
class HostEnvironment:
    """A Gymnasium environment, stepped from Python. `make()` gives a fresh copy.

    `source` is its name or its factory, so that another process can make it too, with `options`.
    `pool(count)` gives many copies at once, as a `Group`, where a package steps them together
    itself.
    `step_limit` is the seconds that a reset or a step of all copies may take.
    """

    spec: EnvironmentSpec
    make: Callable[[], gym.Env] | None
    source: str | Callable[..., gym.Env] | None
    options: EnvironmentOptions = field(default_factory=EnvironmentOptions)
    pool: Callable[[int], Any] | None = None
    step_limit: float | None = None


@dataclass(frozen=True, eq=False)
class CompiledEnvironment:
    """An environment of two pure JAX functions for one episode; the sampler batches them.

    `reset(key) -> (state, observation)`, `step(key, state, action) -> (state, observation, reward,
    terminated, truncated)`; never resets by itself. `compiler` compiles the program that samples
    and learns. Two with the very same functions and spec are equal: what is compiled for one
    serves the other.
    """

    spec: EnvironmentSpec
    reset: Callable[[Any], tuple[Any, Any]]
    step: Callable[[Any, Any, Any], tuple[Any, Any, Any, Any, Any]]
    compiler: Compiler = compile_program

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CompiledEnvironment) and self._identities == other._identities

    def __hash__(self) -> int:
        return hash(self._identities)

    @property
    def _identities(self) -> tuple[int, int, int]:
        """What is compared: functions may be of objects that cannot be."""
        return id(self.spec), id(self.reset), id(self.step)


def stored_dtype(space: gym.Space) -> np.dtype:
    """The kind of number in which observations are kept until policies see them: float64 also for
    whole numbers that 32 bits do not hold.
    """
    if isinstance(space, gym.spaces.Discrete):
        return np.dtype(np.int32)
    if isinstance(space, gym.spaces.Box) and space.dtype.kind in "iu":
        bounds = np.append(space.low, space.high).astype(float)
        if (np.abs(bounds) >= 2**31).any():
            return np.dtype(np.float64)
    return np.dtype(space.dtype)


def origin_of(space: gym.Space, observation: np.ndarray) -> tuple[float, ...] | None:
    """Where the numbers of a first observation stand, as far as they are far from zero."""
    if stored_dtype(space) != np.float64:
        return None
    first = np.asarray(observation, float).ravel()
    far = (np.abs(first) >= FAR_FROM_ZERO) & (np.abs(first) <= LARGEST)
    if not far.any():
        return None
    return tuple(np.where(far, first, 0.0).tolist())


def near_names(name: str, known: Iterable[str], otherwise: str = "see its list") -> str:
    """What the user may have meant; `otherwise` where no name is near."""
    near = difflib.get_close_matches(name, list(known), 3, cutoff=0.5)
    if near:
        return f"near: {', '.join(near)}"
    return otherwise


def space_to_json(space: gym.Space) -> dict[str, object]:
    """A space as JSON that `space_from_json` reads back.

    **Raises:** `LogpiError` for a space that no policy here can use.
    """
    match space:
        case gym.spaces.Discrete():
            return {"kind": "Discrete", "n": int(space.n), "start": int(space.start)}
        case gym.spaces.MultiDiscrete():
            return {
                "kind": "MultiDiscrete",
                "nvec": space.nvec.tolist(),
                "start": space.start.tolist(),
            }
        case gym.spaces.MultiBinary():
            return {
                "kind": "MultiBinary",
                "n": space.n if isinstance(space.n, int) else list(space.n),
            }
        case gym.spaces.Box():
            bounds = {"low": _bound_to_json(space.low), "high": _bound_to_json(space.high)}
            return {"kind": "Box", **bounds, "shape": list(space.shape), "dtype": str(space.dtype)}
        case gym.spaces.Tuple():
            return {"kind": "Tuple", "spaces": [space_to_json(part) for part in space.spaces]}
        case gym.spaces.Dict():
            return {
                "kind": "Dict",
                "spaces": {key: space_to_json(part) for key, part in space.spaces.items()},
            }
        case _:
            supported = "Box, Discrete, MultiDiscrete, MultiBinary, Tuple and Dict of these"
            raise LogpiError(f"space {space} is not supported; supported: {supported}")


# What no space has: a file that says so is damaged.
MOST_NUMBERS = 10_000_000


# What reading a damaged description of a space may raise.
_NO_SPACE = (
    LookupError,
    TypeError,
    ValueError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    RecursionError,
    MemoryError,
)


def space_from_json(fields: Mapping[str, Any]) -> gym.Space:
    """What `space_to_json` wrote.

    **Raises:** `LogpiError` for anything else.
    """
    try:
        return _space_from_json(fields)
    except _NO_SPACE as error:
        raise LogpiError(f"{shown(fields)} is no space: {shown(error)}") from None


def _space_from_json(fields: Mapping[str, Any]) -> gym.Space:
    if fields["kind"] == "Discrete":
        return gym.spaces.Discrete(fields["n"], start=fields["start"])
    if fields["kind"] == "MultiDiscrete":
        return gym.spaces.MultiDiscrete(np.array(fields["nvec"]), start=np.array(fields["start"]))
    if fields["kind"] == "MultiBinary":
        return gym.spaces.MultiBinary(fields["n"])
    if fields["kind"] == "Tuple":
        return gym.spaces.Tuple([_space_from_json(part) for part in fields["spaces"]])
    if fields["kind"] == "Dict":
        parts = [(key, _space_from_json(part)) for key, part in fields["spaces"].items()]
        return gym.spaces.Dict(parts)  # in their order: of a mapping it would sort them
    shape = tuple(fields["shape"])
    if math.prod(shape) > MOST_NUMBERS:
        raise ValueError(f"more than {MOST_NUMBERS:,} numbers")
    dtype = np.dtype(fields["dtype"])
    low = np.array(fields["low"], float).astype(dtype)
    high = np.array(fields["high"], float).astype(dtype)
    return gym.spaces.Box(
        np.broadcast_to(low, shape), np.broadcast_to(high, shape), shape, dtype.type
    )


def _bound_to_json(bound: np.ndarray) -> object:
    """One number where all are equal; infinities as text, because JSON has none."""
    numbers = [x if math.isfinite(x) else str(x) for x in bound.astype(float).ravel().tolist()]
    same = len(set(numbers)) == 1
    if same:
        return numbers[0]
    return np.array(numbers, object).reshape(bound.shape).tolist()
