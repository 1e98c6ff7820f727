"""Environment steps a second end to end, once compiled, and resident memory, of one run as a
process.

python benchmarks/throughput.py CartPole-v1 --steps 1e6 --episodes 32
python benchmarks/throughput.py gymnax:CartPole-v1 --steps 2e7 --episodes 256

The first quarter of the run, which holds the compilation and the short episodes, is left out of the
speed. Memory is that at a tenth of the steps and at the end.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import psutil
from process import PROGRAM, SECONDS

from logpi.runs.metrics import STEPS, read_metrics


def resident_megabytes(process: int) -> float:
    """What a process holds; 0 for one that is ending."""
    return psutil.Process(process).memory_info().rss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("environment", help="and the options of `logpi train`")
    arguments, options = parser.parse_known_args()
    options = [arguments.environment, *options]
    versions = ", ".join(f"{name} {version(name)}" for name in ("logpi", "jax", "gymnasium"))
    print(f"{' '.join(options)}; {versions}; {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-c", PROGRAM, "train", *options, "--out", str(out)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        memory: list[tuple[float, float]] = []
        while process.poll() is None:
            time.sleep(0.2)
            rows = read_metrics(out / "metrics.csv") if (out / "metrics.csv").is_file() else []
            megabytes = resident_megabytes(process.pid)
            if rows and megabytes > 0:  # a process that is ending has none
                memory.append((rows[-1][STEPS], megabytes))
        if process.returncode:
            sys.exit(process.returncode)
        rows = read_metrics(out / "metrics.csv")
    first, last = rows[len(rows) // 4], rows[-1]
    print(f"{(last[STEPS] - first[STEPS]) / (last[SECONDS] - first[SECONDS]):,.0f} steps/s")
    tenth = next(megabytes for steps, megabytes in memory if steps >= last[STEPS] / 10)
    print(
        f"resident {tenth:.0f} MB at {last[STEPS] / 10:,.0f} steps, {memory[-1][1]:.0f} MB at the "
        f"end"
    )


if __name__ == "__main__":
    main()
