"""Sweeps: every run is the one that it would be alone, whatever dies on the way."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from helpers import learned, same

import logpi
from logpi import LogpiError, Reinforce
from logpi.cli import main
from logpi.experiments.sweep import parse_seeds, parse_values
from logpi.runs.folder import RunFolder

METHOD = Reinforce(hidden=(8,), episodes=8, baseline="none")
SMALL = ["--hidden", "8", "--episodes", "8", "--baseline", "none"]

FAILS = """
from pathlib import Path
import gymnasium as gym

class Fails(gym.Wrapper):
    def __init__(self):
        super().__init__(gym.make("CartPole-v1"))

    def step(self, action):
        if Path("fails").read_text() == "yes":
            raise ValueError("it is broken")
        return super().step(action)
"""


class Own(gym.Wrapper):
    """An environment without a name that another process could find."""

    def __init__(self):
        super().__init__(gym.make("CartPole-v1", max_episode_steps=30))


def test_every_run_is_the_one_that_it_is_alone(tmp_path):
    """Two settings, two seeds, of an environment that is an object. Control: other seeds and other
    settings are other runs.
    """
    swept = logpi.sweep(
        Own,
        METHOD,
        seeds=[3, 5],
        settings={"learning_rate": [0.01, 0.001], "max_episode_steps": [20]},
        steps=500,
        out=tmp_path / "sweep",
    )
    names = [str(run.folder.relative_to(swept.folder)) for run in swept.runs]
    rates = ("learning_rate=0.01", "learning_rate=0.001")
    assert names == [f"{rate}/seed_{seed}" for rate in rates for seed in (3, 5)]
    for number, run in enumerate(swept.runs):
        alone = logpi.train(
            Own,
            run.settings.algorithm,
            seed=run.settings.seed,
            steps=500,
            max_episode_steps=20,
            out=tmp_path / f"alone_{number}",
        )
        assert run.failure is None
        assert run.evaluation is not None
        assert np.array_equal(run.evaluation.most_probable.returns, alone.evaluation.returns)
        assert same(learned(run.folder), learned(alone.folder))
    ends = [learned(run.folder) for run in swept.runs]
    assert not same(ends[0], ends[1])
    assert not same(ends[0], ends[2])


PROGRAM = "from logpi.cli import program; program()"


def command(folder, *options):
    words = ["sweep", "CartPole-v1", "--seeds", "0..2", "--steps", "6000", "--out", str(folder)]
    return [sys.executable, "-c", PROGRAM, *words, *SMALL, "--checkpoint-every", "500", *options]


def start_sweep(folder):
    """A sweep in a process of its own, whose runs are told from those of other tests by a variable
    that they inherit.
    """
    variables = os.environ | {"LOGPI_TEST_SWEEP": str(folder)}
    return subprocess.Popen(command(folder), env=variables, stdout=subprocess.DEVNULL)


def run_processes(folder):
    """The processes of the runs of the sweep that `start_sweep` has started."""
    variable = f"LOGPI_TEST_SWEEP={folder}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                variables = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"logpi.experiments.process" in words and variable in variables:
                found.append(int(entry.name))
    return found


def wait_until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
def test_a_sweep_that_is_killed_goes_on(tmp_path):
    """A run's process is killed, then the sweep itself; its processes end with it, saved. The same
    command then makes the rest, and every run is the undisturbed one.
    """
    whole = tmp_path / "whole"
    done = subprocess.run(command(whole), capture_output=True, text=True, check=True)
    assert "3 of 3" in done.stdout
    killed = tmp_path / "killed"
    process = start_sweep(killed)
    wait_until(lambda: any(killed.glob("seed_*/checkpoints/*.npz")))
    os.kill(run_processes(killed)[0], signal.SIGKILL)
    wait_until(lambda: any(killed.glob("seed_1/checkpoints/*.npz")))
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: not run_processes(killed))
    assert not list(killed.glob("seed_2/evaluation.json"))
    done = subprocess.run(command(killed), capture_output=True, text=True, check=True)
    assert "3 of 3" in done.stdout
    for seed in range(3):
        assert same(learned(whole / f"seed_{seed}"), learned(killed / f"seed_{seed}"))
    sessions = [RunFolder.open(killed / f"seed_{seed}").sessions for seed in range(3)]
    assert max(len(each) for each in sessions) > 1


@pytest.mark.slow
def test_ctrl_c_saves_the_runs_under_way(tmp_path):
    sweep = tmp_path / "sweep"
    process = start_sweep(sweep)
    wait_until(lambda: any(sweep.glob("seed_*/checkpoints/*.npz")))
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert not run_processes(sweep)
    for folder in sweep.glob("seed_*"):
        last = RunFolder.open(folder).saved_steps()
        assert last is not None


def test_a_run_that_fails_ends_no_other(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(FAILS)
    Path("fails").write_text("no")
    options = ["--steps", "100", "--out", "sweep", *SMALL]
    assert main(["sweep", "own.py:Fails", "--seeds", "0,1", *options]) == 0
    Path("fails").write_text("yes")
    assert main(["sweep", "own.py:Fails", "--seeds", "0..2", *options]) == 2
    told = capsys.readouterr().out.splitlines()[-3:]
    failed = [line for line in told if "failed" in line]
    assert len(failed) == 1
    assert "seed_2 failed" in failed[0]
    assert "ValueError: it is broken" in failed[0]
    assert "Traceback" not in failed[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "some"], "seeds must be such as 0..9 or 0,1,5, got 'some'"),
        (["--seeds", "5..3"], "seeds must be at least one"),
        (["--seeds", "1,1"], "are the same run"),
        (["--set", "learning_rat=1,2"], "did you mean 'learning_rate'"),
        (["--set", "learning_rate=-1.0,0.1"], "learning_rate must be"),
        (["--set", "learning_rate"], "--set must be such as learning_rate=1e-3,3e-4"),
        (["--set", "learning_rate=[1"], "--set must be such as"),
        (["--set", "learning_rate=1e-3,0.001"], "are the same run"),
        (["--set", "seed=1,2"], "seed is no setting to sweep over"),
        (["--processes", "0"], "processes must be a whole number >= 1"),
        (["--learning-rate", "-1"], "learning_rate must be"),
    ],
)
def test_what_cannot_be_swept_is_refused_before_the_first_run(
    tmp_path, monkeypatch, capsys, words, message
):
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", "CartPole-v1", "--out", "sweep", *words]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert len(told.splitlines()) == 1
    assert not Path("sweep").exists()


def test_words_of_the_command_line():
    assert parse_seeds("2..4") == [2, 3, 4]
    assert parse_seeds("7") == [7]
    found = parse_values(["learning-rate=1e-3,3e-4", "hidden=[64,64],[8]", "baseline=none,value"])
    assert found == {
        "learning_rate": [0.001, 0.0003],
        "hidden": [[64, 64], [8]],
        "baseline": ["none", "value"],
    }


def test_another_setting_is_refused_in_the_same_folder(tmp_path):
    """Control of the resumption: a finished run is given back only to those settings."""
    options = {"seeds": [0], "out": tmp_path / "sweep"}
    logpi.sweep("CartPole-v1", METHOD, steps=100, **options)
    before = json.loads((tmp_path / "sweep/seed_0/config.json").read_text())
    again = logpi.sweep("CartPole-v1", METHOD, steps=100, **options)
    assert again.runs[0].failure is None
    assert json.loads((tmp_path / "sweep/seed_0/config.json").read_text()) == before
    other = logpi.sweep("CartPole-v1", Reinforce(episodes=9), steps=100, **options)
    assert "holds a run with" in (other.runs[0].failure or "")


def test_an_environment_that_cannot_travel_is_named(tmp_path):
    lock = __import__("threading").Lock()

    def factory():
        assert lock
        return gym.make("CartPole-v1")

    with pytest.raises(LogpiError, match="cannot be sent to another process"):
        logpi.sweep(factory, METHOD, seeds=[0], steps=100, out=tmp_path / "sweep")
