"""A policy for programs that know nothing of logpi: as an ONNX model, or as named arrays."""

import json
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from logpi.artifacts.converting import describe, observation_dtype, to_onnx
from logpi.artifacts.files import written_at
from logpi.core.errors import LogpiError
from logpi.environments.spec import space_from_json
from logpi.networks.policy import Policy
from logpi.runs.checkpoint import named_leaves
from logpi.runs.trained import Which, load

# Observations on which an ONNX model is compared with the policy, so many at a time: a policy with
# a memory sees as many in a row as there are batches.
COMPARED = 1000
AT_ONCE = 20
# Largest difference of an action, in units of the range of actions.
TOLERANCE = 1e-5


class Export(NamedTuple):
    """The file, and for an ONNX model the largest difference between its actions and the
    policy's.
    """

    path: Path
    difference: float | None


def export(
    run: str | Path, out: str | Path, *, which: Which = "latest", trust: bool = False
) -> Export:
    """Write the policy of a run as `out`: `NAME.onnx` or `NAME.safetensors`.

    The ONNX model maps `observation` `[batch, ...]`, as the policy sees it, to the environment's
    `action` by the most probable choice; standardisation, masks, squashing and bounds are inside. A
    policy with a memory takes `memory` `[batch, state]` too, zeros at the start of an episode, and
    gives the next one. It is compared with the policy before it is written. The other file holds
    the arrays of the policy by name, and as metadata the run's settings and spaces in JSON.

    `which` and `trust` are those of `load`.

    **Raises:** `LogpiError` where the ending is another, a package is missing, the model does not
    act as the policy does, or the file cannot be written; and as `load`.
    """
    path = Path(out)
    policy = load(run, which=which, trust=trust)
    description = describe(Path(run))
    if path.suffix == ".onnx":
        if policy.origin is not None:
            raise LogpiError(
                "this policy sees observations from an origin in double precision, which an ONNX"
                " model would lose: export NAME.safetensors"
            )
        model = to_onnx(Path(run), which, trust)
        space = space_from_json(description["environment"]["observation_space"])
        largest = difference(policy, space, model)
        if largest > TOLERANCE:
            raise LogpiError(f"the ONNX model's actions differ from the policy's by {largest:.1e}")
    elif path.suffix == ".safetensors":
        model = _as_safetensors(policy, description)
        largest = None
    else:
        raise LogpiError(f"{path} must end in .onnx or .safetensors")
    with written_at(path):
        path.write_bytes(model)
    return Export(path, largest)


def _as_safetensors(policy: Policy, description: dict[str, Any]) -> bytes:
    """All arrays by their names in the checkpoint; the description as metadata."""
    save = _package("safetensors.numpy").save
    arrays = {name: np.asarray(array, order="C") for name, array in named_leaves(policy)}
    return save(arrays, {name: json.dumps(value) for name, value in description.items()})


def difference(policy: Policy, space: gym.Space, model: bytes) -> float:
    """The largest difference between the actions of the two, in units of the largest action."""
    session = _package("onnxruntime").InferenceSession(model)
    random = np.random.default_rng(0)
    memory = policy.initial_memory(AT_ONCE)
    largest = 0.0
    for _ in range(COMPARED // AT_ONCE):
        observation = _draw_observations(policy, space, random)
        given = {"observation": observation}
        if policy.memory.recurrent:
            given["memory"] = memory
            memory = np.asarray(policy.next_memory(observation, memory))
        found = session.run(["action"], given)[0]
        expected = policy.act(observation, memory=memory)
        scale = max(1.0, float(np.abs(expected).max()))
        largest = max(largest, float(np.abs(found - expected).max()) / scale)
    return largest


def _draw_observations(policy: Policy, space: gym.Space, random: np.random.Generator) -> np.ndarray:
    """Some observations as the policy sees them, around those that it has seen."""
    space.seed(int(random.integers(2**31)))
    drawn = np.stack([space.sample() for _ in range(AT_ONCE)]).astype(float)
    standardiser = policy.encoder.standardiser
    if standardiser is not None:
        deviation = np.sqrt(np.asarray(standardiser.variance))
        noise = random.normal(size=(AT_ONCE, *deviation.shape))
        places = np.r_[tuple(slice(*place) for place in policy.encoder.number_places)]
        rows = drawn.reshape(AT_ONCE, -1)
        rows[:, places] = np.asarray(standardiser.mean) + 2 * deviation * noise
    if policy.masked:
        mask = random.integers(0, 2, (AT_ONCE, policy.head.size))
        mask[:, random.integers(policy.head.size)] = 1
        drawn[:, : policy.head.size] = mask
    return drawn.astype(observation_dtype(space))


def _package(name: str) -> Any:
    """A package of the extra `export`.

    **Raises:** `LogpiError` where it is not installed.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            return import_module(name)
    except ImportError as error:
        raise LogpiError(f"this needs {error.name}: pip install 'logpi[export]'") from None
