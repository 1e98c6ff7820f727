"""Short forms of the commands in benchmarks/reliability, and that they see what is wrong."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

HARNESSES = Path(__file__).parents[2] / "benchmarks" / "reliability"
sys.path.insert(0, str(HARNESSES))


def output_of(name, *options):
    command = [sys.executable, str(HARNESSES / f"{name}.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.release
def test_killed_runs_end_alike():
    told = output_of("kills", "--kills", "3", "--only", "REINFORCE, 1 worker")
    assert told.count("all equal") == 1


@pytest.mark.release
def test_damaged_folders_are_refused_or_right():
    told = output_of("folders", "--folders", "40")
    wrong = [line for line in told.splitlines() if "WRONG" in line and "slow" not in line]
    assert not wrong
    assert "code of the folder was run: False" in told


@pytest.mark.release
def test_environments_that_misbehave_are_named():
    told = output_of("environments", "--only", "reward is a ")
    assert re.search(r"(\d+) of \1 right", told)


def test_a_difference_is_seen():
    """The control of the comparison: one number, one row, one event."""
    from kills import Ending, differences

    whole = Ending({"a": np.zeros(2)}, {"steps": 1}, [{"x": "1"}], {(1, "x"): 1.0})
    assert not differences(whole, whole)
    others = {
        "a": {"arrays": {"a": np.array([0.0, 1e-9])}},
        "counters": {"counters": {"steps": 2}},
        "rows": {"rows": []},
        "events": {"events": {(1, "x"): 2.0}},
    }
    for name, change in others.items():
        assert differences(whole, whole._replace(**change)) == [name]


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ({"kind": "a policy", "text": "right"}, "a checkpoint's policy"),
        ({"kind": "a policy", "text": "other"}, "WRONG: another policy"),
        ({"kind": "an error", "text": "one line"}, "one line of error"),
        ({"kind": "an error", "text": "one\ntwo"}, "WRONG: not one line"),
        ({"kind": "an error", "text": "x" * 2000}, "WRONG: not one line"),
        ({"kind": "an error", "text": "x", "seconds": 3.0}, "WRONG: slow"),
        ({"kind": "an error", "text": "x", "megabytes": 2000.0}, "WRONG: large"),
        ({"kind": "a traceback", "text": "x"}, "WRONG: a traceback"),
    ],
)
def test_a_wrong_answer_is_seen(answer, verdict):
    from folders import verdict_of

    given = {"seconds": 0.1, "megabytes": 300.0} | answer
    assert verdict_of(given, {"right"}, "load") == verdict
