"""Environments that fail in the middle of a run: what is named, what is saved, what goes on."""

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import IS_FIRST

import logpi
from logpi import LogpiError, Reinforce
from logpi.core.user_files import LOADED
from logpi.environments.doctor import examine
from logpi.runs.folder import RunFolder
from logpi.runs.report import SilentReporter

# An environment of five steps, in which `misbehave()` is called at step 3 of some episodes.
SOURCE = (
    IS_FIRST
    + """
import os
import sys
import threading
import time

import gymnasium as gym
import numpy as np

class Strange(BaseException):
    pass

class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError

class Walk(gym.Env):
    observation_space = gym.spaces.Box(-9, 9, (2,), np.float32)
    action_space = ACTIONS

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = self.np_random.uniform(size=2).astype(np.float32)
        self.fails = self.np_random.uniform() < SHARE
        self.t = 0
        return self.at, {}

    def step(self, action):
        self.t += 1
        if self.t == 3 and self.fails:
            self.misbehave(action)
        self.at = self.at * np.float32(0.9)
        return self.at, float(np.sum(action)), self.t == 5, False, {}

    def misbehave(self, action):
        BODY
"""
)
METHODS = {
    "reinforce": Reinforce(hidden=(), episodes=8, baseline="none"),
    "a2c": logpi.A2C(hidden=(), environments=8, rollout_steps=7),
}


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes the environment with what it does at its worst, and is where it lies."""
    monkeypatch.chdir(tmp_path)

    def write(body, share=0.1, actions="gym.spaces.Discrete(2)"):
        text = SOURCE.replace("BODY", body).replace("SHARE", str(share))
        Path("walk.py").write_text(text.replace("ACTIONS", actions))
        LOADED.pop(tmp_path / "walk.py", None)

    return write


def train(out, method="reinforce", **more):
    options = {"steps": 400, "workers": 0} | more
    return logpi.train("walk.py:Walk", METHODS[method], out=out, **options)


def arrays(run):
    """The arrays of a run's last checkpoint."""
    found = dict(np.load(RunFolder.open(run.folder).checkpoints()[0]))
    counters = json.loads(found.pop("counters").tobytes())
    return found, counters


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


FAULTS = ["raise ValueError('a flake')", "os._exit(3)", "self.at = np.full(2, np.nan)"]
PLAYED_AGAIN = [
    (FAULTS[0], "reinforce", 0),
    (FAULTS[2], "a2c", 0),
]
PLAYED_AGAIN_TOO = [
    case for case in itertools.product(FAULTS, METHODS, (0, 1)) if case not in PLAYED_AGAIN
]


@pytest.mark.parametrize(
    ("fault", "method", "workers"),
    [
        *PLAYED_AGAIN,
        *(pytest.param(*case, marks=pytest.mark.slow) for case in PLAYED_AGAIN_TOO[:2]),
        *(pytest.param(*case, marks=pytest.mark.release) for case in PLAYED_AGAIN_TOO[2:]),
    ],
)
def test_a_batch_is_played_again_alike(write, fault, method, workers, tmp_path):
    """New copies lead to the parameters of a run without the fault."""
    write("pass")
    whole, _ = arrays(train("whole", method))
    write(f"if is_first('failed'): {fault}")
    run = train("run", method, on_fault="replay", workers=workers)
    again, counters = arrays(run)
    assert same(whole, again)
    assert counters["faults"] == 1
    Path("failed").unlink()
    with pytest.raises(LogpiError, match="environment"):
        train("stops", method, workers=workers)


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_is_thrown_away_as_a_whole(write, method, capsys):
    """Its number is not used again, nor are its episodes. Control: the run without the fault."""
    write("pass")
    whole, counters = arrays(train("whole", method))
    assert int(whole["batch"]) == counters["updates"]
    write("if is_first('failed'): raise ValueError('a flake')")
    skipped, counters = arrays(train("run", method, on_fault="skip"))
    assert counters["faults"] == 1
    assert int(skipped["batch"]) == counters["updates"] + 1
    assert "its batch is thrown away" in capsys.readouterr().err
    assert not same(whole, skipped)


def test_a_fault_that_comes_again_ends_the_run(write):
    write("raise ValueError('the motor burnt out')")
    with pytest.raises(LogpiError, match="motor burnt out; 5 faults in a row, --on-fault replay"):
        train("run", on_fault="replay")
    assert RunFolder.open(Path("run")).saved_steps() is not None


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("time.sleep(100)", "step took longer than 1 s"),
        ("raise Strange('odd')", "step raised Strange: odd"),
        ("raise Unspeakable", "step raised Unspeakable: its message cannot be made"),
        ("sys.exit(4)", "step raised SystemExit: 4"),
    ],
)
def test_what_an_environment_does_is_named(write, body, message, workers):
    write(body, share=0.4)
    with pytest.raises(LogpiError, match=rf"episode \d+, step 2: {message}"):
        train("run", step_limit=1.0, workers=workers)
    assert RunFolder.open(Path("run")).saved_steps() is not None


@pytest.mark.parametrize("what", ["reset", "step"])
def test_time_that_passes_after_the_answer_is_named_too(write, what, monkeypatch):
    """An answer that takes long to read: the alarm comes outside of the environment."""
    write("pass")

    def slow(*_):
        time.sleep(100)

    monkeypatch.setattr(f"logpi.environments.host.local.{what}_answer", slow)
    with pytest.raises(LogpiError, match=f"step 0: {what} took longer than 1 s"):
        train("run", step_limit=1.0)


@pytest.mark.release
def test_a_worker_that_blocks_everything_is_killed(write, monkeypatch):
    """Where its own alarm cannot reach it."""
    monkeypatch.setattr("logpi.sampling.host.process.GRACE", 1.0)
    block = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])"
    write(f"if os.getpid() != {os.getpid()}: import signal; {block}; time.sleep(100)")
    started = time.monotonic()
    with pytest.raises(LogpiError, match="gave no sign of life for 2 s .* lost 3 times in a row"):
        train("run", step_limit=1.0, workers=1)
    assert time.monotonic() - started < 30


def test_a_process_that_ends_itself_is_stopped(write):
    """In this process `os._exit` would end everything without a word."""
    write("os._exit(0)")
    before = os._exit
    with pytest.raises(LogpiError, match=r"step 2: step raised SystemExit: os\._exit\(0\)"):
        train("run")
    assert os._exit is before


def test_an_environment_that_ends_the_process_when_it_closes(write):
    """Which it does first when it has been looked at, before there is a run."""
    write("pass")
    text = Path("walk.py").read_text()
    Path("walk.py").write_text(text + "\n    def close(self):\n        os._exit(0)\n")
    assert train("run").steps >= 400
    assert examine("walk.py:Walk", 20)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_an_action_that_is_changed_in_place(write, workers):
    """Changes nothing, wherever the environment runs."""
    box = "gym.spaces.Box(-1, 1, (2,), np.float32)"
    write("pass", actions=box)
    whole, _ = arrays(train("whole"))
    write("action[:] = action * 1", share=1.0, actions=box)
    assert same(whole, arrays(train("run", workers=workers))[0])


def test_another_directory_loses_no_file(write, tmp_path):
    write("os.makedirs('elsewhere', exist_ok=True); os.chdir('elsewhere')", share=1.0)
    run = train("run", steps=40)
    os.chdir(tmp_path)
    assert run.folder == tmp_path / "run"
    assert (tmp_path / "run" / "evaluation.json").exists()


@pytest.mark.slow
def test_threads_that_stay_are_left(write):
    """A thread that is no daemon would keep the program alive. Its warning names it."""
    write("threading.Thread(target=time.sleep, args=(600,), name='sleeper').start()", share=1.0)
    text = "import logpi.cli as cli; cli.GRACE = 1.0; cli.program()"
    options = ["--hidden", "--episodes", "2", "--baseline", "none", "--workers", "0"]
    command = ["train", "walk.py:Walk", "--steps", "10", "--out", "run", *options]
    done = subprocess.run(
        [sys.executable, "-c", text, *command], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0
    assert "warning: left running: " in done.stderr
    assert "sleeper" in done.stderr
    assert Path("run/evaluation.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "is_named"), [("logpi compiler_0", False), ("sleeper", True)])
def test_a_program_that_ends_says_nothing_of_its_own_compiler(name, is_named):
    """It is left at work where a run has failed. Control: another thread is named."""
    text = (
        "import threading, time, logpi.cli as cli; cli.GRACE = 1.0;"
        f"threading.Thread(target=time.sleep, args=(600,), name={name!r}).start(); cli.program()"
    )
    done = subprocess.run(
        [sys.executable, "-c", text, "--version"], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0
    assert ("left running" in done.stderr) == is_named


class Marks(SilentReporter):
    """Leaves a file where the evaluation begins."""

    def evaluating(self):
        Path("evaluating").touch()


@pytest.mark.parametrize("on_fault", ["replay", "stop"])
def test_a_fault_in_the_evaluation(write, on_fault):
    """Its episodes are played again too. Control: a run that stops is evaluated when it goes on."""
    write("pass")
    whole = train("whole")
    write("if os.path.exists('evaluating') and is_first('failed'): raise ValueError('a flake')")
    if on_fault == "replay":
        run = train("run", on_fault=on_fault, reporter=Marks())
    else:
        with pytest.raises(LogpiError, match="a flake"):
            train("run", on_fault=on_fault, reporter=Marks())
        run = logpi.resume("run")
    assert Path("failed").exists()
    for name in ("evaluation", "drawn_evaluation"):
        assert getattr(run, name).to_json() == getattr(whole, name).to_json()
