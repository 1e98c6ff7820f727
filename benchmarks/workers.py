"""What workers bring on this machine: runs with them and without, in turn.

python benchmarks/workers.py                          # every row
python benchmarks/workers.py 1-ms cheetah-256 --repeat 5

Whole processes from a cold compilation cache; rates are those of the second half of training,
medians, with the least and the most in brackets. The environment of 1 ms a step is that of
peers/own_environments.py.
"""

import argparse
import os
import statistics
from collections.abc import Mapping
from importlib.metadata import version
from typing import NamedTuple

from process import train

BUSY = "benchmarks/peers/own_environments.py:Busy"
PPO = "--algorithm ppo"
CHEETAH = f"HalfCheetah-v5 {PPO} --environments 8 --rollout-steps 256 --epochs 10"


class Row(NamedTuple):
    """What is trained, and the number of workers beside none; None: as many as logpi chooses."""

    command: str
    workers: int | None = None


ROWS: Mapping[str, Row] = {
    "1-ms": Row(f"{BUSY} {PPO} --environments 8 --rollout-steps 128 --steps 3e4", 1),
    "reinforce": Row("CartPole-v1 --episodes 32 --baseline none --steps 6e5"),
    "ppo-64x128": Row(
        f"CartPole-v1 {PPO} --environments 64 --rollout-steps 128 --epochs 4 --minibatches 4"
        " --steps 5e5"
    ),
    "ppo-8x32": Row(
        f"CartPole-v1 {PPO} --environments 8 --rollout-steps 32 --epochs 20 --minibatches 1"
        " --steps 1e5"
    ),
    "cheetah-64": Row(f"{CHEETAH} --minibatches 32 --steps 1.2e5"),
    "cheetah-256": Row(f"{CHEETAH} --minibatches 8 --hidden 256 256 --steps 3e5"),
}


def rates(row: Row, repeat: int) -> tuple[list[float], list[float]]:
    """Steps a second without workers, and with them."""
    environment, *options = row.command.split()
    chosen = [] if row.workers is None else ["--workers", str(row.workers)]
    alone = []
    beside = []
    for seed in range(repeat):
        alone.append(train(environment, seed, [*options, "--workers", "0"])["rate"])
        beside.append(train(environment, seed, [*options, *chosen])["rate"])
    return alone, beside


def cell(found: list[float]) -> str:
    """Median [least, most]."""
    return f"{statistics.median(found):,.0f} [{min(found):,.0f}, {max(found):,.0f}]"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", help=f"of {', '.join(ROWS)}; by default all")
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    names = ", ".join(f"{name} {version(name)}" for name in ("logpi", "jax", "gymnasium"))
    print(f"{os.cpu_count()} cores; {names}; {arguments.repeat} runs each\n")
    print("| run | `--workers 0`, steps/s | with workers, steps/s | ratio |\n|---|---|---|---|")
    for name in arguments.rows or ROWS:
        alone, beside = rates(ROWS[name], arguments.repeat)
        ratio = statistics.median(beside) / statistics.median(alone)
        workers = ROWS[name].workers
        how = "" if workers is None else f" --workers {workers}"
        command = f"`{ROWS[name].command}{how}`"
        print(f"| {command} | {cell(alone)} | {cell(beside)} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
