"""What training costs as one thing grows: environments, network width, episode length, steps, seeds.

python benchmarks/curves.py cost_curves.png

Every point is one run of gymnax:CartPole-v1, or one sweep of it, as a process of its own, from a
cold cache. Beside the steps a second of a run stand those of its parts: of the environment alone on
all cores, and of the bare gradients at the rate at which all cores multiply matrices of 1024×1024.
"""

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from floors import cores, measure_row
from limits import product_rate
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator
from process import run_cold, train

ENVIRONMENT = "gymnax:CartPole-v1"
PPO = "--algorithm ppo --rollout-steps 128 --epochs 4 --minibatches 4 --whiten"
RUN = "logpi"
STYLES = {RUN: "o-", "bare gradients": "--", "environment alone": ":"}

# What is measured at a point, by the name of its line.
Point = Mapping[str, float]


class Curve(NamedTuple):
    """`point` at each of `values`."""

    along: str
    unit: str
    values: Sequence[int]
    point: Callable[[int], Point]


@cache
def operations_a_second() -> float:
    """Of the largest products."""
    return product_rate(1024, 1024, 1024)


def rates(options: str) -> Point:
    """Steps a second of a run and of its parts."""
    row = measure_row(ENVIRONMENT, options.split(), operations_a_second())
    return {
        RUN: 1 / row.training,
        "bare gradients": 1 / row.gradient,
        "environment alone": cores() / row.environment,
    }


def by_environments(count: int) -> Point:
    return rates(f"{PPO} --environments {count} --steps {max(100_000, 10 * 128 * count)}")


def by_width(width: int) -> Point:
    steps = min(2_000_000, 32_000_000 // width)
    return rates(f"{PPO} --environments 64 --hidden {width} {width} --steps {steps}")


def by_time_limit(limit: int) -> Point:
    return rates(f"--episodes 64 --max-episode-steps {limit} --steps {64 * limit * 60}")


@cache
def of_steps(steps: int) -> dict[str, float]:
    return train(ENVIRONMENT, 0, ["--episodes", "256", "--steps", str(steps)])


def seconds_by_steps(steps: int) -> Point:
    return {RUN: of_steps(steps)["seconds"]}


def megabytes_by_steps(steps: int) -> Point:
    return {RUN: of_steps(steps)["megabytes"]}


def seconds_by_seeds(count: int) -> Point:
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "sweep")
        options = [*PPO.split(), "--environments", "4", "--steps", "1e5", "--out", out]
        swept = run_cold(["sweep", ENVIRONMENT, "--seeds", f"0..{count - 1}", *options])
    return {RUN: swept.seconds}


RATE = "steps/s"
SECONDS = "seconds, whole process"
STEPS = [10**5, 10**6, 10**7, 10**8]
CURVES = [
    Curve("environments (PPO)", RATE, [1, 4, 16, 64, 256, 1024, 4096], by_environments),
    Curve(
        "width of two hidden layers (PPO, 64 environments)",
        RATE,
        [32, 64, 128, 256, 512, 1024],
        by_width,
    ),
    Curve(
        "time limit (REINFORCE, 64 episodes)", RATE, [25, 50, 100, 200, 500, 1000], by_time_limit
    ),
    Curve("steps (REINFORCE, 256 episodes)", SECONDS, STEPS, seconds_by_steps),
    Curve("steps (REINFORCE, 256 episodes)", "most resident MB", STEPS, megabytes_by_steps),
    Curve(
        "seeds of one sweep (PPO, 1e5 steps each)", SECONDS, [1, 4, 16, 64, 256], seconds_by_seeds
    ),
]


def draw(axes: Axes, curve: Curve, points: Sequence[Point]) -> None:
    """A line for each part of the points."""
    for name in points[0]:
        axes.plot(curve.values, [point[name] for point in points], STYLES[name], label=name)
    everything = [height for point in points for height in point.values()]
    axes.set(
        xscale="log",
        yscale="log",
        xlabel=curve.along,
        ylabel=curve.unit,
        ylim=(min(everything) / 2, max(everything) * 2),
    )
    axes.set_xticks(curve.values)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(alpha=0.3)
    if len(points[0]) > 1:
        axes.legend()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", help="where the picture goes")
    arguments = parser.parse_args()
    versions = ", ".join(f"{name} {version(name)}" for name in ("logpi", "jax", "gymnax"))
    print(f"{versions}; {cores()} cores, {operations_a_second() / 1e9:.0f} GFLOP/s")
    figure = Figure(figsize=(13, 7.5), layout="constrained")
    for axes, curve in zip(figure.subplots(2, 3).flat, CURVES, strict=True):
        points = [curve.point(value) for value in curve.values]
        for name in points[0]:
            row = ", ".join(
                f"{value:,}: {point[name]:,.0f}"
                for value, point in zip(curve.values, points, strict=True)
            )
            print(f"{curve.unit} by {curve.along}, {name}: {row}", flush=True)
        draw(axes, curve, points)
    figure.savefig(arguments.out, dpi=110)


if __name__ == "__main__":
    main()
