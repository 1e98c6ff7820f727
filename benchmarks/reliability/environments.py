"""Train on environments that misbehave in a hundred ways, in this process and in a worker.

    python benchmarks/reliability/environments.py

Each misbehaves once, in the middle of a run. The table says how the run ended, whether it went on
when the environment was sound again, which processes were left, and how long it took.
"""

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

ENVIRONMENT = """
import decimal, fractions, gc, os, random, shutil, signal, sys, threading, time, warnings
import gymnasium as gym
import numpy as np

class Odd(BaseException):
    pass

class Mute(Exception):
    def __str__(self):
        raise RuntimeError

def recurse():
    recurse()

class Walk(gym.Env):
    observation_space = gym.spaces.Box(-9, 9, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)
    episodes = 0

    def __init__(self):
        self.sound = os.path.exists("sound")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episodes += 1
        self.t = 0
        answer = np.zeros(2, np.float32), {}
        if PLACE == "reset" and self.episodes == 6 and not self.sound:
            BODY
        return answer

    def step(self, action):
        self.t += 1
        observation, reward, terminated, truncated, info = (
            np.full(2, self.t, np.float32), float(action), self.t == 5, False, {}
        )
        answer = None
        if PLACE == "step" and self.episodes == 6 and self.t == 3 and not self.sound:
            BODY
        return answer or (observation, reward, terminated, truncated, info)

    def close(self):
        if PLACE == "close" and not self.sound:
            BODY
"""
ANYWHERE = {
    "raises": "raise ValueError('the motor burnt out')",
    "raises over two lines": "raise ValueError('the motor\\nburnt out')",
    "raises a long text": "raise ValueError('x' * 10**6)",
    "raises without a text": "raise ValueError",
    "raises what has no text": "raise Mute",
    "raises what is no Exception": "raise Odd('odd')",
    "raises GeneratorExit": "raise GeneratorExit",
    "raises StopIteration": "raise StopIteration",
    "exits": "sys.exit(5)",
    "exits with 0": "sys.exit(0)",
    "exits with a text": "sys.exit('enough')",
    "ends its process": "os._exit(0)",
    "ends its process with 3": "os._exit(3)",
    "recurses": "recurse()",
    "asks for a petabyte": "np.zeros(10**15)",
    "sleeps for ever": "time.sleep(10**6)",
    "loops for ever": "exec('while True: pass')",
    "waits for a lock": "lock = threading.Lock(); lock.acquire(); lock.acquire()",
    "asserts": "assert False",
    "divides by zero": "1 / 0",
}
HARMLESS = {
    "changes the directory": "os.makedirs('there', exist_ok=True); os.chdir('there')",
    "leaves a thread": "threading.Thread(target=time.sleep, args=(10**6,)).start()",
    "prints": "print('x' * 10**5)",
    "prints bytes": "sys.stdout.buffer.write(bytes(range(256)) * 100); sys.stdout.flush()",
    "makes standard output unwritable": "os.dup2(os.open('/dev/null', os.O_RDONLY), 1)",
    "has no standard output": "sys.stdout = None",
    "has no standard error": "sys.stderr = None",
    "turns warnings into errors": "warnings.simplefilter('error')",
    "warns": "warnings.warn('careful')",
    "seeds others": "random.seed(0); np.random.seed(0)",
    "changes NumPy's errors": "np.seterr(all='raise')",
    "disables the collector": "gc.disable()",
    "empties os.environ": "os.environ.clear()",
    "lowers the recursion limit": "sys.setrecursionlimit(300)",
    "starts a thread that raises": "threading.Thread(target=recurse, daemon=True).start()",
}
FIELDS = {
    "answers None": "answer = None; observation = None",
    "answers three values": "answer = (observation, reward, terminated)",
    "answers four values": "answer = (observation, reward, terminated, info)",
    "answers a number": "answer = 1",
    "observation is missing": "observation = None",
    "observation is text": "observation = 'seen'",
    "observation is NaN": "observation = np.array([0, np.nan], np.float32)",
    "observation is infinite": "observation = np.array([0, np.inf], np.float32)",
    "observation is enormous": "observation = np.array([0, 1e30], np.float32)",
    "observation is long": "observation = np.zeros(3, np.float32)",
    "observation is a number": "observation = np.float32(1)",
    "observation is complex": "observation = np.zeros(2, complex)",
    "observation is of objects": "observation = np.array([{}, {}])",
    "observation is ragged": "observation = [[1, 2], [3]]",
    "observation is a dict": "observation = {'a': 1}",
    "observation is of times": "observation = np.zeros(2, 'datetime64[s]')",
    "observation is beyond single precision": "observation = np.array([6e300, 0])",
    "reward is missing": "reward = None",
    "reward is text": "reward = '1'",
    "reward is NaN": "reward = float('nan')",
    "reward is infinite": "reward = float('inf')",
    "reward is enormous": "reward = 1e30",
    "reward is an array": "reward = np.array([1.0])",
    "reward is complex": "reward = 1j",
    "reward is a Decimal": "reward = decimal.Decimal(1)",
    "reward is a list": "reward = [1.0]",
    "terminated is text": "terminated = 'False'",
    "terminated is missing": "terminated = None",
    "terminated is NaN": "terminated = float('nan')",
    "terminated is an array": "terminated = np.array([False])",
    "terminated is 2": "terminated = 2",
    "truncated is text": "truncated = 'False'",
    "truncated is missing": "truncated = None",
    "truncated is NaN": "truncated = float('nan')",
    "truncated is an array": "truncated = np.array([False])",
    "truncated is 2": "truncated = 2",
    "a mask comes late": "info = {'action_mask': np.ones(2)}",
}
SOUND_FIELDS = {
    "answers a list": "answer = [observation, reward, terminated, truncated, info]",
    "observation is a list": "observation = [0.0, 1.0]",
    "observation is of whole numbers": "observation = np.zeros(2, np.int8)",
    "observation is double": "observation = np.zeros(2)",
    "reward is a Fraction": "reward = fractions.Fraction(1, 2)",
    "reward is NumPy's": "reward = np.float32(1)",
    "reward is true": "reward = True",
    "flags are NumPy's": "terminated = np.False_; truncated = np.bool_(False)",
    "flags are 0": "terminated = truncated = 0",
    "both flags": "terminated = truncated = True",
}
RESETS = {
    "reset answers the observation": "answer = answer[0]",
    "reset answers None": "answer = None",
    "reset answers three values": "answer = (*answer, 0)",
    "reset gives NaN": "answer = (np.array([0, np.nan], np.float32), {})",
    "reset gives another shape": "answer = (np.zeros(3, np.float32), {})",
    "reset gives text": "answer = ('seen', {})",
}
PROGRAM = "from logpi.cli import program; program()"
OPTIONS = "--hidden --episodes 2 --baseline none --step-limit 2 --out run"


class Kind(NamedTuple):
    """What an environment does, where, and whether a run survives it."""

    name: str
    place: str
    body: str
    survives: bool


def all_kinds() -> list[Kind]:
    """Every kind, each at its places."""
    kinds = [
        Kind(f"{name} in {place}", place, body, place == "close")
        for place in ("step", "reset", "close")
        for name, body in ANYWHERE.items()
    ]
    kinds += [Kind(f"{name} in step", "step", body, True) for name, body in HARMLESS.items()]
    kinds += [Kind(name, "step", body, False) for name, body in FIELDS.items()]
    kinds += [Kind(name, "step", body, True) for name, body in SOUND_FIELDS.items()]
    kinds += [Kind(name, "reset", body, False) for name, body in RESETS.items()]
    return kinds


class Ending(NamedTuple):
    """How a program ended."""

    status: int
    said: str
    left: int
    seconds: float


def run(folder: Path, words: list[str]) -> Ending:
    """The program in a session of its own, of which no process should be left."""
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        said = process.communicate(timeout=120)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        said = "hangs"
        process.wait()
    seconds = time.monotonic() - started
    time.sleep(0.2)
    return Ending(process.returncode, said, _processes_of(process.pid), seconds)


def _processes_of(session: int) -> int:
    """Processes of a session that still run."""
    count = 0
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            is_of_session = os.getsid(process.pid) == session
            count += is_of_session and process.status() != psutil.STATUS_ZOMBIE
    return count


def tried(case: tuple[Kind, int]) -> str:
    """A row of the table."""
    kind, workers = case
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = ENVIRONMENT.replace("PLACE", repr(kind.place)).replace("BODY", kind.body)
        (folder / "walk.py").write_text(text)
        options = [*OPTIONS.split(), "--workers", str(workers)]
        ended = run(folder, ["train", "walk.py:Walk", "--steps", "100", *options])
        (folder / "sound").touch()
        again = run(folder, ["resume", "run", "--steps", "140"])
    errors = [line for line in ended.said.splitlines() if line.startswith("logpi: error")]
    named = len(errors) == 1 and "environment" in errors[0] and "episode" in errors[0]
    if kind.survives:
        right = ended.status == 0
    else:
        right = ended.status == 2 and named
    right &= again.status == 0 and ended.left == again.left == 0
    right &= kind.survives or "Traceback" not in ended.said
    said = errors[0].partition("walk.py:Walk: ")[2][:90] if errors else ""
    where = "a worker" if workers else "this process"
    verdict = "right" if right else f"WRONG {ended.said[-300:]!r} {again.said[-200:]!r}"
    return (
        f"| {kind.name} | {where} | {ended.status} | {said} | {again.status} |"
        f" {ended.left + again.left} | {ended.seconds:.1f} | {verdict} |"
    )


def main() -> None:
    """Try every kind in both places, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="a word in the names of the kinds")
    only = parser.parse_args().only
    kinds = [kind for kind in all_kinds() if only in kind.name]
    print(f"{len(kinds)} kinds")
    print("| kind | where | exit status | said | resumed | processes left | seconds | |")
    print("|---|---|---|---|---|---|---|---|")
    wrong = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for row in pool.map(tried, itertools.product(kinds, (0, 1))):
            print(row.replace("\n", " "), flush=True)
            wrong += "WRONG" in row
    print(f"{2 * len(kinds) - wrong} of {2 * len(kinds)} right")


if __name__ == "__main__":
    main()
