"""Pages: what stands on them is what was computed, and a browser shows them on a phone and on a
screen."""

import re
import shutil

import browser
import numpy as np
import pytest

import logpi
from logpi import LogpiError
from logpi.artifacts import derivation_page
from logpi.artifacts.page import escape, write_page
from logpi.cli import main
from logpi.theory.derivation.lines import Sides
from logpi.theory.derivation.sides import derive
from logpi.theory.exact import state_policy
from logpi.theory.processes import load_mdp

PPO = logpi.PPO(hidden=(8,), environments=4, rollout_steps=32, epochs=1, minibatches=1)
LOSS = """
import numpy as np

def loss(reward, score, mask):
    return np.broadcast_to((reward * mask).sum(1, keepdims=True), reward.shape) * mask

def weights(log_prob, reward, mask):
    return np.ones_like(reward) * reward.sum(1, keepdims=True)
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two seeds of one setting."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        logpi.train(
            "CartPole-v1", PPO, steps=1500, seed=seed, out=folder / f"s{seed}", evaluate_every=400
        )
    return folder


def derivation():
    mdp = load_mdp("stay-or-leave")
    return derive(mdp, np.random.default_rng(0).normal(size=(mdp.observations, mdp.actions)))


def page_of(name, runs, folder, monkeypatch):
    monkeypatch.chdir(folder)
    page = folder / f"{name}.html"
    if name == "report":
        logpi.report([runs], page)
    elif name == "derive":
        assert main(["derive", "--report", str(page)]) == 0
    else:
        (folder / "own.py").write_text(LOSS)
        assert main(["check", "own.py:weights", "--report", str(page)]) == 1
    return page


@pytest.mark.parametrize("name", ["report", "derive", "check"])
def test_a_page_is_whole_and_fits_the_screen(name, runs, tmp_path, monkeypatch, capsys):
    page = page_of(name, runs, tmp_path, monkeypatch)
    browser.assert_sound(page)
    if browser.CHROMIUM is None:
        pytest.skip("no chromium here")
    for width in browser.WIDTHS:
        assert browser.width_in_browser(page, width, tmp_path) <= width


@pytest.mark.skipif(browser.CHROMIUM is None, reason="no chromium here")
def test_what_a_page_must_not_be_is_seen(tmp_path):
    """Controls: a page that is too wide, one that says something on the console, one that is not
    well formed, one that names another file.
    """
    page = tmp_path / "page.html"
    write_page(page, "wide", ['<div style="width: 2000px">x</div>'])
    assert browser.width_in_browser(page, 390, tmp_path) >= 2000
    write_page(page, "loud", ["<script>console.error('x')</script>"])
    with pytest.raises(AssertionError, match="CONSOLE"):
        browser.width_in_browser(page, 390, tmp_path)
    for part in ("<div>", '<p id="a"></p><p id="a"></p>', '<img src="https://example.org/a.png">'):
        write_page(page, "unsound", [part])
        with pytest.raises(AssertionError):
            browser.assert_sound(page)


def test_the_report_has_the_figures_of_its_runs(runs, tmp_path):
    page = logpi.report([runs], tmp_path / "page.html").read_text()
    for seed in (0, 1):
        state = next(each for each in logpi.list_runs(runs) if each.seed == seed)
        assert str(state.evaluation) in page
    assert "2 runs" in page
    assert "Mean return" in page
    assert "data:image/gif;base64," in page
    for name, value in PPO.__dict__.items():
        assert name in page, (name, value)
    assert "Loss of V" in page
    assert "limit on KL" not in page  # of REINFORCE alone


def test_a_run_of_a_stranger_is_shown_without_its_code(runs, tmp_path):
    """The page needs the files of the run alone: nothing is imported, and the page says so."""
    (tmp_path / "own.py").write_text(
        "import gymnasium as gym\n\ndef make():\n    return gym.make('CartPole-v1')\n"
    )
    run = logpi.train(f"{tmp_path}/own.py:make", PPO, steps=300, out=tmp_path / "run")
    config = run.folder / "config.json"
    config.write_text(re.sub(r'"signature": "[^"]*"', '"signature": "x"', config.read_text()))
    page = logpi.report([run.folder]).read_text()
    assert "No animation: " in page
    assert "was not made by you" in page


def test_text_of_others_is_no_html(tmp_path):
    """A folder may have any name."""
    assert escape('<script>"') == "&lt;script&gt;&quot;"
    logpi.train("CartPole-v1", PPO, steps=300, out=tmp_path / "a<b>&c")
    page = logpi.report([tmp_path / "a<b>&c"])
    browser.assert_sound(page)
    assert "a<b>" not in page.read_text()


def test_a_page_that_cannot_be_written_is_one_line(runs, tmp_path):
    with pytest.raises(LogpiError, match="cannot write"):
        logpi.report([runs], tmp_path / "missing" / "page.html")
    with pytest.raises(LogpiError, match="holds no run"):
        logpi.report([tmp_path])
    shutil.copytree(runs / "s0", tmp_path / "empty")
    (tmp_path / "empty" / "metrics.csv").write_text("")
    with pytest.raises(LogpiError, match="no metrics yet"):
        logpi.report([tmp_path / "empty"])


def test_every_line_of_the_derivation_is_typeset(tmp_path):
    """With the two sides that `derive` computes; no line is without an equation."""
    found = derivation()
    derivation_page.write_derivation(found, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    tags = [line.tag for line in found.lines]
    assert list(derivation_page.EQUATIONS) == tags
    assert page.count("<math ") == len(tags)
    for line in found.lines:
        left, right = line.largest
        assert f"{left:+.9f} = {right:+.9f}" in page
    assert 'class="bad"' not in page


def test_means_over_trajectories_are_as_far_from_the_gradient_as_expected():
    """E |mean - ∇J|² = variance / N, within 4 standard errors of 400 means (seed 1). Control:
    without the division it is not.
    """
    found = derivation()
    sides = Sides(found.mdp, found.logits, state_policy(found.mdp, found.logits))
    random = np.random.default_rng(1)
    for size in (1, 30):
        squares = np.array([derivation_page.distance(sides, size, random) for _ in range(400)]) ** 2
        error = squares.std(ddof=1) / np.sqrt(len(squares))
        expected = derivation_page.expected_distance(sides, size) ** 2
        assert abs(squares.mean() - expected) < 4 * error
    assert abs(squares.mean() - 30 * expected) > 4 * error


def test_the_trajectory_by_hand_adds_up(tmp_path):
    """Its rows of θ are Σ γ^t R_t ∇ log π of the steps above them, and so is γ^t R_t of R_t."""
    found = derivation()
    derivation_page.write_derivation(found, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    by_hand = page[page.index("One trajectory by hand") : page.index("From samples")]
    numbers = r"[-+]\d\.\d{3}"
    cells = rf"<td>({numbers})</td><td>({numbers})</td><td>row (\d): ({numbers})  ({numbers})</td>"
    steps = re.findall(cells, by_hand)
    assert len(steps) == 3
    total = np.zeros((3, 2))
    for t, (return_, weight, row, *score) in enumerate(steps):
        assert float(weight) == pytest.approx(found.mdp.discount**t * float(return_), abs=2e-3)
        total[int(row)] += float(weight) * np.array(score, float)
    rows = re.findall(rf"<tr><td>(\d)</td><td>({numbers})  ({numbers})</td>", by_hand)
    assert len(rows) == 3
    for row, *gradient in rows:
        np.testing.assert_allclose(np.array(gradient, float), total[int(row)], atol=5e-3)
