"""What this machine can do at most, so that speeds can be read as fractions of it.

python benchmarks/limits.py

Matrix products, memory, environments stepped alone with random actions, and the start of the
program; medians.
"""

import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np


def seconds(work: Callable[[], object], least: float = 0.5) -> float:
    """Median time of one call, over calls for `least` seconds; the first, which compiles, is left
    out."""
    jax.block_until_ready(work())
    times, start = [], time.perf_counter()
    while time.perf_counter() - start < least or len(times) < 5:
        before = time.perf_counter()
        jax.block_until_ready(work())
        times.append(time.perf_counter() - before)
    return statistics.median(times)


def product_rate(rows: int, inner: int, columns: int) -> float:
    """Floating-point operations a second in a product of two matrices."""
    a = jnp.ones((rows, inner))
    b = jnp.ones((inner, columns))
    product = jax.jit(jnp.matmul)
    return 2 * rows * inner * columns / seconds(lambda: product(a, b))


def products() -> None:
    """Rates of what an update is made of: products, and the gradient of a 4-64-64-2 tanh
    network."""
    for rows, inner, columns in [(1024, 1024, 1024), (2048, 64, 64)]:
        rate = product_rate(rows, inner, columns)
        print(f"product {rows}×{inner} · {inner}×{columns}: {rate / 1e9:.0f} GFLOP/s")
    widths, rows = (4, 64, 64, 2), 2048
    weights = [jnp.full(shape, 0.1) for shape in itertools.pairwise(widths)]
    x = jnp.ones((rows, widths[0]))

    def output(weights: list[jax.Array]) -> jax.Array:
        hidden = x
        for weight in weights[:-1]:
            hidden = jnp.tanh(hidden @ weight)
        return jnp.sum(hidden @ weights[-1])

    gradient = jax.jit(jax.grad(output))
    work = 6 * rows * sum(a * b for a, b in itertools.pairwise(widths))
    print(
        f"gradient of 4-64-64-2 on {rows} rows: {work / seconds(lambda: gradient(weights)) / 1e9:.0f}"
        f" GFLOP/s"
    )


def memory() -> None:
    """Bytes read and written a second by a copy."""
    block, other = np.ones(2**25), np.empty(2**25)
    print(f"copy: {2 * block.nbytes / seconds(lambda: np.copyto(other, block)) / 1e9:.1f} GB/s")


def environments() -> None:
    """Steps a second of environments alone, in one process."""
    for name, count in [("CartPole-v1", 8), ("HalfCheetah-v5", 8)]:
        try:
            vector = gym.make_vec(name, num_envs=count, vectorization_mode="sync")
        except gym.error.DependencyNotInstalled:
            print(f"{name}: not installed")
            continue
        print(f"{name}, sync, {count} copies: {stepping(vector):,.0f} steps/s")
    for count in (8, 512):
        vector = gym.make_vec(
            "CartPole-v1", num_envs=count, vectorization_mode="vector_entry_point"
        )
        print(
            f"CartPole-v1, its own vector environment, {count} copies: {stepping(vector):,.0f} "
            f"steps/s"
        )
    try:
        envpool: Any = import_module("envpool")
    except ImportError:
        print("EnvPool: not installed")
        return
    for name in ("CartPole-v1", "HalfCheetah-v5"):
        vector = envpool.make(name, env_type="gymnasium", num_envs=64)
        print(f"{name}, EnvPool, 64 copies: {stepping(vector):,.0f} steps/s")


def stepping(vector: gym.vector.VectorEnv) -> float:
    """Steps a second, resets included."""
    vector.reset()
    space = gym.vector.utils.batch_space(vector.single_action_space, vector.num_envs)
    actions = [space.sample() for _ in range(100)]

    def steps() -> None:
        for action in actions:
            vector.step(action)

    return len(actions) * vector.num_envs / seconds(steps)


def start() -> None:
    """Seconds until the package is imported, and until the program has answered."""
    for what, code in {
        "import logpi": "import logpi",
        "logpi --help": "import sys; sys.argv = ['logpi', '--help']; from logpi.cli import main; main()",
        "python alone": "pass",
    }.items():

        def run(code=code):
            return subprocess.run(
                [sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False
            )

        print(f"{what}: {seconds(run, 2.0):.3f} s")


def main() -> None:
    """Print all."""
    versions = ", ".join(
        f"{name} {version(name)}" for name in ("logpi", "jax", "gymnasium", "numpy")
    )
    print(f"{os.cpu_count()} cores; {versions}")
    for part in (products, memory, environments, start):
        part()


if __name__ == "__main__":
    main()
