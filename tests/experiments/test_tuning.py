"""The search for settings: it goes on where it was stopped, and fresh seeds have the last word."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import logpi
from logpi import Between, LogpiError, OneOf, Reinforce
from logpi.cli import main
from logpi.experiments.tuning import SilentTuningReporter, read_space
from logpi.methods.registry import METHODS

IDLE = Reinforce(hidden=(8,), episodes=8, baseline="none", learning_rate=1e-9)
SMALL = {"steps": 6000, "confirm": 6}


class StopsAfter(SilentTuningReporter):
    def __init__(self, trials):
        self.left = trials

    def tried(self, trial, best):
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


@pytest.mark.release
def test_better_settings_are_found_and_confirmed(tmp_path, capsys):
    space = {"learning_rate": Between(3e-3, 0.1), "kl_limit": OneOf((0.01, 0.03))}
    found = logpi.tune("CartPole-v1", IDLE, space=space, trials=3, out=tmp_path / "whole", **SMALL)
    assert found.is_better
    assert found.best["learning_rate"] > 1e-4
    assert [len(trial.returns) for trial in found.trials if trial.is_given_up] in ([], [2], [2, 2])
    again = json.loads((found.folder / "best.json").read_text())["settings"]
    assert again["learning_rate"] == found.best["learning_rate"]
    config = ["--config", str(found.folder / "best.json"), "--steps", "500"]
    assert main(["train", "CartPole-v1", "--out", str(tmp_path / "run"), *config]) == 0
    with pytest.raises(KeyboardInterrupt):
        logpi.tune(
            "CartPole-v1", IDLE, space=space, trials=3, out=tmp_path / "cut",
            reporter=StopsAfter(2), **SMALL,
        )  # fmt: skip
    cut = logpi.tune("CartPole-v1", IDLE, space=space, trials=3, out=tmp_path / "cut", **SMALL)
    assert cut.trials == found.trials
    assert cut.best == found.best
    with pytest.raises(LogpiError, match="holds another search"):
        logpi.tune("CartPole-v1", IDLE, trials=3, out=tmp_path / "cut", **SMALL)


def test_what_is_no_better_is_said(tmp_path):
    """A search that can only find the defaults."""
    space = {"learning_rate": OneOf((1e-9,))}
    options = {"steps": 200, "confirm": 2, "trials": 1}
    idle = replace(IDLE, hidden=())
    found = logpi.tune("finite:short-corridor", idle, space=space, out=tmp_path / "s", **options)
    tried = {path.name for path in (found.folder / "trial_0").iterdir()}
    confirmed = {path.name for path in (found.folder / "confirmed" / "trial_0").iterdir()}
    assert len(confirmed) == options["confirm"]
    assert not tried & confirmed
    assert not found.is_better
    assert "no better than the defaults" in str(found)
    assert "the same in every seed" in str(found)


def test_settings_that_fail_win_nothing(tmp_path):
    """A step size at which the policy becomes NaN is a trial that is given up."""
    space = {"learning_rate": OneOf((1e300,))}
    diverging = Reinforce(hidden=(8,), episodes=8, baseline="none", kl_limit=float("inf"))
    with pytest.raises(LogpiError, match="no trial has come to its end"):
        logpi.tune("CartPole-v1", diverging, space=space, trials=1, steps=500, out=tmp_path / "s")


def test_every_method_names_what_to_search():
    for name, method in METHODS.items():
        assert "learning_rate" in logpi.core.options.searched(method), name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rate: 3", "learning_rate must be a list of values, or low and high"),
        ("learning_rate: {low: 1, high: 0.1}", "0 < low < high"),
        ("learning_rate: {low: 0.1, high: 1, step: 2}", "a list of values, or low and high"),
        ("learning_rat: [1, 2]", "did you mean 'learning_rate'"),
        ("epochs: [1]", "unknown setting 'epochs'"),
        ("learning_rate: [1.0, -1.0]", "learning_rate must be a positive number"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused(tmp_path, monkeypatch, capsys, text, message):
    monkeypatch.chdir(tmp_path)
    Path("space.yaml").write_text(text)
    assert main(["tune", "CartPole-v1", "--space", "space.yaml", "--out", "search"]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert len(told.splitlines()) == 1
    assert not Path("search").exists()


def test_a_space_is_read(tmp_path):
    (tmp_path / "space.yaml").write_text(
        "learning_rate: {low: 1e-4, high: 1e-2}\nepisodes: [8, 16]\nhidden: [[64, 64], [8]]"
    )
    assert read_space(tmp_path / "space.yaml") == {
        "learning_rate": Between(1e-4, 1e-2),
        "episodes": OneOf((8, 16)),
        "hidden": OneOf(([64, 64], [8])),
    }
