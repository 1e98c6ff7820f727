"""A policy for programs that know nothing of logpi: as an ONNX model, or as named arrays."""

import json
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from logpi.core.errors import LogpiError
from logpi.environments.spec import space_from_json, stored_dtype
from logpi.networks.distributions import Distribution
from logpi.networks.policy import Policy
from logpi.runs.checkpoint import named_leaves
from logpi.runs.folder import RunFolder
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
    folder = RunFolder.open(Path(run))
    seen = folder.config["environment"]
    description = {"settings": folder.settings.to_json(), "environment": seen}
    if path.suffix == ".onnx":
        model, difference = _as_onnx(
            policy, space_from_json(seen["observation_space"]), description
        )
    elif path.suffix == ".safetensors":
        model = _as_safetensors(policy, description)
        difference = None
    else:
        raise LogpiError(f"{path} must end in .onnx or .safetensors")
    try:
        path.write_bytes(model)
    except OSError as error:
        raise LogpiError(f"cannot write {path}: {error.strerror or error}") from None
    return Export(path, difference)


def _as_safetensors(policy: Policy, description: dict[str, Any]) -> bytes:
    """All arrays by their names in the checkpoint; the description as metadata."""
    save = _package("safetensors.numpy").save
    arrays = {name: np.asarray(array, order="C") for name, array in named_leaves(policy)}
    return save(arrays, {name: json.dumps(value) for name, value in description.items()})


def _as_onnx(policy: Policy, space: gym.Space, description: dict[str, Any]) -> tuple[bytes, float]:
    """The model for observations of a space, and its largest difference from the policy.

    **Raises:** `LogpiError` where it differs by more than rounding.
    """
    if policy.origin is not None:
        raise LogpiError(
            "this policy sees observations from an origin in double precision, which the ONNX model"
            " would lose: export NAME.safetensors"
        )
    convert = _package("jax2onnx").to_onnx
    names = ["observation"]
    results = ["action"]
    inputs = [jax.ShapeDtypeStruct(("batch", *policy.encoder.shape), _dtype_of(space))]
    if policy.memory.recurrent:
        names.append("memory")
        results.append("next_memory")
        inputs.append(jax.ShapeDtypeStruct(("batch", policy.memory.state_size), np.float32))
    model = convert(
        _acting(policy), inputs, model_name="policy", input_names=names, output_names=results
    )
    for name, value in description.items():
        entry = model.metadata_props.add()
        entry.key = name
        entry.value = json.dumps(value)
    written = model.SerializeToString()
    largest = difference(policy, space, written)
    if largest > TOLERANCE:
        raise LogpiError(f"the ONNX model's actions differ from the policy's by {largest:.1e}")
    return written, largest


def _acting(policy: Policy) -> Any:
    """The policy's most probable action as a function of batches, as JAX traces it."""

    def most_probable(distribution: Distribution, count: Any) -> Array:
        noise = jnp.zeros((count, policy.head.size))
        return policy.execute(distribution.sample(noise))

    def act(observation: Array) -> Array:
        return most_probable(policy(observation), observation.shape[0])

    def act_from_memory(observation: Array, memory: Array) -> tuple[Array, Array]:
        after = policy.next_memory(observation, memory)
        return most_probable(policy(observation, after), observation.shape[0]), after

    if policy.memory.recurrent:
        return act_from_memory
    return act


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
    standardiser = policy.encoder.standardiser
    if standardiser is None:
        drawn = np.stack([space.sample() for _ in range(AT_ONCE)])
    else:
        deviation = np.sqrt(np.asarray(standardiser.variance))
        noise = random.normal(size=(AT_ONCE, *deviation.shape))
        drawn = np.asarray(standardiser.mean) + 2 * deviation * noise
        drawn = drawn.reshape(AT_ONCE, *policy.encoder.shape)
    if policy.masked:
        mask = random.integers(0, 2, (AT_ONCE, policy.head.size))
        mask[:, random.integers(policy.head.size)] = 1
        drawn[:, : policy.head.size] = mask
    return drawn.astype(_dtype_of(space))


def _dtype_of(space: gym.Space) -> np.dtype:
    """The kind of number in which the model takes observations: floats are single."""
    stored = stored_dtype(space)
    if stored.kind == "f":
        return np.dtype(np.float32)
    return stored


def _package(name: str) -> Any:
    """A package of the extra `export`.

    **Raises:** `LogpiError` where it is not installed.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            return import_module(name)
    except ImportError as error:
        raise LogpiError(f"this needs {error.name}: pip install 'logpi[export]'") from None
