"""Train for an hour, with faults and checkpoints, and see that nothing grows.

    python benchmarks/reliability/soak.py --minutes 60

The environment takes a millisecond a step, and fails about once a minute; a worker steps half of
its copies. Memory, descriptors and threads are those of the process that trains.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import psutil

ENVIRONMENT = """
import time
from gymnasium.envs.classic_control import CartPoleEnv

class Slow(CartPoleEnv):
    def step(self, action):
        time.sleep(0.001)
        if time.time() % 60 < 0.002:
            raise RuntimeError("a flake")
        return super().step(action)
"""
COMMAND = [
    *("train", "slow.py:Slow", "--algorithm", "ppo", "--steps", "1e12", "--out", "run"),
    *("--environments", "4", "--rollout-steps", "64", "--workers", "1"),
    *("--checkpoint-every", "5000", "--on-fault", "replay", "--max-episode-steps", "200"),
]
# Seconds until everything is compiled and every cache has its size.
WARM = 300


class Use(NamedTuple):
    """What a process holds."""

    seconds: float
    megabytes: float
    descriptors: int
    threads: int


def use_of(process: int, started: float) -> Use:
    """What the process holds now."""
    found = psutil.Process(process)
    return Use(
        time.monotonic() - started,
        found.memory_info().rss / 2**20,
        found.num_fds(),
        found.num_threads(),
    )


def main() -> None:
    """Train, look every half minute, and print the first look after `WARM` seconds and the last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    minutes = parser.parse_args().minutes
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "slow.py").write_text(ENVIRONMENT)
        program = "import sys; from logpi.cli import program; program()"
        output = open(Path(folder, "output"), "w")
        trained = subprocess.Popen(
            [sys.executable, "-c", program, *COMMAND], cwd=folder, stdout=output, stderr=output
        )
        started = time.monotonic()
        looks: list[Use] = []
        while time.monotonic() - started < 60 * minutes:
            time.sleep(30)
            looks.append(use_of(trained.pid, started))
        trained.terminate()
        status = trained.wait(timeout=60)
        told = Path(folder, "output").read_text()
        rows = Path(folder, "run", "metrics.csv").read_text().count("\n") - 1
    warm = [look for look in looks if look.seconds > WARM] or looks
    print(f"{minutes:g} minutes, exit status {status}, {rows} rows of metrics")
    print(f"{told.count('a flake')} faults, each played again")
    for name in Use._fields:
        values = [getattr(look, name) for look in warm]
        print(f"{name:12s} first {values[0]:.1f}, largest {max(values):.1f}, last {values[-1]:.1f}")


if __name__ == "__main__":
    main()
