"""Train with the defaults over many seeds, each as a whole process with a cold compilation cache.

python benchmarks/training.py CartPole-v1 --seeds 20
python benchmarks/training.py LunarLander-v3 --seeds 10 --steps 3e6
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

PROGRAM = "import sys; from logpi.cli import main; sys.exit(main())"


def train(environment: str, seed: int, options: list[str]) -> dict[str, float]:
    """Return, steps and seconds of one run."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [
            sys.executable,
            "-c",
            PROGRAM,
            "train",
            environment,
            "--seed",
            str(seed),
            "--out",
            str(out),
            *options,
        ]
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "XDG_CACHE_HOME": folder})
        seconds = time.perf_counter() - started
        evaluation = json.loads((out / "evaluation.json").read_text())
    return {"return": evaluation["mean"], "steps": evaluation["steps"], "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("environment")
    parser.add_argument("--seeds", type=int, default=10)
    arguments, options = parser.parse_known_args()
    versions = ", ".join(f"{name} {version(name)}" for name in ("logpi", "jax", "gymnasium"))
    print(f"{arguments.environment} {' '.join(options)}; {versions}; {os.cpu_count()} cores")
    rows = []
    for seed in range(arguments.seeds):
        rows.append(train(arguments.environment, seed, options))
        print(seed, {name: round(value, 1) for name, value in rows[-1].items()}, flush=True)
    for name in ("return", "steps", "seconds"):
        values = sorted(row[name] for row in rows)
        print(f"{name:8s} min {values[0]:.1f}  median {statistics.median(values):.1f}  max {values[-1]:.1f}")


if __name__ == "__main__":
    main()
