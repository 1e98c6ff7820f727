"""From a policy to an ONNX model, in a process of its own: jax2onnx replaces functions of
`jax.numpy` by its own, for all that runs beside it.
"""

import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from logpi.core.errors import LogpiError
from logpi.environments.spec import space_from_json, stored_dtype
from logpi.networks.distributions import Distribution
from logpi.networks.policy import Policy
from logpi.runs.folder import RunFolder
from logpi.runs.trained import Which, load


def to_onnx(run: Path, which: Which, trust: bool) -> bytes:
    """The policy of a run as an ONNX model.

    **Raises:** `LogpiError` where jax2onnx is missing, or cannot convert the policy.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "policy.onnx"
        words = [str(run.absolute()), which, json.dumps(trust), str(out)]
        done = subprocess.run(
            [sys.executable, "-m", __name__, *words], capture_output=True, text=True
        )
        if done.returncode or not out.is_file():
            lines = done.stderr.strip().splitlines() or ["it was ended"]
            raise LogpiError(f"the policy of {run} cannot be converted: {lines[-1]}")
        return out.read_bytes()


def main(run: str, which: Which, trust: str, out: str) -> None:
    """What that process does: convert the policy, and write the model."""
    try:
        with warnings.catch_warnings(action="ignore"):
            import jax2onnx
    except ImportError as error:
        sys.exit(f"{error.name} is not installed: pip install 'logpi[export]'")
    policy = load(run, which=which, trust=json.loads(trust))
    description = describe(Path(run))
    names = ["observation"]
    results = ["action"]
    dtype = observation_dtype(space_from_json(description["environment"]["observation_space"]))
    inputs = [jax.ShapeDtypeStruct(("batch", *policy.encoder.shape), dtype)]
    if policy.memory.recurrent:
        names.append("memory")
        results.append("next_memory")
        inputs.append(jax.ShapeDtypeStruct(("batch", policy.memory.state_size), np.float32))
    model: Any = jax2onnx.to_onnx(
        _acting(policy), inputs, model_name="policy", input_names=names, output_names=results
    )
    for name, value in description.items():
        entry = model.metadata_props.add()
        entry.key = name
        entry.value = json.dumps(value)
    Path(out).write_bytes(model.SerializeToString())


def describe(run: Path) -> dict[str, Any]:
    """Settings and environment of a run, as JSON."""
    folder = RunFolder.open(run)
    return {"settings": folder.settings.to_json(), "environment": folder.config["environment"]}


def observation_dtype(space: gym.Space) -> np.dtype:
    """The kind of number in which a model takes observations: floats are single."""
    stored = stored_dtype(space)
    if stored.kind == "f":
        return np.dtype(np.float32)
    return stored


def _acting(policy: Policy) -> Any:
    """The policy's most probable action as a function of batches, as JAX traces it."""

    def most_probable(distribution: Distribution, count: int) -> Array:
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


if __name__ == "__main__":
    main(*sys.argv[1:])  # pyright: ignore[reportArgumentType]
