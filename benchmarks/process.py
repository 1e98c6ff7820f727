"""One training run of logpi as a process of its own, from a cold compilation cache."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from logpi.runs.metrics import STEPS, read_metrics

PROGRAM = "from logpi.cli import program; program()"
SECONDS = "time/time_elapsed"


class Measured(NamedTuple):
    """What a process printed, how long it took, and its most resident memory in MB."""

    printed: str
    seconds: float
    megabytes: float


def measure(command: Sequence[str], environment: Mapping[str, str]) -> Measured:
    """Run it to its end.

    **Raises:** `subprocess.CalledProcessError` where it fails.
    """
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=said, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        if status:
            raise subprocess.CalledProcessError(os.waitstatus_to_exitcode(status), command)
        said.seek(0)
        return Measured(said.read(), seconds, usage.ru_maxrss / 1024)


def run_cold(words: Sequence[str]) -> Measured:
    """`logpi` with these words, with nothing compiled before."""
    with tempfile.TemporaryDirectory() as cache:
        cold = os.environ | {"XDG_CACHE_HOME": cache, "JAX_PLATFORMS": "cpu"}
        return measure([sys.executable, "-c", PROGRAM, *words], cold)


def train(environment: str, seed: int, options: list[str]) -> dict[str, float]:
    """Return of 100 fresh episodes, steps, seconds and most resident memory of the process in MB,
    and the rate.

    The rate is in steps a second in the second half of training.
    """
    with tempfile.TemporaryDirectory() as folder:
        return train_in(Path(folder) / "run", environment, seed, options)


def train_in(out: Path, environment: str, seed: int, options: list[str]) -> dict[str, float]:
    """The same, in a run folder that stays."""
    words = ["train", environment, "--seed", str(seed), "--out", str(out), *options]
    _, seconds, megabytes = run_cold(words)
    rows = read_metrics(out / "metrics.csv")
    evaluation = json.loads((out / "evaluation.json").read_text())
    first, last = rows[len(rows) // 2], rows[-1]
    rate = (last[STEPS] - first[STEPS]) / max(last[SECONDS] - first[SECONDS], 1e-9)
    return {
        "return": evaluation["mean"],
        "steps": evaluation["steps"],
        "seconds": seconds,
        "megabytes": megabytes,
        "rate": rate,
    }
