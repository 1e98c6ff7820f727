"""Whether an environment gave what its spaces declare, and the error that says where it did not."""

from typing import NamedTuple

import gymnasium as gym
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int
from numpy import ndarray

from logpi.core.errors import LogpiError
from logpi.core.quantities import BEYOND, LARGEST
from logpi.core.trajectory import Trajectory
from logpi.environments.spec import EnvironmentSpec

# Numbers of an observation that an error shows as they are.
MOST_SHOWN = 20


class EnvironmentFault(LogpiError):
    """An environment failed, or gave what it does not declare; the message says where."""


class Invalid(NamedTuple):
    """The first invalid value of a batch: its row, its copy, and what is wrong with it."""

    row: int
    copy: int
    message: str


def first_invalid(
    spec: EnvironmentSpec,
    observation: ndarray,
    reward: ndarray,
    seen: Bool[ndarray, "time env"],
    acted: Bool[ndarray, "time env"],
) -> Invalid | None:
    """The first value that is not finite, is beyond `LARGEST`, or lies outside its Discrete space.

    It is looked for in the rows that were `seen`. Where one `acted`, an action must also be
    allowed.
    """
    for field, values in (("observation", observation), ("reward", reward)):
        if values.dtype.kind != "f":
            continue
        wrong = _first(~_everywhere(np.abs(values) <= LARGEST) & seen)
        if wrong is not None:
            return Invalid(*wrong, f"{field} {how_wrong(_value(values, wrong))}")
    space = spec.observation_space
    if isinstance(space, gym.spaces.Discrete):
        inside = (observation >= space.start) & (observation < space.start + space.n)
        wrong = _first(~_everywhere(inside) & seen)
        if wrong is not None:
            found = _value(observation, wrong)
            return Invalid(*wrong, f"observation lies outside {space}: {found}")
    if spec.masked:
        allowed = observation[..., : spec.action_space.n] > 0  # type: ignore[attr-defined]
        wrong = _first(~allowed.any(-1) & acted)
        if wrong is not None:
            return Invalid(*wrong, "action_mask allows no action")
    return None


def _everywhere(valid: ndarray) -> Bool[ndarray, "time env"]:
    """Whether all numbers of a row are valid."""
    return np.all(valid.reshape(*valid.shape[:2], -1), axis=-1)


def _first(wrong: Bool[ndarray, "time env"]) -> tuple[int, int] | None:
    if not wrong.any():
        return None
    row, copy = np.argwhere(wrong)[0]
    return int(row), int(copy)


def how_wrong(value: ndarray | np.generic) -> str:
    """What is wrong with a value that is not finite, or too large; of one with many numbers, the
    first that is.
    """
    array = np.asarray(value)
    if np.isfinite(array).all():
        what = f"is {BEYOND}"
        wrong = np.abs(array) > LARGEST
    else:
        what = "is not finite"
        wrong = ~np.isfinite(array)
    if array.size <= MOST_SHOWN:
        return f"{what}: {value}"
    first = np.argwhere(wrong)[0].tolist()
    return f"{what}: {array[tuple(first)]} at {first}, {wrong.sum()} of {array.size} numbers"


def _value(values: ndarray, place: tuple[int, int]) -> ndarray | np.generic:
    row, copy = place
    return np.take(values[row], copy, axis=0)


def error_at(
    spec: EnvironmentSpec, copy: int, episode: int, step: int, message: str
) -> EnvironmentFault:
    """The error that says where something is wrong."""
    where = f"{spec.name}: environment {copy}, episode {episode}, step {step}"
    return EnvironmentFault(f"{where}: {message}")


# The fields that are looked at in compiled programs.
FIELDS = ("observation", "reward")


def first_not_finite(trajectory: Trajectory) -> Int[Array, "3"]:
    """(number of the field in `FIELDS`, step in its episode, copy) of the first value that is not
    finite, or beyond `LARGEST`; -1s for none.

    The observations that a stream has reached are looked at too: the critic values them.
    """
    time, env = trajectory.mask.shape
    values = (trajectory.observation, trajectory.reward)
    finite = [_is_quantity(jnp.asarray(x)).reshape(time, env, -1).all(-1) for x in values]
    wrong = ~jnp.stack(finite, axis=-1).ravel()
    first = jnp.argmax(wrong)
    row = first // 2 // env
    copy = first // 2 % env
    step = jnp.asarray(trajectory.step)[row, copy]
    place = jnp.stack([first % 2, step, copy])
    return jnp.where(wrong[first], place, -1).astype(jnp.int32)


def _is_quantity(x: Array) -> Bool[Array, "..."]:
    """Where a number is finite and not beyond `LARGEST`; whole numbers are."""
    if jnp.issubdtype(x.dtype, jnp.floating):
        return jnp.abs(x) <= LARGEST
    return jnp.ones_like(x, bool)


NOTHING_WRONG = (-1, -1, -1)


def require_finite(spec: EnvironmentSpec, place: Int[ndarray, "3"], batch: str) -> None:
    """Refuse a batch in which `first_not_finite` has found a value.

    **Raises:** `LogpiError` that names the environment, the batch and the step.
    """
    field, step, copy = map(int, place)
    if field >= 0:
        where = f"environment {copy}, {batch}, step {step}"
        raise LogpiError(
            f"{spec.name}: {where}: {FIELDS[field]} is not finite, or beyond {LARGEST:g}"
        )
