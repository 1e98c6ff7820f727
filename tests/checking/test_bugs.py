"""Known mistakes get the right verdict, and nearly all are named first."""

import json

import pytest
from bugs import BUGS
from helpers import one_in

import logpi

# Where one mistake has two names, or the check can only know that a constant is one.
ALSO = {
    "grpo-1/len": "per-episode-1/T",
    "microbatch-norm": "per-episode-1/T",
    "whiten-running": "constant-factor",
}
NOT_NAMED = {"action-dep-baseline"}  # b(s, a) can be anything


@pytest.mark.parametrize(
    "bug", one_in(3, zip(BUGS)), ids=lambda bug: f"{bug.name}-{bug.estimator.__name__}"
)
def test_verdict_and_name(bug, unchecked):
    report = logpi.check(bug.estimator, **bug.options)
    assert report.verdict in bug.verdicts, str(report)
    if report.verdict == "exact":
        assert report.diagnosis == ()
    elif bug.name not in NOT_NAMED:
        assert report.diagnosis[0].name in (bug.name, ALSO.get(bug.name)), str(report)
        distance = report.diagnosis[0].distance
        assert distance is None or distance < 1e-4
    json.dumps(report.to_json(), allow_nan=False)


def test_most_are_named():
    assert len(NOT_NAMED) <= 0.2 * len(BUGS)
    assert len({bug.name for bug in BUGS}) >= 50


def test_an_unknown_bias_has_no_name():
    def strange(log_prob, reward, action):
        return reward**3 * (action == 1) + 0.3 * action

    report = logpi.check(strange)
    assert report.verdict == "biased"
    assert report.diagnosis == ()
    assert "no known mistake explains it" in str(report)


def test_a_report_reads_well():
    report = logpi.check(next(bug.estimator for bug in BUGS if bug.name == "gamma-t-missing"))
    text = str(report)
    for part in (
        "other target",
        "conventional",
        "gamma-t-missing",
        "credit",
        "variance",
        "stop, N = 2",
    ):
        assert part in text
    assert report.to_json()["credit"]["matrix"][1][0] is None
    assert report.credit.matrix[1, 1] == pytest.approx(1.0)
    assert report.credit.correct[1, 1] == pytest.approx(0.9)
