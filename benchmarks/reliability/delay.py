"""What a lost worker costs: the seconds that its batch takes longer.

    python benchmarks/reliability/delay.py --losses 20

PPO on an environment of 1 ms a step, 8 copies and 128 rows, is played by this process and a worker,
half of the copies each. In every fourth batch the worker is killed (`kill -9`) at a random instant.
Another one starts and plays its part of the batch: at most the start and the part are lost.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
from losses import processes

import logpi

SLOW = """
import time
from gymnasium.envs.classic_control import CartPoleEnv

class Slow(CartPoleEnv):
    def step(self, action):
        time.sleep(0.001)
        return super().step(action)
"""
METHOD = logpi.PPO(hidden=(64, 64), environments=8, rollout_steps=128, minibatches=4)
EVERY = 4  # batches from one loss to the next
WARM_UP = 4  # batches that are not counted
PLAY = 128 * 4 * 0.001  # seconds that a part takes at least


class Killer(logpi.Callback):
    """Kills the worker in every fourth batch, and takes the time of all batches."""

    def __init__(self, losses: int, seed: int):
        self._left = losses
        self._random = np.random.default_rng(seed)
        self._begun = time.perf_counter()
        self._batch = 0
        self._was_hit = False
        self.plain: list[float] = []
        self.hit: list[float] = []

    def on_update(self, run: logpi.Progress, metrics: Mapping[str, float]) -> None:
        now = time.perf_counter()
        if self._batch >= WARM_UP:
            times = self.plain
            if self._was_hit:
                times = self.hit
            times.append(now - self._begun)
        self._begun = now
        self._batch += 1
        self._was_hit = self._batch >= WARM_UP and self._batch % EVERY == 0
        if self._was_hit:
            threading.Timer(self._random.uniform(0, 0.9 * PLAY), kill).start()
            self._left -= 1
        if not self._left and not self._was_hit:
            run.stop()


def kill() -> None:
    """End the worker of this process."""
    for process in processes("logpi.sampling.host.worker"):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def start_of_a_worker() -> float:
    """Seconds in which its program reads its packages."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import logpi.sampling.host.worker"], check=True)
    return time.perf_counter() - begun


def main() -> int:
    """Print seconds of batches; exit with 1 where a loss was not felt, or has cost more."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--losses", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    killer = Killer(arguments.losses, arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slow.py"
        path.write_text(SLOW)
        options = {"workers": 1, "out": Path(folder) / "run", "evaluate_every": 0}
        logpi.train(f"{path}:Slow", METHOD, steps=10**7, callbacks=[killer], **options)
    start = statistics.median(start_of_a_worker() for _ in range(5))
    plain = statistics.median(killer.plain)
    costs = [each - plain for each in killer.hit]
    print(f"a batch: {plain:.2f} s, of them a part {PLAY:.2f} s at least; a start {start:.2f} s")
    print(
        f"seed {arguments.seed}: {len(costs)} losses cost {statistics.median(costs):.2f} s"
        f" [{min(costs):.2f}, {max(costs):.2f}]"
    )
    return int(min(costs) <= 0 or statistics.median(costs) > start + plain)


if __name__ == "__main__":
    sys.exit(main())
