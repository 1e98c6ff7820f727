"""What training costs as one thing grows: environments, network width, episode length, steps, runs
side by side.

python benchmarks/curves.py cost_curves.png

Every point is one run of gymnax:CartPole-v1 as a process of its own, from a cold cache.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.metadata import version
from typing import NamedTuple

from matplotlib.figure import Figure
from process import train

PPO = "--algorithm ppo --rollout-steps 128 --epochs 4 --minibatches 4 --whiten"
Point = dict[str, float]


class Curve(NamedTuple):
    """`show` of a point, at each of `values`."""

    along: str
    values: Sequence[int]
    point: Callable[[int], Point]
    show: str


def one(options: str, seed: int = 0) -> Point:
    return train("gymnax:CartPole-v1", seed, options.split())


def side_by_side(count: int) -> Point:
    """Runs that share the machine; their rates together."""
    with ThreadPoolExecutor(count) as pool:
        runs = list(
            pool.map(lambda seed: one(f"{PPO} --environments 64 --steps 2e6", seed), range(count))
        )
    return {"rate": sum(run["rate"] for run in runs)}


@cache
def of_steps(steps: int) -> Point:
    return one(f"--episodes 256 --steps {steps}")


CURVES = [
    Curve(
        "environments (PPO)",
        [1, 4, 16, 64, 256, 1024, 4096],
        lambda n: one(f"{PPO} --environments {n} --steps {max(100_000, 10 * 128 * n)}"),
        "rate",
    ),
    Curve(
        "width of two hidden layers (PPO, 64 environments)",
        [32, 64, 128, 256, 512, 1024],
        lambda n: one(
            f"{PPO} --environments 64 --hidden {n} {n} --steps {min(2_000_000, 32_000_000 // n)}"
        ),
        "rate",
    ),
    Curve(
        "time limit (REINFORCE, 64 episodes)",
        [25, 50, 100, 200, 500, 1000],
        lambda n: one(f"--episodes 64 --max-episode-steps {n} --steps {64 * n * 60}"),
        "rate",
    ),
    Curve("steps (REINFORCE, 256 episodes)", [10**5, 10**6, 10**7, 10**8], of_steps, "seconds"),
    Curve("steps (REINFORCE, 256 episodes)", [10**5, 10**6, 10**7, 10**8], of_steps, "megabytes"),
    Curve("runs side by side (PPO, 64 environments)", [1, 2, 4], side_by_side, "rate"),
]
UNITS = {
    "rate": "steps/s",
    "seconds": "seconds, whole process",
    "megabytes": "most resident memory, MB",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", help="where the picture goes")
    arguments = parser.parse_args()
    versions = ", ".join(f"{name} {version(name)}" for name in ("logpi", "jax", "gymnax"))
    print(f"{versions}; {os.cpu_count()} cores")
    figure = Figure(figsize=(12, 7), layout="constrained")
    for axes, curve in zip(figure.subplots(2, 3).flat, CURVES, strict=True):
        heights = [curve.point(value)[curve.show] for value in curve.values]
        row = ", ".join(
            f"{value:,}: {height:,.0f}" for value, height in zip(curve.values, heights, strict=True)
        )
        print(f"{UNITS[curve.show]} by {curve.along}: {row}", flush=True)
        axes.loglog(curve.values, heights, "o-")
        axes.set(
            xlabel=curve.along, ylabel=UNITS[curve.show], ylim=(min(heights) / 2, max(heights) * 2)
        )
    figure.savefig(arguments.out, dpi=110)


if __name__ == "__main__":
    main()
