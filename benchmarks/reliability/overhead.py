"""What checks, locks, trackers, signals and checkpoints cost: whole runs with and without, in turn.

python benchmarks/reliability/overhead.py --pairs 10
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time

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


def seconds_of(program: str) -> float:
    """Wall time of one run, from the start of its process to its end."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", program, *RUN.split(), f"{folder}/run"]
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - started


def main() -> None:
    """Run both in turn, and print medians and the ratio of each pair."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=10)
    pairs = parser.parse_args().pairs
    seconds_of(WITH)  # compiles what the others read
    ratios = []
    times: dict[str, list[float]] = {WITH: [], WITHOUT: []}
    for number in range(pairs):
        order = (WITH, WITHOUT) if number % 2 else (WITHOUT, WITH)
        for program in order:
            times[program].append(seconds_of(program))
        ratios.append(times[WITH][-1] / times[WITHOUT][-1])
    print(f"logpi {RUN} FOLDER, {pairs} pairs of whole processes")
    print(f"with     {statistics.median(times[WITH]):.2f} s (median)")
    print(f"without  {statistics.median(times[WITHOUT]):.2f} s")
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"ratio    {middle:.3f} (median of the pairs; quartiles {low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
