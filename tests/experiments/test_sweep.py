"""Sweeps: every run is the one that it would be alone, whatever dies on the way."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import psutil
import pytest
from helpers import learned, same

import logpi
from logpi import LogpiError, Reinforce
from logpi.cli import main
from logpi.core import programs
from logpi.environments.registry import make_environment
from logpi.environments.spec import CompiledEnvironment, EnvironmentSpec
from logpi.experiments import making, together
from logpi.experiments.sweep import SilentSweepReporter, parse_seeds, parse_values
from logpi.experiments.task import Task
from logpi.experiments.together import MOST_TOGETHER
from logpi.runs.folder import RunFolder
from logpi.runs.settings import Settings
from logpi.sampling.compiled import sampler

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


@pytest.mark.parametrize(
    ("rates", "groups"),
    [
        ([0.01], [""]),
        pytest.param(
            [0.01, 0.001],
            ["learning_rate=0.01/", "learning_rate=0.001/"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_every_run_is_the_one_that_it_is_alone(tmp_path, rates, groups):
    """Of two seeds and an environment that is an object. Control: other seeds and other settings
    are other runs.
    """
    swept = logpi.sweep(
        Own,
        METHOD,
        seeds=[3, 5],
        settings={"learning_rate": rates, "max_episode_steps": [20]},
        steps=500,
        out=tmp_path / "sweep",
    )
    names = [str(run.folder.relative_to(swept.folder)) for run in swept.runs]
    assert names == [f"{group}seed_{seed}" for group in groups for seed in (3, 5)]
    last = swept.runs[-1]
    alone = logpi.train(
        Own,
        replace(METHOD, learning_rate=rates[-1]),
        seed=5,
        steps=500,
        max_episode_steps=20,
        out=tmp_path / "alone",
    )
    assert last.evaluation is not None
    assert np.array_equal(last.evaluation.most_probable.returns, alone.evaluation.returns)
    assert same(learned(last.folder), learned(alone.folder))
    assert all(run.failure is None for run in swept.runs)
    ends = [learned(run.folder) for run in swept.runs]
    assert not any(same(ends[-1], end) for end in ends[:-1])


CORRIDOR = Reinforce(hidden=(), episodes=8, baseline="leave-one-out", learning_rate=0.01)


def curve(folder):
    """Steps and mean returns of a run, as it wrote them."""
    with open(folder / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    return [(row["time/total_timesteps"], float(row["rollout/ep_rew_mean"])) for row in rows]


@pytest.mark.slow
def test_seeds_on_a_compiled_environment_learn_in_one_program(tmp_path, monkeypatch):
    """Each run begins with the episodes of its seed and comes to what it comes to alone, within
    rounding. Control: the next seed plays others.
    """
    compiled = []

    def compile_program(function, *arguments):
        compiled.append(jax.tree.leaves(arguments)[0].shape[0])
        return programs.compile_program(function, *arguments)

    monkeypatch.setattr(together, "compile_program", compile_program)
    name = "finite:short-corridor"
    evaluating = sampler._evaluate_batch._cache_size()
    swept = logpi.sweep(name, CORRIDOR, seeds=range(3), steps=3000, out=tmp_path / "sweep")
    assert compiled == [3]
    assert sampler._evaluate_batch._cache_size() == evaluating + 1
    for run in swept.runs[:2]:
        seed = run.settings.seed
        alone = logpi.train(name, CORRIDOR, seed=seed, steps=3000, out=tmp_path / str(seed))
        assert curve(run.folder)[0] == curve(alone.folder)[0]
        worth = run.evaluation.drawn
        other = alone.drawn_evaluation
        error = np.hypot(worth.returns.std(), other.returns.std()) / np.sqrt(len(worth.returns))
        assert abs(worth.mean - other.mean) < 5 * error
    firsts = {curve(run.folder)[0] for run in swept.runs}
    assert len(firsts) == 3


@dataclass
class Unhashable:
    """A function that is an object, as of a user's module with arrays."""

    function: Callable[..., object]

    def __call__(self, key):
        return self.function(key)


def test_runs_of_one_environment_share_what_evaluates_them():
    """Whatever compiles their training, and whether or not its functions can be hashed. Control: an
    environment that steps otherwise is another.
    """
    made = make_environment("finite:short-corridor")
    made = replace(made, reset=Unhashable(made.reset))
    same_one = replace(made, compiler=print)
    assert same_one == made
    assert hash(same_one) == hash(made)
    assert replace(made, step=print) != made


def test_runs_that_differ_in_more_than_their_seeds_have_programs_of_their_own():
    settings = [
        Settings("finite:short-corridor", replace(CORRIDOR, learning_rate=rate), seed=seed)
        for rate in (0.1, 0.2)
        for seed in range(MOST_TOGETHER + 1)
    ]
    tasks = [
        Task(each, each.environment, Path(str(number))) for number, each in enumerate(settings)
    ]
    groups = making._of_one_setting(tasks)
    assert [len(group) for group in groups] == [MOST_TOGETHER, 1] * 2
    assert [task for group in groups for task in group] == tasks


@pytest.mark.release
def test_a_sweep_in_one_program_is_stopped_and_goes_on(tmp_path):
    """The runs under way are saved when it is stopped; the next call resumes them."""

    class Stops(SilentSweepReporter):
        def finished(self, run, done, count):
            raise KeyboardInterrupt

    arguments = ("finite:short-corridor", CORRIDOR)
    options = {"seeds": range(3), "out": tmp_path / "sweep"}
    (tmp_path / "sweep").mkdir()
    logpi.train(*arguments, seed=0, steps=1000, out=tmp_path / "sweep" / "seed_0")
    with pytest.raises(KeyboardInterrupt):
        logpi.sweep(*arguments, steps=1000, reporter=Stops(), **options)
    saved = [RunFolder.open(tmp_path / "sweep" / f"seed_{seed}").saved_steps() for seed in (1, 2)]
    assert None not in saved
    swept = logpi.sweep(*arguments, steps=1000, **options)
    assert all(run.failure is None for run in swept.runs)


@pytest.mark.release
def test_what_fails_in_one_program_is_said_of_each(tmp_path):
    """A reward of one seed is no number: the others learn on."""
    spec = EnvironmentSpec(
        name="fails",
        observation_space=gym.spaces.Box(-2, 2, (1,)),
        action_space=gym.spaces.Discrete(2),
        max_episode_steps=5,
        reward_threshold=None,
        identity={},
    )

    def reset(key):
        return jnp.int32(0), jax.random.uniform(key, (1,))

    def step(key, state, action):
        reward = jnp.where(jax.random.uniform(key) < 0.001, jnp.nan, 1.0)
        return state + 1, jnp.zeros(1), reward, jnp.array(False), jnp.array(False)

    environment = CompiledEnvironment(spec, reset, step)
    swept = logpi.sweep(environment, CORRIDOR, seeds=range(4), steps=400, out=tmp_path)
    failed = [run for run in swept.runs if run.failure is not None]
    assert 0 < len(failed) < 4
    for run in failed:
        assert "reward is not finite" in run.failure


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
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            is_run = "logpi.experiments.process" in process.cmdline()
            if is_run and process.environ().get("LOGPI_TEST_SWEEP") == str(folder):
                found.append(process.pid)
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


@pytest.mark.release
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
    assert main(["sweep", "own.py:Fails", "--seeds", "0", *options]) == 0
    Path("fails").write_text("yes")
    assert main(["sweep", "own.py:Fails", "--seeds", "0,1", *options]) == 2
    told = capsys.readouterr().out.splitlines()[-2:]
    failed = [line for line in told if "failed" in line]
    assert len(failed) == 1
    assert "seed_1 failed" in failed[0]
    assert "ValueError: it is broken" in failed[0]
    assert "Traceback" not in failed[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "some"], "write seeds as 0..9 or 0,1,5, got 'some'"),
        (["--seeds", "5..3"], "seeds must be at least one"),
        (["--seeds", "1,1"], "are the same run"),
        (["--set", "learning_rat=1,2"], "did you mean 'learning_rate'"),
        (["--set", "learning_rate=-1.0,0.1"], "learning_rate must be"),
        (["--set", "learning_rate"], "write --set as learning_rate=1e-3,3e-4"),
        (["--set", "learning_rate=[1"], "write --set as"),
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


@pytest.mark.release
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
