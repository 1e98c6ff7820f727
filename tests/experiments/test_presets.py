"""Presets: nothing but what a search has confirmed, and what the pages say of them is what they
hold."""

import json
from pathlib import Path

import pytest

import logpi
from logpi import LogpiError
from logpi.cli import main
from logpi.runs.presets import FOLDER

RESULTS = Path(__file__).parents[2] / "docs" / "results.md"
FILES = sorted(FOLDER.glob("*/*.json"))


@pytest.mark.parametrize("file", FILES, ids=[f"{file.parent.name}-{file.stem}" for file in FILES])
def test_a_preset_was_confirmed_on_seeds_of_its_own(file):
    found = json.loads(file.read_text())
    confirmed = found["confirmed"]
    assert len(set(confirmed["seeds"])) >= 10
    assert min(confirmed["seeds"]) >= 1000  # no trial has seen them
    assert confirmed["is_better"]
    assert confirmed["tuned"]["value"] > confirmed["defaults"]["value"]
    assert file.parent.name == found["settings"]["algorithm"]


def test_the_page_has_all_presets():
    """Word for word. Control: without the first line of the table one is missing."""
    text = RESULTS.read_text()
    rows = [
        f"| {each.environment} | {algorithm_of(each)} | {each.steps:,} | {as_text(each.mean, each.interval)}"
        f" | {as_text(each.defaults_mean, each.defaults_interval)} |"
        for each in logpi.presets()
    ]
    assert len(rows) == len(FILES) >= 1
    for row in rows:
        assert row in text


def algorithm_of(preset):
    return type(preset.algorithm).__name__


def as_text(mean, interval):
    return f"{mean:.1f} [{interval[0]:.1f}, {interval[1]:.1f}]"


@pytest.mark.release
def test_a_run_begins_with_the_preset(tmp_path, capsys):
    """Options that are given win. Control: without the preset the settings are the defaults."""
    stored = json.loads((FOLDER / "ppo" / "Pendulum-v1.json").read_text())["settings"]
    common = ["Pendulum-v1", "--algorithm", "ppo", "--steps", "10", "--seed", "7"]
    found = {}
    for kind, options in (("plain", []), ("preset", ["--preset"])):
        out = tmp_path / kind
        assert main(["train", *options, *common, "--out", str(out)]) == 0
        found[kind] = json.loads((out / "config.json").read_text())["settings"]
    assert "over 10 seeds, the defaults" in capsys.readouterr().out
    differing = {key for key in stored if found["plain"][key] != found["preset"][key]}
    assert differing
    for key in differing:
        assert found["preset"][key] == stored[key]
    assert (found["preset"]["steps"], found["preset"]["seed"]) == (10, 7)


def test_what_has_no_preset_is_said(tmp_path, capsys):
    with pytest.raises(LogpiError, match="there is no preset for Own-v0 with ppo; there are: "):
        logpi.preset("Own-v0", "ppo")
    assert main(["train", "Own-v0", "--preset"]) == 2
    assert "there is no preset for this environment with reinforce" in capsys.readouterr().err
    assert main(["train", "Pendulum-v1", "--algorithm", "ppo", "--preset", "--config", "x"]) == 2
    assert "left out where --preset is given" in capsys.readouterr().err
