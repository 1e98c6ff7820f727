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
import time
import warnings
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
from losses import RAYLETS, arrays, cluster_of_raylets

import logpi

METHOD = logpi.Reinforce(hidden=(16,), episodes=16, baseline="none")
STEPS = 300_000
BETWEEN = (3.0, 8.0)  # seconds between two losses
ABSENCE = 3.0  # seconds until another machine comes


def lose_machines(cluster: Any, count: int, seed: int, swept: Future[logpi.Sweep]) -> int:
    """Take `count` machines away, one after another, while a sweep is made; how many it were.

    Ray starts raylets in the main thread alone.
    """
    random = np.random.default_rng(seed)
    for made in range(count):
        if is_over(swept, random.uniform(*BETWEEN)):
            return made
        machines = sorted(cluster.worker_nodes, key=str)
        machine = machines[random.integers(len(machines))]
        cluster.remove_node(machine, allow_graceful=False)
        print(f"{time.strftime('%X')} machine {made + 1} is gone", flush=True)
        if not is_over(swept, ABSENCE):
            cluster.add_node(num_cpus=1)
    return count


def is_over(swept: Future[logpi.Sweep], seconds: float) -> bool:
    """Whether a sweep comes to its end within so many seconds."""
    return bool(wait([swept], seconds).done)


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
            with ThreadPoolExecutor(1) as pool:
                coming = pool.submit(
                    logpi.sweep, "CartPole-v1", METHOD, out="ray", on=logpi.Ray(), **options
                )
                lost = lose_machines(cluster, arguments.losses, arguments.seed, coming)
                swept = coming.result()
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
    print(f"seed {arguments.seed}: {lost} machines lost; {equal} of {len(swept.runs)} equal")
    return int(equal < len(swept.runs))


if __name__ == "__main__":
    sys.exit(main())
