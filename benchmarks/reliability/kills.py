"""Kill runs with `kill -9`, resume them, and compare them with runs that were never killed.

    python benchmarks/reliability/kills.py --kills 200

A run is killed again and again until it ends: at random instants, in the middle of a checkpoint, of
a row of metrics.csv or of a TensorBoard event, before and after a file takes its place, and, where
it has workers, by the death of a worker. Equal means: every array of the last checkpoint (policy,
critic, optimisers, what the sampler keeps), the counters, the rows of metrics.csv and of
TensorBoard; all but seconds and speeds.
"""

import argparse
import collections
import csv
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import tensorboardX.proto.event_pb2

EVENTS: Any = tensorboardX.proto.event_pb2  # its names are made when it is imported

# The program, which kills itself at the n-th time that it comes to a place.
PROGRAM = """
import io, os, signal, sys
from pathlib import Path

place = sys.argv.pop(1)
left = [int(sys.argv.pop(1))]

def die_in_time():
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)

def shorten(path):
    left[0] -= 1
    if not left[0]:
        os.truncate(path, os.path.getsize(path) - 5)
        os.kill(os.getpid(), signal.SIGKILL)

import numpy as np
from logpi.runs.metrics import CsvTracker, TensorBoardTracker

if place in ("before a file", "after a file"):
    replace = os.replace
    def killing(*paths):
        if place == "before a file":
            die_in_time()
        replace(*paths)
        die_in_time()
    os.replace = killing
elif place == "half a checkpoint":
    savez = np.savez
    def half(file, **arrays):
        whole = io.BytesIO()
        savez(whole, **arrays)
        file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
        file.flush()
        die_in_time()
        file.seek(0)
        file.truncate()
        savez(file, **arrays)
    np.savez = half
elif place in ("half a row", "half an event"):
    kind = CsvTracker if place == "half a row" else TensorBoardTracker
    write = kind.write
    def written(self, step, metrics):
        write(self, step, metrics)
        if place == "half a row":
            shorten("run/metrics.csv")
        else:
            shorten(max(Path("run").glob("events*"), key=os.path.getmtime))
    kind.write = written

from logpi.cli import program
program()
"""
PLACES = ("half a checkpoint", "half a row", "half an event", "before a file", "after a file")
SMALL = "--hidden 16"
RUNS = {
    "REINFORCE": f"CartPole-v1 --steps 30000 {SMALL} --episodes 8 --value-steps 5 --workers 0",
    "REINFORCE, 1 worker": f"CartPole-v1 --steps 20000 {SMALL} --episodes 8 --workers 1",
    "A2C": f"CartPole-v1 --algorithm a2c --steps 20000 {SMALL} --workers 0",
    "PPO, 1 worker": f"CartPole-v1 --algorithm ppo --steps 20000 {SMALL} --workers 1",
    "TRPO": f"InvertedPendulum-v5 --algorithm trpo --steps 20000 {SMALL} --workers 0",
    "REINFORCE, GRU": "CartPole-v1 --memory gru --memory-size 8 --steps 15000 --workers 0",
    "PPO, GRU": "CartPole-v1 --algorithm ppo --memory gru --memory-size 8 --steps 20000 --workers 0",
    "REINFORCE, gymnax": f"gymnax:CartPole-v1 --steps 400000 {SMALL} --episodes 16",
    "PPO, gymnax": f"gymnax:CartPole-v1 --algorithm ppo --steps 400000 {SMALL}",
}
OTHERS = {"time/fps", "time/time_elapsed", "time/faults", "time/lost_workers"}
# Seconds after the start of training within which a run is killed at a random instant.
LATEST = 2.5


class Ending(NamedTuple):
    """What a run has come to."""

    arrays: dict[str, np.ndarray]
    counters: dict[str, object]
    rows: list[dict[str, str]]
    events: dict[tuple[int, str], float]


def ending_of(folder: Path) -> Ending:
    """What is compared."""
    newest = max((folder / "checkpoints").glob("*.npz"))
    arrays = dict(np.load(newest))
    counters = json.loads(arrays.pop("counters").tobytes())
    other = ("seconds", "faults", "lost")
    counters = {name: counters[name] for name in counters if name not in other}
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [{k: row[k] for k in row if k not in OTHERS} for row in csv.DictReader(file)]
    return Ending(arrays, counters, rows, events_of(folder))


def events_of(folder: Path) -> dict[tuple[int, str], float]:
    """The rows that TensorBoard shows: a file that begins later hides what others have from its
    first step on.
    """
    rows: dict[tuple[int, str], float] = {}
    for file in sorted(folder.glob("events*"), key=lambda path: path.stat().st_mtime):
        for event in _read_events(file.read_bytes()):
            if event.session_log.status == EVENTS.SessionLog.START:
                rows = {(step, tag): x for (step, tag), x in rows.items() if step < event.step}
            for value in event.summary.value:
                if value.tag not in OTHERS:
                    rows[event.step, value.tag] = value.simple_value
    return rows


def _read_events(data: bytes) -> Iterator[Any]:
    place = 0
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 8], "little")
        if place + 16 + length > len(data):
            return  # cut off
        yield EVENTS.Event.FromString(data[place + 12 : place + 12 + length])
        place += 16 + length


def differences(one: Ending, other: Ending) -> list[str]:
    """What is not equal."""
    found = [
        name
        for name in one.arrays.keys() | other.arrays.keys()
        if not np.array_equal(one.arrays.get(name), other.arrays.get(name), equal_nan=True)  # type: ignore[arg-type]
    ]
    for name in ("counters", "rows", "events"):
        if getattr(one, name) != getattr(other, name):
            found.append(name)
    return found


def start(folder: Path, words: list[str], place: str, number: int) -> subprocess.Popen[str]:
    """The program, which says when it trains."""
    return subprocess.Popen(
        [sys.executable, "-u", "-c", PROGRAM, place, str(number), *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def children_of(process: int) -> list[int]:
    """The processes that a process has started."""
    return [child.pid for child in psutil.Process(process).children()]


class Chain:
    """One run, killed and resumed until it ends."""

    def __init__(self, options: str, folder: Path, random: np.random.Generator):
        every = ["--checkpoint-every", str(int(options.split("--steps ")[1].split()[0]) // 40)]
        self._train = ["train", *options.split(), *every, "--on-fault", "replay", "--out", "run"]
        self._folder = folder
        self._random = random
        self.kills: collections.Counter[str] = collections.Counter()

    def whole(self) -> Ending:
        """The run that is never killed."""
        folder = self._folder / "whole"
        folder.mkdir()
        process = start(folder, self._train, "nowhere", 0)
        told = process.communicate()[0]
        if process.returncode:
            raise SystemExit(told)
        return ending_of(folder / "run")

    def killed(self, number: int, most: int) -> Ending | None:
        """The run after up to `most` kills and their resumes; None where it cannot be resumed."""
        folder = self._folder / str(number)
        folder.mkdir()
        for attempt in itertools.count():
            words = ["resume", "run"] if attempt else self._train
            place = "nowhere"
            if attempt < most:
                place = str(self._random.choice(["an instant", *PLACES, *self._worker]))
            process = start(folder, words, place, int(self._random.integers(1, 12)))
            status, told = self._end(process, place)
            if status == -signal.SIGKILL:
                self.kills[place] += 1
            elif status == 0:
                return ending_of(folder / "run")
            elif "config.json" not in told:  # killed before there was a run
                print(told[-500:])
                return None
            if not (folder / "run" / "config.json").exists():
                subprocess.run(["rm", "-rf", folder / "run"], check=True)
                return self.killed(number + 1000, most)
        return None

    @property
    def _worker(self) -> list[str]:
        if "--workers 1" in " ".join(self._train):
            return ["a worker", "a worker"]
        return []

    def _end(self, process: subprocess.Popen[str], place: str) -> tuple[int, str]:
        """Wait for its end, which comes from here where the place is an instant or a worker."""
        assert process.stdout is not None
        told = process.stdout.readline()
        if place in ("an instant", "a worker"):
            time.sleep(self._random.uniform(0.0, LATEST))
            if place == "an instant":
                process.kill()
            elif process.poll() is None and children_of(process.pid):
                os.kill(children_of(process.pid)[0], signal.SIGKILL)
                self.kills[place] += 1
        told += process.communicate()[0]
        return process.returncode, told


def main() -> None:
    """Kill, resume, compare, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=list(RUNS), choices=RUNS)
    arguments = parser.parse_args()
    each = -(-arguments.kills // len(arguments.only))

    def tried(name: str) -> str:
        random = np.random.default_rng([arguments.seed, list(RUNS).index(name)])
        wrong: collections.Counter[str] = collections.Counter()
        ended = 0
        with tempfile.TemporaryDirectory() as folder:
            chain = Chain(RUNS[name], Path(folder), random)
            whole = chain.whole()
            while chain.kills.total() < each:
                found = chain.killed(ended, each - chain.kills.total())
                ended += 1
                if found is None:
                    wrong["not resumed"] += 1
                else:
                    wrong.update(differences(whole, found))
        places = ", ".join(f"{count} {place}" for place, count in sorted(chain.kills.items()))
        verdict = "all equal" if not wrong else f"DIFFER: {dict(wrong)}"
        return f"| {name} | {chain.kills.total()} | {places} | {ended} | {verdict} |"

    print(f"seed {arguments.seed}")
    print("| run | kills | where | runs that ended | compared with the run never killed |")
    print("|---|---|---|---|---|")
    with ThreadPoolExecutor(2) as pool:
        for line in pool.map(tried, arguments.only):
            print(line, flush=True)


if __name__ == "__main__":
    main()
