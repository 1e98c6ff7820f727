"""What a run says of itself: what its policy is worth, on what it was computed, where its files
are."""

import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

import logpi
from logpi import LogpiError, Reinforce
from logpi.cli import main
from logpi.runs.checkpoint import Counters
from logpi.runs.evaluation import Evaluation, FinalEvaluation, evaluate_at_end
from logpi.runs.folder import RunFolder
from logpi.runs.metrics import count_update, make_row, read_metrics, steps_to_next_row
from logpi.runs.report import SilentReporter

CORRIDOR = "finite:short-corridor"
TIMES = ("time/time_elapsed", "time/fps")
SMALL = Reinforce(hidden=(), episodes=4, baseline="none")
MINE = """
import gymnasium as gym
import numpy as np

class Walk(gym.Env):
    observation_space = gym.spaces.Discrete(3)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        self.at = 0
        return 0, {}

    def step(self, action):
        self.at += 1
        return self.at % 3, float(action), self.at == 5, False, {}
"""
TORCH = """
import torch

def loss(log_prob, reward):
    return -(torch.as_tensor(log_prob) * torch.as_tensor(reward)).sum()
"""
JAX = """
def loss(log_prob, reward, mask):
    return -(log_prob * reward * mask).sum()
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A directory with a user's files, where commands are given."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE)
    return tmp_path


def evaluation(*returns):
    return Evaluation(np.array(returns, float), np.ones(len(returns), int))


@pytest.mark.parametrize(
    ("most_probable", "drawn", "differs"),
    [
        ((-1000, -1000), (-11, -12, -13), True),
        ((1, 2, 3), (2, 3, 4), False),
        ((5, 5), (5, 5), False),
    ],
)
def test_two_ways_of_acting_that_differ(most_probable, drawn, differs):
    assert FinalEvaluation(evaluation(*most_probable), evaluation(*drawn)).differs is differs


@pytest.mark.slow
def test_both_ways_of_acting_are_shown(tmp_path, capsys):
    """Where they differ: the most probable action of the aliased corridor never arrives."""
    options = [
        "--hidden",
        "--episodes",
        "16",
        "--baseline",
        "leave-one-out",
        "--out",
        str(tmp_path / "run"),
    ]
    assert main(["train", "finite:short-corridor", "--steps", "2e4", *options]) == 0
    printed = capsys.readouterr().out
    assert "return   -1000.0 [-1000.0, -1000.0] over " in printed
    assert "actions drawn from the policy" in printed
    stored = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert stored["mean"] == -1000
    assert stored["drawn"]["mean"] > -100


class Asked:
    """A sampler that plays nothing."""

    def __init__(self):
        self.asked = []

    def evaluate(self, policy, episodes, deterministic, most_steps):
        self.asked.append((episodes, most_steps))
        return np.zeros(2), np.ones(2, int)


@pytest.mark.parametrize("steps", [pytest.param(100, marks=pytest.mark.slow), 3000])
def test_the_evaluation_takes_a_share_of_the_steps(home, steps):
    """Of five steps each is an episode: 15 % of a short run's steps in each of both ways, up to 5,000
    steps, and 2.5 % where that is more."""
    run = logpi.train("mine.py:Walk", SMALL, steps=steps, out="run", workers=0)
    for played in (run.evaluation, run.drawn_evaluation):
        assert len(played.lengths) == min(100, int(0.15 * run.steps) // 5)
    for made, played in ((10**5, 5000), (10**6, 25_000)):
        counters = Counters(steps=made, recent=[[1.0, 1000.0, 100.0]])
        sampler = Asked()
        evaluate_at_end(sampler, run.policy, counters)
        assert sampler.asked == [(played // 1000, played)] * 2
    count = len(run.evaluation.returns)
    again = logpi.evaluate(run.policy, "mine.py:Walk", count)
    assert np.array_equal(again.returns, run.evaluation.returns)


@pytest.mark.slow
def test_a_run_without_a_checkpoint_begins_again(tmp_path):
    whole = logpi.train("finite:short-corridor", SMALL, steps=200, out=tmp_path / "whole")
    shutil.copytree(whole.folder, tmp_path / "killed")
    shutil.rmtree(tmp_path / "killed" / "checkpoints")
    again = logpi.resume(tmp_path / "killed")
    assert again.evaluation.to_json() == whole.evaluation.to_json()
    files = [RunFolder.open(run.folder).checkpoints()[0] for run in (whole, again)]
    one, other = (dict(np.load(file)) for file in files)
    assert all(np.array_equal(one[name], other[name]) for name in one if name != "counters")


@pytest.mark.parametrize(("text", "made"), [(TORCH, False), (JAX, True)], ids=["torch", "jax"])
def test_an_estimator_that_cannot_be_trained_with_makes_no_folder(home, text, made):
    Path("theirs.py").write_text(text)
    method = Reinforce(hidden=(), episodes=4, baseline="none", estimator="theirs.py:loss")
    if made:
        logpi.train("mine.py:Walk", method, steps=20, out="run", workers=0)
    else:
        with pytest.raises(LogpiError, match=r"theirs\.py:loss"):
            logpi.train("mine.py:Walk", method, steps=20, out="run", workers=0)
    assert Path("run").exists() is made


def test_a_run_is_used_from_anywhere(home, monkeypatch):
    """Its own file is meant, not one of that name that lies there."""
    logpi.train("mine.py:Walk", SMALL, steps=40, out="run", workers=0)
    elsewhere = home / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    Path("mine.py").write_text("raise SystemExit(3)")
    assert main(["evaluate", "../run", "--episodes", "2"]) == 0
    assert logpi.resume(home / "run", steps=80).steps >= 80
    assert (
        json.loads((home / "run" / "config.json").read_text())["settings"]["environment"]
        == "mine.py:Walk"
    )


def test_a_file_that_has_moved_is_named(home):
    logpi.train("mine.py:Walk", SMALL, steps=40, out="run", workers=0)
    Path("mine.py").rename("moved.py")
    assert main(["resume", "run", "--steps", "80", "--trust"]) == 2
    assert main(["resume", "run", "--steps", "80", "--trust", "--env", "moved.py:Walk"]) == 0
    assert main(["resume", "run", "--steps", "120"]) == 0


@pytest.mark.slow
def test_resume_says_what_computes_otherwise(tmp_path, capsys):
    """And keeps the record of what computed before. Control: the same machine says nothing."""
    run = logpi.train("finite:short-corridor", SMALL, steps=100, out=tmp_path / "run")
    logpi.resume(run.folder, steps=200)
    assert capsys.readouterr().err == ""
    path = run.folder / "config.json"
    config = json.loads(path.read_text())
    config["sessions"][-1] |= {"cores": 77, "numpy": "1.0"}
    path.write_text(json.dumps(config))
    logpi.resume(run.folder, steps=300)
    said = capsys.readouterr().err
    assert "cores was 77, is" in said
    assert "numpy was 1.0, is" in said
    sessions = json.loads(path.read_text())["sessions"]
    assert [session["cores"] == 77 for session in sessions] == [False, True, False]
    assert [session["steps"] >= low for session, low in zip(sessions, (0, 100, 200), strict=True)]


class Stops(SilentReporter):
    """Stops a run after its first update."""

    def progress(self, settings, counters, update):
        raise KeyboardInterrupt


def test_a_budget_and_a_run_of_more_than_32_bits(tmp_path):
    far = 10**13
    with pytest.raises(KeyboardInterrupt):
        logpi.train(
            "finite:short-corridor", SMALL, steps=1e15, out=tmp_path / "run", reporter=Stops()
        )
    folder = RunFolder.open(tmp_path / "run")
    newest = folder.checkpoints()[0]
    arrays = dict(np.load(newest))
    counters = json.loads(arrays["counters"].tobytes()) | {"steps": far}
    arrays["counters"] = np.frombuffer(json.dumps(counters).encode(), np.uint8)
    arrays["steps"] = np.array([far % 2**32, far // 2**32], np.uint32)
    np.savez(newest.with_name(f"step_{far:012d}.npz"), **arrays)
    with pytest.raises(KeyboardInterrupt):
        logpi.resume(tmp_path / "run", reporter=Stops())
    last = folder.checkpoints()[0]
    made = folder.saved_steps() - far
    assert 0 < made < 10**6
    low, high = np.load(last)["steps"].tolist()
    assert low + 2**32 * high == far + made


def test_rows_of_a_long_budget_do_not_wait_for_a_part_of_it():
    assert steps_to_next_row(0, 1000) == 4
    assert steps_to_next_row(0, 10**15) == 100_000
    assert steps_to_next_row(10**9, 10**15) == 10**7


def test_a_row_is_the_mean_over_the_updates_since_the_last():
    """Each metric over the updates that have it."""
    counters = Counters()
    update = dict(steps=10.0, episodes=0.0)
    for entropy, value_loss in ((1.0, math.nan), (2.0, 5.0), (6.0, 7.0)):
        count_update(counters, update | dict(entropy=entropy, value_loss=value_loss), 0.5)
    row = make_row(counters)
    assert row["train/entropy_loss"] == -3.0
    assert row["train/value_loss"] == 6.0
    assert row["time/total_timesteps"] == 30


@pytest.mark.slow
def test_rows_of_metrics_do_not_depend_on_where_a_run_stopped(tmp_path):
    """A row is the mean over several updates, some of them before the checkpoint."""
    whole = logpi.train(
        "finite:short-corridor", SMALL, steps=30_000, out=tmp_path / "whole", checkpoint_every=7_000
    )
    shutil.copytree(whole.folder, tmp_path / "killed")
    for path in RunFolder.open(tmp_path / "killed").checkpoints()[:2]:
        path.unlink()
    again = logpi.resume(tmp_path / "killed")
    rows = [read_metrics(run.folder / "metrics.csv") for run in (whole, again)]
    one, other = ([{k: v for k, v in row.items() if k not in TIMES} for row in r] for r in rows)
    assert repr(one) == repr(other)
    assert 200 < len(one) < whole.steps / 80


def assert_same_policy(one, other):
    leaves = [jax.tree.leaves(policy) for policy in (one, other)]
    assert all(np.array_equal(a, b) for a, b in zip(*leaves, strict=True))


def began_and_stopped(out, after):
    """A run that a signal has ended in the middle, `after` updates."""

    class Stop(SilentReporter):
        def progress(self, settings, counters, update):
            if counters.updates >= after:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        logpi.train(CORRIDOR, SMALL, steps=400, out=out, reporter=Stop())


@pytest.mark.slow
def test_a_run_that_may_exist_is_started_resumed_or_given_back(tmp_path):
    """Called again and again, as a scheduler does, it ends in the run that was never stopped."""

    def ask(name, **more):
        settings = dict(steps=400, out=tmp_path / name, exist="resume") | more
        return logpi.train(CORRIDOR, SMALL, **settings)

    whole = ask("started")
    began_and_stopped(tmp_path / "resumed", after=2)
    again = ask("resumed")
    assert (again.steps, again.evaluation.to_json()) == (whole.steps, whole.evaluation.to_json())
    assert_same_policy(again.policy, whole.policy)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "resumed").rglob("*")}
    back = ask("resumed")
    assert back.steps == whole.steps
    assert back.drawn_evaluation.to_json() == whole.drawn_evaluation.to_json()
    assert_same_policy(back.policy, whole.policy)
    assert files == {path: path.stat().st_mtime_ns for path in (tmp_path / "resumed").rglob("*")}
    (tmp_path / "resumed" / "evaluation.json").write_text("{")
    assert ask("resumed").evaluation.to_json() == whole.evaluation.to_json()
    longer = ask("resumed", steps=600, on_fault="replay")
    assert longer.steps >= 600 > whole.steps
    (tmp_path / "blank" / "checkpoints").mkdir(parents=True)  # killed before its configuration
    assert_same_policy(ask("blank").policy, whole.policy)


def test_a_run_that_is_another_is_not_continued(tmp_path):
    began_and_stopped(tmp_path / "run", after=1)
    for more, message in (
        (dict(seed=1), "seed 0, not 1"),
        (dict(algorithm=replace(SMALL, learning_rate=0.1)), "learning_rate"),
        (dict(environment="finite:discount-trap"), "environment"),
        (dict(exist="refuse"), "exists already"),
        (dict(out=None), "out must be"),
    ):
        arguments = (
            dict(environment=CORRIDOR, algorithm=SMALL, steps=400, out=tmp_path / "run") | more
        )
        with pytest.raises(LogpiError, match=message):
            logpi.train(**dict(exist="resume") | arguments)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("not a run")
    with pytest.raises(LogpiError, match="exists already"):
        logpi.train(CORRIDOR, SMALL, out=tmp_path / "other", exist="resume")


@pytest.mark.slow
def test_the_command_resumes_if_the_run_exists(tmp_path, capsys):
    run = tmp_path / "run"
    command = ["train", CORRIDOR, "--hidden", "4", "--steps", "200", "--out", str(run)]
    assert main([*command, "--resume-if-exists"]) == 0
    first = capsys.readouterr().out.splitlines()
    assert main([*command, "--resume-if-exists"]) == 0
    second = capsys.readouterr().out.splitlines()
    assert second[0].startswith("return")
    assert second[0] in first
    assert len(second) < len(first), "nothing was trained again"
    assert main(command) == 2
    assert main([*command[:-2], "--resume-if-exists"]) == 2
    assert "out must be the folder" in capsys.readouterr().err


@pytest.mark.release
@pytest.mark.parametrize("elsewhere", [False, True])
def test_python_keeps_what_it_compiles_as_the_command_does(user, tmp_path, elsewhere):
    """In the user's cache folder, also where JAX has compiled before; or where the user says."""
    home = tmp_path / "home"
    mine = tmp_path / "mine"
    variables = {**user, "XDG_CACHE_HOME": str(home)}
    variables |= {"JAX_COMPILATION_CACHE_DIR": str(mine)} if elsewhere else {}
    program = f"""import jax, logpi
jax.jit(lambda x: 2 * x)(1.0)
logpi.train({CORRIDOR!r}, logpi.Reinforce(hidden=(4,)), steps=100, out="run")
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=variables, check=True)
    kept = mine if elsewhere else home / "logpi" / "jax"
    names = [path.name for path in kept.iterdir()]
    assert any("many_updates" in name for name in names)
    assert elsewhere != (home / "logpi" / "jax").exists()
