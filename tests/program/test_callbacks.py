"""Callbacks and trackers: when they are called, what they may do, and that they change no run."""

import subprocess
import sys

import numpy as np
import pytest
from helpers import learned

import logpi
from logpi import LogpiError, Reinforce
from logpi.runs.folder import RunFolder
from logpi.runs.metrics import STEPS, read_metrics

METHOD = Reinforce(hidden=(8,), episodes=8, baseline="none")


class Recorder(logpi.Callback):
    """Writes down every moment."""

    def __init__(self):
        self.moments = []
        self.steps = []

    def on_start(self, run):
        self.moments.append("start")
        assert run.settings.algorithm == METHOD

    def on_update(self, run, metrics):
        self.moments.append("update")
        self.steps.append(run.steps)
        run.log({"own/double": 2.0 * metrics["steps"]})

    def on_evaluation(self, run, evaluation):
        self.moments.append("evaluation")
        again = logpi.evaluate(run.policy, "CartPole-v1", 10, seed=run.settings.seed)
        assert np.array_equal(again.returns, evaluation.returns)

    def on_checkpoint(self, run, path):
        self.moments.append("checkpoint")
        assert path.is_file()

    def on_end(self, run):
        self.moments.append("end")


class Rows(list):
    """A tracker."""

    is_closed = False

    def write(self, step, metrics):
        self.append((step, dict(metrics)))

    def close(self):
        self.is_closed = True


@pytest.mark.parametrize(
    "environment", ["CartPole-v1", pytest.param("gymnax:CartPole-v1", marks=pytest.mark.slow)]
)
def test_all_moments_are_told_and_nothing_changes(tmp_path, environment):
    options = {"steps": 2000, "seed": 1, "checkpoint_every": 700, "evaluate_every": 900}
    plain = logpi.train(environment, METHOD, out=tmp_path / "plain", **options)
    recorder = Recorder()
    rows = Rows()
    if environment.startswith("gymnax"):
        recorder.on_evaluation = lambda run, evaluation: recorder.moments.append("evaluation")
    watched = logpi.train(
        environment, METHOD, out=tmp_path / "seen", callbacks=[recorder], trackers=[rows], **options
    )
    for name, array in learned(plain.folder).items():
        assert np.array_equal(array, learned(watched.folder)[name])
    moments = recorder.moments
    assert (moments[0], moments[-1]) == ("start", "end")
    assert moments.count("evaluation") == 2
    assert moments.count("checkpoint") >= 2
    assert moments.count("update") == len(recorder.steps)
    assert recorder.steps[-1] == watched.steps
    assert rows.is_closed
    table = read_metrics(watched.folder / "metrics.csv")
    assert [step for step, _ in rows] == [row[STEPS] for row in table]
    assert any("own/double" in metrics for _, metrics in rows)
    assert not any("own/double" in row for row in table)


class StopsAt(logpi.Callback):
    def __init__(self, steps):
        self.steps = steps

    def on_update(self, run, metrics):
        if run.steps >= self.steps:
            run.save()
            run.stop()


def test_a_callback_stops_a_run_that_goes_on_later(tmp_path):
    options = {"steps": 2000, "seed": 1}
    whole = logpi.train("CartPole-v1", METHOD, out=tmp_path / "whole", **options)
    run = logpi.train(
        "CartPole-v1", METHOD, out=tmp_path / "run", callbacks=[StopsAt(600)], **options
    )
    assert 600 <= run.steps < 1200
    assert RunFolder.open(run.folder).saved_steps() == run.steps
    recorder = Recorder()
    logpi.resume(run.folder, callbacks=[recorder])
    assert recorder.moments[0] == "start"
    for name, array in learned(whole.folder).items():
        assert np.array_equal(array, learned(run.folder)[name])


def test_what_a_callback_gets_cannot_be_written(tmp_path):
    class Writes(logpi.Callback):
        def on_update(self, run, metrics):
            run.policy.network.weights[0][:] = 0.0

    with pytest.raises(LogpiError, match=r"Writes\.on_update failed at step .*read-only"):
        logpi.train("CartPole-v1", METHOD, steps=500, out=tmp_path / "run", callbacks=[Writes()])
    assert logpi.load(tmp_path / "run")


def test_a_callback_that_fails_ends_the_run_saved(tmp_path):
    class Fails(logpi.Callback):
        def on_update(self, run, metrics):
            if run.steps > 300:
                raise RuntimeError("no more")

    with pytest.raises(LogpiError, match=r"Fails\.on_update failed at step \d+: RuntimeError: no"):
        logpi.train("CartPole-v1", METHOD, steps=2000, out=tmp_path / "run", callbacks=[Fails()])
    assert RunFolder.open(tmp_path / "run").saved_steps() > 300


def test_a_tracker_that_fails_ends_nothing(tmp_path, capsys):
    class Full(Rows):
        def write(self, step, metrics):
            raise OSError("disk full")

    good = Rows()
    logpi.train("CartPole-v1", METHOD, steps=500, out=tmp_path / "run", trackers=[Full(), good])
    assert "Full failed at step" in capsys.readouterr().err
    assert good


def test_what_is_no_callback_is_refused(tmp_path):
    """In a process of its own, where no type is checked."""
    code = "import logpi; logpi.train('CartPole-v1', steps=50, callbacks=[print])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert "LogpiError: callbacks must be logpi.Callback objects" in done.stderr


class Interface:
    """What Weights & Biases and Trackio have in common."""

    def __init__(self):
        self.rows = []
        self.is_finished = False

    def log(self, metrics, step=None):
        self.rows.append((step, metrics))

    def finish(self):
        self.is_finished = True


def test_rows_go_to_weights_and_biases(tmp_path):
    """By its interface; NaN, which it would draw as a gap, is left out."""
    interface = Interface()
    run = logpi.train(
        "CartPole-v1",
        METHOD,
        steps=500,
        out=tmp_path / "run",
        trackers=[logpi.WandbTracker(interface)],
    )
    assert interface.is_finished
    table = read_metrics(run.folder / "metrics.csv")
    assert [step for step, _ in interface.rows] == [row[STEPS] for row in table]
    for (_, metrics), row in zip(interface.rows, table, strict=True):
        assert metrics == {tag: value for tag, value in row.items() if not np.isnan(value)}


@pytest.mark.slow
def test_weights_and_biases_takes_them_offline(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.chdir(tmp_path)
    online = wandb.init(project="logpi", dir=str(tmp_path))
    logpi.train(
        "CartPole-v1",
        METHOD,
        steps=500,
        out=tmp_path / "run",
        trackers=[logpi.WandbTracker(online)],
    )
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
