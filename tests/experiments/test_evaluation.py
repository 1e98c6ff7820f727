"""Evaluations while a run trains: they change nothing, choose the best, and stop the run."""

import json

import gymnasium as gym
import numpy as np
import pytest
from helpers import learned, same

import logpi
from logpi import A2C, LogpiError, Reinforce
from logpi.cli import main
from logpi.environments.registry import make_environment
from logpi.runs.checkpoint import Counters
from logpi.runs.evaluation import Evaluation, FinalEvaluation
from logpi.runs.evaluator import Evaluator
from logpi.runs.metrics import EVALUATED, STEPS, read_metrics
from logpi.runs.report import LineReporter
from logpi.runs.settings import Settings

METHODS = {
    "reinforce": Reinforce(hidden=(8,), episodes=8, baseline="none", learning_rate=0.02),
    "a2c": A2C(hidden=(8,), environments=8, rollout_steps=16, learning_rate=0.01),
}


def evaluations(folder):
    rows = read_metrics(folder / "metrics.csv")
    return [row for row in rows if not np.isnan(row[EVALUATED[0]])]


class Nobody:
    """A sampler that nobody asks."""

    def evaluate(self, policy, episodes, deterministic, most_steps=None, beside=False):
        raise AssertionError

    def begin(self, method, learner):
        raise AssertionError

    def advance(self, method, learner, budget):
        raise AssertionError

    def close(self):
        raise AssertionError


def evaluator_of(**options):
    spec = make_environment("CartPole-v1").spec
    return Evaluator(Settings("CartPole-v1", **options), spec, Nobody())


class Counted(gym.Wrapper):
    """Pays more in each later episode of a copy: an evaluation in the copies that train would be
    seen in what they pay.
    """

    def __init__(self):
        super().__init__(gym.make("CartPole-v1", max_episode_steps=40))
        self.episodes = 0

    def reset(self, *, seed=None, options=None):
        self.episodes += 1
        return self.env.reset(seed=seed)

    def step(self, action):
        observation, _, terminated, truncated, info = self.env.step(action)
        return observation, float(self.episodes), terminated, truncated, info


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "environment", [Counted, pytest.param("gymnax:CartPole-v1", marks=pytest.mark.slow)]
)
def test_nothing_of_it_changes_what_is_learned(tmp_path, method, environment):
    options = {"steps": 2000, "seed": 3, "max_episode_steps": 40}
    runs = {
        every: logpi.train(
            environment, METHODS[method], evaluate_every=every, out=tmp_path / str(every), **options
        )
        for every in (0, 500)
    }
    assert same(learned(tmp_path / "0"), learned(tmp_path / "500"))
    assert not evaluations(tmp_path / "0")
    found = evaluations(tmp_path / "500")
    assert len(found) == 4
    assert [int(row[STEPS]) // 500 for row in found] == [1, 2, 3, 4]
    if environment is not Counted:
        returns = runs[500].evaluation.returns
        assert np.array_equal(returns, runs[0].evaluation.returns)


def test_an_evaluation_is_what_evaluate_gives(tmp_path):
    """The best policy is kept with what it is worth; the latest is another one."""
    run = logpi.train(
        "CartPole-v1", METHODS["a2c"], steps=3000, evaluate_every=300, out=tmp_path / "run", seed=1
    )
    rows = evaluations(run.folder)
    best = max(rows, key=lambda row: row[EVALUATED[1]])
    kept = json.loads((run.folder / "best.json").read_text())
    assert kept["steps"] == best[STEPS]
    policy = logpi.load(run.folder, which="best")
    again = logpi.evaluate(policy, "CartPole-v1", 10, seed=1)
    assert again.mean == pytest.approx(best[EVALUATED[0]])
    assert np.array_equal(again.returns, kept["returns"])
    assert again.interval == pytest.approx((best[EVALUATED[1]], best[EVALUATED[2]]))
    latest = logpi.load(run.folder).act(np.ones(4))
    assert np.isfinite(latest).all()
    assert main(["evaluate", str(run.folder), "--best", "--episodes", "10"]) == 0


def test_the_lower_end_chooses():
    """A mean of one lucky episode is not the best, nor is it reason to stop."""
    evaluator = evaluator_of(stop_at=100.0)
    counters = Counters(steps=10)
    steady = logpi.Evaluation(np.full(10, 90.0) + np.arange(10) % 2, np.ones(10, int))
    lucky = logpi.Evaluation(np.array([0.0] * 9 + [2000.0]), np.ones(10, int))
    assert evaluator.count(steady, counters)
    assert lucky.mean > 100 > steady.mean
    assert not evaluator.count(lucky, counters)
    assert not counters.has_reached
    assert evaluator.count(logpi.Evaluation(np.full(10, 101.0), np.ones(10, int)), counters)
    assert counters.has_reached


@pytest.mark.parametrize("stop_at", [60.0, "solved"])
def test_a_run_stops_where_it_is_told(tmp_path, stop_at, monkeypatch):
    if stop_at == "solved":
        monkeypatch.setattr(
            "logpi.runs.evaluator.Evaluator.count",
            count_with_threshold(Evaluator.count, expected=475.0),
        )
    options = {"steps": 60_000, "seed": 2, "evaluate_every": 1000, "stop_at": stop_at}
    run = logpi.train("CartPole-v1", METHODS["reinforce"], out=tmp_path / "run", **options)
    assert run.steps < 60_000
    rows = evaluations(run.folder)
    assert rows[-1][STEPS] == run.steps
    if stop_at == 60.0:
        assert rows[-1][EVALUATED[1]] >= 60 > max(row[EVALUATED[1]] for row in rows[:-1])
    with pytest.raises(LogpiError, match="reached the return at which it stops"):
        logpi.resume(run.folder)
    again = logpi.train(
        "CartPole-v1", METHODS["reinforce"], out=run.folder, exist="resume", **options
    )
    assert again.steps == run.steps
    if stop_at == 60.0:
        more = options | {"stop_at": 80.0}
        on = logpi.train(
            "CartPole-v1", METHODS["reinforce"], out=run.folder, exist="resume", **more
        )
        assert on.steps > run.steps


def count_with_threshold(count, expected):
    """Stops at once, if the threshold is the one of the environment."""

    def counting(self, evaluation, counters):
        assert self._stop_at == expected
        best = count(self, evaluation, counters)
        counters.has_reached = True
        return best

    return counting


@pytest.mark.parametrize(("lower", "is_named"), [(96.0, False), (99.0, True)])
def test_an_earlier_policy_is_named_where_it_is_better(lower, is_named, tmp_path, capsys):
    """The last one is worth 98 at least: an interval of 98 to 102 around 100."""
    lengths = np.full(100, 100)
    returns = 100 + 10.08 * np.tile([-1.0, 1.0], 50)
    at_end = Evaluation(returns, lengths)
    assert at_end.interval[0] == pytest.approx(98.0, abs=0.05)
    counters = Counters(steps=1000, best=[lower, 500])
    LineReporter().finish(tmp_path, counters, FinalEvaluation(at_end, at_end), None)
    assert ("--best" in capsys.readouterr().out) == is_named


def test_a_run_that_is_resumed_is_evaluated_alike(tmp_path):
    """Rows of a run that was cut, and of one that was not."""
    options = {"seed": 4, "evaluate_every": 400}
    method = A2C(hidden=(8,), environments=8, rollout_steps=16, anneal=())
    logpi.train("CartPole-v1", method, steps=3000, out=tmp_path / "whole", **options)
    logpi.train("CartPole-v1", method, steps=1500, out=tmp_path / "cut", **options)
    logpi.resume(tmp_path / "cut", steps=3000)
    whole = [
        tuple(row[name] for name in (STEPS, *EVALUATED)) for row in evaluations(tmp_path / "whole")
    ]
    cut = [
        tuple(row[name] for name in (STEPS, *EVALUATED)) for row in evaluations(tmp_path / "cut")
    ]
    assert whole == cut
    assert same(learned(tmp_path / "whole"), learned(tmp_path / "cut"))
    one, other = (
        json.loads((tmp_path / name / "best.json").read_text()) for name in ("whole", "cut")
    )
    assert one == other


def test_by_default_evaluations_take_3_percent_of_the_steps():
    evaluator = evaluator_of(steps=100_000)
    short = Counters(recent=[[15.0, 15.0, 100.0]])
    assert evaluator.is_due(short, 5000)
    assert not evaluator.is_due(short, 4999)
    long = Counters(recent=[[300.0, 300.0, 100.0]])
    assert not evaluator.is_due(long, 99_999)
    assert evaluator.is_due(long, 100_000)
    assert not evaluator.is_due(Counters(), 50_000)


def test_evaluations_that_take_longer_than_training_are_paid_for():
    """The most probable actions may keep an episode up for longer than the policy that is sampled:
    what an evaluation took is taken from the next ones."""
    evaluator = evaluator_of(steps=100_000)
    counters = Counters(steps=5000, recent=[[15.0, 15.0, 100.0]])
    evaluator.count(Evaluation(np.full(10, 105.0), np.full(10, 105)), counters)
    assert counters.evaluated_steps == 1050
    assert not evaluator.is_due(counters, 39_999)
    assert evaluator.is_due(counters, 40_000)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stop_at": float("nan")}, "stop_at must be"),
        ({"evaluate_every": -1}, "evaluate_every must be a whole number >= 0"),
        ({"stop_at": 5.0, "evaluate_every": 0}, "--stop-at needs evaluations"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, options, message):
    with pytest.raises(LogpiError, match=message):
        logpi.train("CartPole-v1", METHODS["a2c"], steps=500, out=tmp_path / "run", **options)


def test_an_environment_without_a_threshold_is_not_solved(tmp_path):
    with pytest.raises(LogpiError, match="does not say when it is solved"):
        logpi.train("Pendulum-v1", METHODS["a2c"], steps=99, stop_at="solved", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_without_evaluations_has_no_best(tmp_path):
    run = logpi.train(
        "CartPole-v1", METHODS["a2c"], steps=200, evaluate_every=0, out=tmp_path / "run"
    )
    with pytest.raises(LogpiError, match="has not been evaluated yet"):
        logpi.load(run.folder, which="best")
