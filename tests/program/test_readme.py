"""The Python of the README and of the guide to environments runs as it stands."""

import re
from pathlib import Path

import pytest

import logpi

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.slow
def test_python_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) == 4
    names: dict = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    printed = re.search(r"exits with status 1:\n\n((?:    .*\n)*?)    \.\.\.\n", README.read_text())
    assert printed
    report = str(logpi.check(names["loss"], layout="episode")).splitlines()
    assert [line.removeprefix("    ") for line in printed[1].splitlines()] == report[
        : printed[1].count("\n")
    ]
    assert int(names["action"]) in (0, 1)
    assert names["again"].mean > 100


@pytest.mark.slow
def test_the_compiled_environment_of_the_guide_is_learned(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (README.parent / "docs" / "environments.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    Path("mine.py").write_text(code)
    run = logpi.train(
        "mine.py:target",
        logpi.Reinforce(baseline="leave-one-out", episodes=256),
        steps=2e5,
        out="run",
    )
    idle = logpi.train("mine.py:target", logpi.Reinforce(learning_rate=1e-9), steps=1, out="idle")
    sampled = logpi.evaluate(idle.policy, "mine.py:target", deterministic=False)
    assert run.evaluation.mean > -4 > sampled.mean
