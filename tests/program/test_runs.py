"""Run folders in the hands of people: stopped late, damaged, without their files, asked for what they are not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import jax
import numpy as np
import pytest

import logpi
from logpi import LogpiError, Reinforce
from logpi.cli import main
from logpi.doctor import examine
from logpi.folder import RunFolder

SMALL = dict(hidden=(4,), episodes=4, baseline="none")
train = lambda out, **more: logpi.train("finite:short-corridor", Reinforce(**(SMALL | more)), steps=200, out=out)


def test_a_run_that_was_stopped_in_its_evaluation_is_evaluated(tmp_path, monkeypatch):
    whole = train(tmp_path / "whole")

    def stopped(*_):
        raise LogpiError("the disk of the simulator is full")

    with monkeypatch.context() as patch:
        patch.setattr("logpi.training.evaluate_with", stopped)
        with pytest.raises(LogpiError, match="simulator"):
            train(tmp_path / "run")
    assert not (tmp_path / "run" / "evaluation.json").exists()
    with pytest.raises(LogpiError, match="has made .* of 50 steps; give more"):  # a budget that was meant otherwise
        logpi.resume(tmp_path / "run", steps=50)
    resumed = logpi.resume(tmp_path / "run")
    assert resumed.steps == whole.steps
    assert resumed.evaluation.to_json() == whole.evaluation.to_json()
    with pytest.raises(LogpiError, match="give more with --steps"):
        logpi.resume(tmp_path / "run")


def test_an_older_policy_is_used_with_a_warning(tmp_path, capsys):
    train(tmp_path / "run")
    logpi.load(tmp_path / "run")
    assert capsys.readouterr().err == ""
    newest = max((tmp_path / "run" / "checkpoints").glob("*.npz"))
    newest.write_bytes(b"")
    logpi.load(tmp_path / "run")
    assert f"{newest} is damaged" in capsys.readouterr().err


def test_a_policy_can_be_used_without_the_estimator_that_trained_it(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def loss(log_prob, reward, mask): return -(log_prob * mask).sum()\n")
    train(tmp_path / "run", estimator=f"{file}:loss")
    file.unlink()
    logpi.load(tmp_path / "run")
    assert main(["evaluate", str(tmp_path / "run"), "--episodes", "2"]) == 0
    with pytest.raises(LogpiError, match="is not a file"):
        logpi.resume(tmp_path / "run", steps=400)


def test_a_policy_that_is_no_number_is_never_saved(tmp_path):
    """The environment is not to blame. The last whole state stays."""
    config = logpi.PPO(actions="tanh-normal", learning_rate=1e4, max_gradient_norm=1e9, environments=2)
    with pytest.raises(LogpiError, match="lower the learning rates"):
        logpi.train("Pendulum-v1", config, steps=4000, workers=0, out=tmp_path / "run")
    leaves = jax.tree.leaves(logpi.load(tmp_path / "run"))
    assert all(np.isfinite(leaf).all() for leaf in leaves)


@pytest.mark.parametrize("end", ["-0.01", "nan", "inf"])
def test_annealing_ends_at_a_value(end):
    with pytest.raises(LogpiError, match="finite value|positive number"):
        Reinforce(anneal=(f"learning_rate={end}",))


def assert_said(program, message):
    """As people run it, without the types that tests check: one line, or no fault."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert done.returncode == (0 if message is None else 2), done.stderr
    assert message is None or message in done.stderr


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", '{\n\t"steps": 100,\n\t"environment": "finite:short-corridor"\n}', None),
        ("a.json", "{", "is not JSON"),
        ("a.yaml", "settings: 5", "must hold settings by name"),
        ("a.yaml", "algorithm: {a: 1}", "unknown algorithm"),
        ("a.yaml", "5: 3", "unknown setting '5'"),
        ("a.yaml", "reference: 5", "reference must be a run folder"),
        ("a.yaml", "network: [a.py:b]", "network must be FILE.py:NAME"),
    ],
)
def test_configurations_of_any_kind(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    command = f"train finite:short-corridor --config {tmp_path / name} --out {tmp_path / 'run'}"
    assert_said(f"from logpi.cli import main; raise SystemExit(main({command.split()!r}))", message)


@pytest.mark.parametrize("settings", [None, [], {"environment": "finite:short-corridor", "stepps": 3}])
def test_a_configuration_that_was_edited(tmp_path, settings):
    train(tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"settings": settings}))
    with pytest.raises(LogpiError, match=r"config\.json: (settings must be names|unknown setting)"):
        logpi.load(tmp_path / "run")
    path.write_text(json.dumps(config | {"environment": []}))
    with pytest.raises(LogpiError, match="does not describe its environment"):
        logpi.resume(tmp_path / "run", steps=400)


def test_algorithms_and_seeds_that_are_none(tmp_path):
    policy = train(tmp_path / "run").policy
    for call, message in (
        ("logpi.train('CartPole-v1', 'ppo')", "algorithm must be such as logpi.PPO()"),
        ("logpi.train('CartPole-v1', logpi.PPO)", "algorithm must be such as logpi.PPO()"),
        ("logpi.evaluate(None, 'CartPole-v1', seed=1.5)", "seed must be a whole number"),
    ):
        caught = "except logpi.LogpiError as error: sys.stderr.write(str(error)); sys.exit(2)"
        assert_said(f"import logpi, sys\ntry: {call}\n{caught}", message)
    with pytest.raises(LogpiError, match="seed must be a whole number"):
        logpi.evaluate(policy, "finite:short-corridor", seed=-1)
    with pytest.raises(LogpiError, match="max_episode_steps must be a whole number >= 1"):
        logpi.evaluate(policy, "CartPole-v1", max_episode_steps=-3)


def test_the_picture_is_where_plot_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    train("run")
    for asked, written in ((".", "learning_curve.png"), ("curves", "curves.png"), ("b.png", "b.png")):
        assert main(["plot", "run", "--out", asked]) == 0
        assert Path(capsys.readouterr().out.strip()) == Path(written)
        assert Path(written).stat().st_size > 0


def test_runs_that_start_at_once_take_different_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "exists", lambda self: False)  # as it was when the other run looked
    settings = logpi.training.Settings("finite:short-corridor")
    paths = [RunFolder.create(None, settings, {}).path for _ in range(3)]
    assert len(set(paths)) == 3
    assert os.listdir("runs")


class OwnBuffer(gym.Env):
    """Returns the same array every time."""

    observation_space, action_space = gym.spaces.Box(-1, 1, (1,), np.float32), gym.spaces.Discrete(2)
    x = np.zeros(1, np.float32)

    def reset(self, *, seed=None, options=None):
        self.t, self.x[:] = 0, 0.0
        return self.x, {}

    def step(self, action):
        self.t += 1
        self.x[:] = np.nan if self.t == 3 else self.t / 10
        return self.x, 1.0, self.t == 5, False, {}


def test_the_doctor_looks_at_what_was_returned_not_at_what_it_became():
    wrong = [finding.what for finding in examine(OwnBuffer, 50) if finding.status == "wrong"]
    assert "observations" in wrong
