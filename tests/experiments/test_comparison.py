"""Comparisons: equal to the library of Agarwal et al., and rarely wrong."""

import json

import numpy as np
import pytest
from hypothesis import given, strategies as st
from rliable import metrics

import logpi
from logpi import LogpiError, Reinforce
from logpi.cli import main
from logpi.experiments.comparison import _holm
from logpi.experiments.plotting import Curves, draw_curves
from logpi.experiments.statistics import (
    LEVEL,
    estimate,
    interquartile_mean,
    judge_difference,
    mean,
    median,
    performance_profile,
    probability_of_improvement,
)
from logpi.runs.metrics import EVALUATED, RETURN, STEPS

scores = st.lists(st.integers(-1000, 1000).map(lambda n: n / 7), min_size=2, max_size=30).map(
    np.array
)


@given(ours=scores, theirs=scores)
def test_point_estimates_are_those_of_rliable(ours, theirs):
    column = ours[:, None]
    assert mean(ours) == pytest.approx(metrics.aggregate_mean(column), abs=1e-12)
    assert interquartile_mean(ours) == pytest.approx(metrics.aggregate_iqm(column), abs=1e-12)
    found = probability_of_improvement(ours, theirs)
    expected = metrics.probability_of_improvement(column, theirs[:, None])
    assert found == pytest.approx(expected, abs=1e-12)


def test_a_profile_is_the_share_of_seeds_above():
    shares = performance_profile(np.array([1.0, 2.0, 2.0, 5.0]), np.array([0.0, 1.0, 2.0, 5.0]))
    assert shares == pytest.approx([1.0, 0.75, 0.25, 0.0])


def test_the_median_is_over_seeds():
    """rliable's median is over environments, of which a comparison here has one."""
    assert median(np.array([1.0, 2.0, 30.0])) == 2.0


def two_peaks(random, count):
    """Returns as LunarLander gives them: some seeds land, others hover."""
    lands = random.random(count) < 0.6
    return np.where(lands, random.normal(240, 15, count), random.normal(145, 20, count))


@pytest.mark.release
@pytest.mark.parametrize("seeds", [5, 10])
@pytest.mark.parametrize("is_paired", [False, True])
def test_equal_methods_are_rarely_called_different(seeds, is_paired):
    """At most 5 % of 1,000 comparisons, within three standard errors. Control: a verdict by the
    interval of the bootstrap is wrong more often.
    """
    random = np.random.default_rng(0)
    count = 1000
    wrong = 0
    wrong_by_bootstrap = 0
    for _ in range(count):
        ours = two_peaks(random, seeds)
        theirs = two_peaks(random, seeds)
        wrong += judge_difference(ours, theirs, is_paired).p < LEVEL
        if seeds == 5 and not is_paired and _ < 300:
            low, high = estimate(probability_of_improvement, ours, theirs)[1:]
            wrong_by_bootstrap += not low <= 0.5 <= high
    most = LEVEL + 3 * np.sqrt(LEVEL * (1 - LEVEL) / count)
    assert wrong / count <= most
    if seeds == 5 and not is_paired:
        assert wrong_by_bootstrap / 300 > most


@pytest.mark.parametrize(("seeds", "least"), [(5, 0.4), (10, 0.9)])
def test_a_difference_of_two_deviations_is_seen(seeds, least):
    random = np.random.default_rng(1)
    found = [
        judge_difference(random.normal(2, 1, seeds), random.normal(0, 1, seeds), False).p < LEVEL
        for _ in range(60)
    ]
    assert np.mean(found) >= least


def test_shared_seeds_are_used():
    """A small difference in every seed is seen only where seeds are paired."""
    random = np.random.default_rng(2)
    theirs = random.normal(0, 10, 8)
    ours = theirs + random.uniform(0.5, 1.5, 8)
    assert judge_difference(ours, theirs, True).p < LEVEL
    assert judge_difference(ours, theirs, False).p > LEVEL


def test_several_tests_are_corrected():
    assert _holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("comparison") / "sweep"
    return logpi.sweep(
        "finite:short-corridor",
        Reinforce(hidden=(), episodes=8, baseline="none"),
        seeds=range(3),
        settings={"learning_rate": [0.02, 1e-6]},
        steps=500,
        out=folder,
    )


@pytest.mark.xdist_group("sweep")
def test_the_settings_of_a_sweep_are_compared(swept, capsys):
    found = logpi.compare(swept.folder)
    (summaries,) = found.summaries.values()
    names = ["learning_rate=0.02", "learning_rate=1e-06"]
    assert sorted(each.scores.name for each in summaries) == names
    for run in swept.runs:
        (summary,) = (s for s in summaries if s.scores.name == run.folder.parent.name)
        score = summary.scores.by_seed[run.settings.seed]
        assert run.evaluation is not None
        assert score == run.evaluation.most_probable.mean
    (differences,) = found.differences.values()
    assert not differences[0].is_real  # three seeds cannot show anything
    assert "3 seeds are too few to tell" in str(found)
    assert main(["compare", str(swept.folder / names[0]), str(swept.folder / names[1])]) == 0
    assert "beats" in capsys.readouterr().out
    assert main(["compare", str(swept.folder), "--json"]) == 0
    assert "finite:short-corridor" in json.loads(capsys.readouterr().out)


@pytest.mark.xdist_group("sweep")
def test_runs_are_listed(swept, capsys):
    assert main(["runs", str(swept.folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7
    assert all("finished" in line and "reinforce" in line for line in lines[1:])


@pytest.mark.xdist_group("sweep")
def test_curves_of_a_sweep_are_drawn(swept, tmp_path):
    path = logpi.plot([swept.folder], tmp_path / "curves.png")
    assert path.stat().st_size > 10_000


def lines_of(evaluated_at):
    """The lines of a group whose runs were evaluated after these steps, and found them in them."""
    from matplotlib.figure import Figure

    tables = []
    for at in evaluated_at:
        steps = np.arange(0.0, 101.0)
        evaluated = np.where(np.isin(steps, at), steps, np.nan)
        tables.append({STEPS: steps, RETURN: steps, EVALUATED[0]: evaluated})
    axes = Figure().subplots()
    draw_curves(axes, [Curves("three", tables)], RETURN)
    return axes.lines


def test_evaluations_are_points_within_the_steps_that_all_runs_have():
    """As many as the run with the fewest has. Control: runs that have none in common give none."""
    _, points = lines_of([[10, 30, 50, 90], [20, 60, 80], [5, 10, 50, 80]])
    np.testing.assert_allclose(np.asarray(points.get_xdata()), [20, 50, 80])
    np.testing.assert_allclose(np.asarray(points.get_ydata()), [20, 50, 80])
    _, none = lines_of([[10, 20], [60, 80]])
    assert np.size(none.get_xdata()) == 0
    assert len(lines_of([[10], []])) == 1


@pytest.mark.xdist_group("sweep")
def test_what_cannot_be_compared_is_refused(swept, tmp_path):
    first = swept.folder / "learning_rate=0.02"
    with pytest.raises(LogpiError, match="compare needs two groups"):
        logpi.compare(first)
    with pytest.raises(LogpiError, match="two runs of seed 0"):
        logpi.compare(swept.folder, first)
    with pytest.raises(LogpiError, match="is not a folder"):
        logpi.compare(first, tmp_path / "missing")
    with pytest.raises(LogpiError, match="holds no run"):
        logpi.compare(first, tmp_path)
