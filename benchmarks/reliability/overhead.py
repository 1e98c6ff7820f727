"""What checks, locks, trackers, signals and checkpoints cost: whole runs with and without, in turn.

python benchmarks/reliability/overhead.py --pairs 10
"""

import argparse
import math
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

RUN = "train CartPole-v1 --steps 100000 --workers 0 --out"
WITH = "from logpi.cli import program; program()"
# The same program without what keeps a run: nothing is looked at, locked, tracked or saved.
WITHOUT = (
    """
import contextlib

import logpi.environments.host.local as local
import logpi.runs.loop as loop
import logpi.sampling.host.episodes as episodes
from logpi.runs.folder import RunFolder

class Nothing:
    def __init__(self, *_): ...
    def write(self, *_): ...
    def close(self): ...

@contextlib.contextmanager
def never(*_):
    yield lambda: False

local.LocalGroup._checked = lambda self, index, observation: observation
local.step_answer = lambda index, answer, masked: answer[:4]
local.reset_answer = lambda index, answer: answer[0]
local.has_alarm = lambda: False
episodes.first_invalid = lambda *_: None
loop.CsvTracker = loop.TensorBoardTracker = Nothing
loop.stop_signals = loop.exits_raised = never
RunFolder.only_writer = never
RunFolder.save = lambda self, learner, counters: None
"""
    + WITH
)


class Seconds(NamedTuple):
    """What one run took, from the start of its process to its end."""

    wall: float
    processor: float


def seconds_of(program: str) -> Seconds:
    """Time on the wall, and that of all cores together, which other programs disturb less."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", program, *RUN.split(), f"{folder}/run"]
        before = processor_seconds()
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return Seconds(time.perf_counter() - started, processor_seconds() - before)


def processor_seconds() -> float:
    """Of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Run both in turn, and print medians and the ratio of each pair."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=10)
    pairs = parser.parse_args().pairs
    seconds_of(WITH)  # compiles what the others read
    times: dict[str, list[Seconds]] = {WITH: [], WITHOUT: []}
    for number in range(pairs):
        order = (WITH, WITHOUT) if number % 2 else (WITHOUT, WITH)
        for program in order:
            times[program].append(seconds_of(program))
    print(f"logpi {RUN} FOLDER, {pairs} pairs of whole processes")
    for name in Seconds._fields:
        report(name, *([getattr(each, name) for each in times[p]] for p in (WITH, WITHOUT)))


def report(name: str, seconds_with: list[float], seconds_without: list[float]) -> None:
    """Medians, and the geometric mean of the ratios with twice its standard error."""
    pairs = zip(seconds_with, seconds_without, strict=True)
    logarithms = [math.log(with_all / without) for with_all, without in pairs]
    middle = statistics.mean(logarithms)
    error = statistics.stdev(logarithms) / math.sqrt(len(logarithms))
    low, ratio, high = (math.exp(middle + k * error) for k in (-2, 0, 2))
    medians = f"{statistics.median(seconds_with):.2f} s with, "
    medians += f"{statistics.median(seconds_without):.2f} s without"
    print(f"{name:9} {medians} (medians); ratio {ratio:.3f} ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
