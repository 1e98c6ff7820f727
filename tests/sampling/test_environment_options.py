"""What is asked of an environment beside its name: arguments, and a wrapper."""

import json

import pytest
from helpers import learned, same

import logpi
from logpi import LogpiError
from logpi.cli import main
from logpi.core.user_files import LOADED
from logpi.environments.doctor import examine
from logpi.environments.options import EnvironmentOptions
from logpi.environments.registry import make_environment

OWN = """
import gymnasium as gym
import numpy as np

class Paying(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, pay=1.0, length=5):
        self.pay = pay
        self.length = length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = self.length
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {}

    def step(self, action):
        self.left -= 1
        seen = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return seen, self.pay * (1 + action), self.left == 0, False, {}

class Doubled(gym.RewardWrapper):
    def reward(self, reward):
        return 2 * reward

def nothing(environment):
    return None
"""
METHOD = logpi.A2C(hidden=(4,), environments=8, rollout_steps=4)


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)


def train(out, **options):
    given = {"steps": 200, "env_kwargs": {"pay": 3.0}, "wrapper": "own.py:Doubled"} | options
    return logpi.train("own.py:Paying", METHOD, out=out, **given)


def test_arguments_and_wrapper_reach_training_workers_and_evaluation():
    """The return of 5 steps is between pay · 5 and pay · 10, twice that in the wrapper. Workers
    play the same. Control: without either, the run is another.
    """
    run = train("run")
    assert ((run.evaluation.returns >= 30) & (run.evaluation.returns <= 60)).all()
    train("workers", workers=1)
    assert same(learned("run"), learned("workers"))
    plain = train("plain", env_kwargs=None, wrapper=None)
    assert (plain.evaluation.returns <= 10).all()
    assert not same(learned("run"), learned("plain"))


def test_a_run_is_evaluated_by_itself_as_it_was_trained():
    """A folder and a finished run know their environment, seed and options; what is given instead
    wins.
    """
    run = train("run", seed=4)
    summary = run.evaluation.returns
    for given in (run, "run", run.folder):
        again = logpi.evaluate(given, episodes=len(summary))
        assert again.returns.tolist() == summary.tolist()
    cheap = logpi.evaluate("run", episodes=len(summary), env_kwargs={"pay": 1.5})
    assert cheap.returns.tolist() == (summary / 2).tolist()
    other = logpi.evaluate("run", episodes=len(summary), seed=5)
    assert other.returns.tolist() != summary.tolist()
    with pytest.raises(LogpiError, match="does not name its environment"):
        logpi.evaluate(run.policy)


def test_a_run_goes_on_with_its_options_and_refuses_another_wrapper(tmp_path):
    (tmp_path / "wrapping.py").write_text(OWN)
    train("run", wrapper="wrapping.py:Doubled")
    run = logpi.resume("run", steps=400)
    assert ((run.evaluation.returns >= 30) & (run.evaluation.returns <= 60)).all()
    with (tmp_path / "wrapping.py").open("a") as file:
        file.write("# changed\n")
    with pytest.raises(LogpiError, match="has changed"):
        logpi.resume("run", steps=600)
    with pytest.raises(LogpiError, match="env_kwargs"):
        train("run", env_kwargs={"pay": 2.0}, exist="resume")


def test_the_command_line_reads_arguments(tmp_path, capsys):
    (tmp_path / "settings.yaml").write_text(
        "env_kwargs: {pay: 2.5, length: 3}\nhidden: [4]\nbaseline: none\n"
    )
    words = ["train", "own.py:Paying", "--steps", "100", "--wrapper", "own.py:Doubled"]
    given = ["--env-kwargs", "pay=2.5", "length=3", "--hidden", "4", "--baseline", "none"]
    assert main([*words, *given, "--out", "words"]) == 0
    assert main([*words, "--config", "settings.yaml", "--out", "file"]) == 0
    assert same(learned("words"), learned("file"))
    capsys.readouterr()
    assert main(["evaluate", "words", "--env-kwargs", "pay=0", "--episodes", "3"]) == 0
    assert "return 0.0 [0.0, 0.0]" in capsys.readouterr().out
    assert main(["doctor", "own.py:Paying", "--steps", "50", "--env-kwargs", "length=2"]) in (0, 1)


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        ("own.py:Paying", {"kwargs": {"play": 1}}, "could not be made.*'play'"),
        ("own.py:Paying", {"wrapper": "own.py:nothing"}, "nothing gives a NoneType"),
        ("own.py:Paying", {"wrapper": "own.py:Tripled"}, "has no 'Tripled'"),
        ("CartPole-v1", {"kwargs": {"gravity": 3}}, "could not be made.*'gravity'"),
        ("finite:short-corridor", {"kwargs": {"length": 3}}, "takes no --env-kwargs"),
        ("finite:short-corridor", {"wrapper": "own.py:Doubled"}, "cannot be wrapped"),
        ("gymnax:CartPole-v1", {"wrapper": "own.py:Doubled"}, "cannot be wrapped"),
        ("gymnax:CartPole-v1", {"kwargs": {"nothing": 3}}, "could not be made.*'nothing'"),
    ],
)
def test_options_that_do_not_fit_are_one_line(source, options, words):
    with pytest.raises(LogpiError, match=words):
        make_environment(source, EnvironmentOptions(**options))


def test_values_that_are_none_are_refused():
    with pytest.raises(LogpiError, match="env_kwargs must be"):
        EnvironmentOptions(kwargs={"pay": object()})
    with pytest.raises(LogpiError, match="wrapper must be FILE.py:NAME"):
        EnvironmentOptions(wrapper="Doubled")


@pytest.mark.release
def test_parameters_of_a_compiled_environment_are_arguments():
    """CartPole with four times the gravity falls sooner. Control: with its own it is as ever."""
    lengths = {}
    for gravity in (9.8, 40.0):
        options = {"env_kwargs": {"gravity": gravity}, "steps": 4000, "evaluate_every": 0}
        run = logpi.train("gymnax:CartPole-v1", METHOD, out=f"g{gravity}", **options)
        lengths[gravity] = run.drawn_evaluation.lengths.mean()
    assert lengths[40.0] < lengths[9.8] - 2


def test_the_doctor_takes_options():
    found = examine("own.py:Paying", 50, EnvironmentOptions(kwargs={"pay": float("1e3")}))
    assert all(finding.status != "wrong" for finding in found)


def test_a_stranger_s_wrapper_is_not_imported(tmp_path, capsys):
    """A folder that names one is data until somebody agrees, like every other code."""
    logpi.train(
        "CartPole-v1", METHOD, steps=200, out="run", wrapper="own.py:Doubled", evaluate_every=0
    )
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["signature"] = "of somebody else"
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    (tmp_path / "own.py").write_text(f"{OWN}\nimport pathlib\npathlib.Path('imported').touch()\n")
    LOADED.pop(tmp_path / "own.py")
    for command in ("evaluate", "resume", "video"):
        assert main([command, "run"]) == 2
        assert "would import" in capsys.readouterr().err
    assert not (tmp_path / "imported").exists()
    assert main(["evaluate", "run", "--episodes", "2", "--trust"]) == 0
    assert (tmp_path / "imported").exists()
