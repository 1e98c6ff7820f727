"""Take machines away from a sweep on Ray, and compare its runs with undisturbed ones.

    python benchmarks/reliability/sweeps.py --seeds 20 --losses 5

Three raylets of this machine, beside the head, make the runs. At random instants one of them is
killed with all that it runs; another takes its place a few seconds later. Equal means: every array
of the last checkpoint.
"""

import argparse
import os
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from losses import RAYLETS, arrays, cluster_of_raylets

import logpi

METHOD = logpi.Reinforce(hidden=(16,), episodes=16, baseline="none")
STEPS = 300_000
BETWEEN = (3.0, 8.0)  # seconds between two losses
ABSENCE = 3.0  # seconds until another machine comes


class MachineLosses:
    """Takes `count` machines away, one after another, by a thread beside the sweep."""

    def __init__(self, cluster: Any, count: int, seed: int):
        self._cluster = cluster
        self._count = count
        self._random = np.random.default_rng(seed)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._make)
        self.made = 0

    def __enter__(self) -> "MachineLosses":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _make(self) -> None:
        while self.made < self._count:
            if self._is_over.wait(self._random.uniform(*BETWEEN)):
                return
            machines = sorted(self._cluster.worker_nodes, key=str)
            machine = machines[self._random.integers(len(machines))]
            self._cluster.remove_node(machine, allow_graceful=False)
            self.made += 1
            print(f"{time.strftime('%X')} machine {self.made} is gone", flush=True)
            if self._is_over.wait(ABSENCE):
                return
            self._cluster.add_node(num_cpus=1)


def main() -> int:
    """Sweep, compare; exit with 1 where a run has failed or ended elsewhere."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--losses", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    options: dict[str, Any] = {"seeds": range(arguments.seeds), "steps": STEPS}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        with cluster_of_raylets() as cluster:
            for _ in range(RAYLETS):
                cluster.add_node(num_cpus=1)
            with MachineLosses(cluster, arguments.losses, arguments.seed) as losses:
                swept = logpi.sweep("CartPole-v1", METHOD, out="ray", on=logpi.Ray(), **options)
        alone = logpi.sweep("CartPole-v1", METHOD, out="local", **options)
        equal = 0
        for one, other in zip(swept.runs, alone.runs, strict=True):
            if one.failure is not None:
                print(f"{one.folder.name} failed: {one.failure}")
                continue
            first = arrays(Path(one.folder))
            second = arrays(Path(other.folder))
            equal += first.keys() == second.keys() and all(
                np.array_equal(first[name], second[name]) for name in first
            )
    print(f"seed {arguments.seed}: {losses.made} machines lost; {equal} of {len(swept.runs)} equal")
    return int(equal < len(swept.runs))


if __name__ == "__main__":
    sys.exit(main())
