"""The commands of benchmarks/ run and show what they claim."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
pytestmark = pytest.mark.release


def run(script, *arguments):
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_cartpole_is_solved_by_every_seed():
    out = run("training.py", "CartPole-v1", "--seeds", "5")
    assert float(re.search(r"return   min ([\d.]+)", out)[1]) >= 475


def test_exact_variances_are_those_of_the_page():
    """The command fails where an expectation is not ∇J."""
    page = (BENCHMARKS.parent / "docs" / "results.md").read_text()
    cells = re.findall(r"\d\.\d\d \[[^]]*\]", run("variance.py"))
    assert len(cells) == 21
    assert all(cell in page for cell in cells if cell != "1.00 [1.00, 1.00]")


@pytest.mark.parametrize("environment", ["CartPole-v1", "gymnax:CartPole-v1"])
def test_memory_does_not_grow(environment):
    """Resident size at 10 million steps of a run is not more than 5 % above that at 1 million."""
    out = run("throughput.py", environment, "--steps", "1e7", "--episodes", "64")
    early, late = map(float, re.search(r"resident (\d+) MB .* steps, (\d+) MB", out).groups())
    assert late / early < 1.05
