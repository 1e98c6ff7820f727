"""Every line of the derivation holds, and a wrong line would show."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest

from logpi import LogpiError
from logpi.core.differences import derivative
from logpi.theory.derivation import lines as derivation_lines, sides as derivation_sides
from logpi.theory.derivation.sides import derive
from logpi.theory.derivation.text import as_text
from logpi.theory.enumeration import enumerate_trajectories
from logpi.theory.exact import exact_objective, occupancy
from logpi.theory.processes import random_mdp, short_corridor, stay_or_leave

TAGS = [
    "D0.1",
    "D0.2",
    "D0.3",
    "D1.1",
    "D1.2",
    "D1.3",
    "D2.1",
    "D2.2",
    "D2.3",
    "D2.4",
    "D2.5",
    "D3.1",
    "D3.2",
    "D3.3",
    "D3.4",
    "D3.5",
    "D4.1",
    "D4.2",
    "D4.3",
    "D4.4",
]


def draw(seed):
    random = np.random.default_rng(seed)
    mdp = random_mdp(random)
    return mdp, random.normal(size=(mdp.observations, mdp.actions))


PARTS = [pytest.param(100 * part, 100, marks=pytest.mark.release) for part in range(10)]


@pytest.mark.parametrize(("first", "count"), [(0, 12), *PARTS])
def test_every_line_on_a_thousand_processes(first, count):
    for seed in range(first, first + count):
        found = derive(*draw(seed))
        assert [line.tag for line in found.lines] == TAGS
        for line in found.lines:
            assert line.left.shape == line.right.shape
            assert line.difference < 1e-9, (seed, line.tag)
        assert found.curl_with_power < 1e-9


def shown():
    mdp = stay_or_leave()
    return derive(mdp, np.random.default_rng(0).normal(size=(3, 2)))


def test_what_is_left_out_shows():
    found = shown()
    assert found.without_power > 1e-3
    assert found.curl_without_power > 1e-4
    errors = [error for _, error in found.one_after_another]
    for before, after in pairwise(errors):
        assert after == pytest.approx(before / 10, rel=0.1)  # first order in α


BREAKS = {
    "state_policy": lambda mdp, logits: np.full((mdp.states, mdp.actions), 1 / mdp.actions),
    "exact_objective": lambda mdp, logits: 1.001 * exact_objective(mdp, logits),
    "occupancy": lambda mdp, policy: 0.999 * occupancy(mdp, policy),
    "enumerate_trajectories": lambda mdp: rewards_late(enumerate_trajectories(mdp)),
}


def rewards_late(every):
    return every._replace(reward=np.roll(every.reward, 1, axis=0))


@pytest.mark.parametrize("name", BREAKS)
def test_a_wrong_part_shows(monkeypatch, name):
    """The controls: neither side is computed from the other."""
    for module in (derivation_sides, derivation_lines):
        if hasattr(module, name):
            monkeypatch.setattr(module, name, BREAKS[name])
    assert shown().difference > 1e-4


def test_a_changed_side_changes_the_difference():
    line = shown().lines[-1]
    assert dataclasses.replace(line, right=line.right + 1e-6).difference == pytest.approx(
        1e-6, rel=1e-4
    )


def test_text_names_every_line():
    text = as_text(shown())
    assert all(f"[{tag}]" in text for tag in TAGS)
    assert "Without γ^t" in text


def test_too_many_trajectories_are_named():
    with pytest.raises(
        LogpiError, match=r"more than 500,000 trajectories of 1000 steps: shorten the horizon"
    ):
        derive(short_corridor(), np.zeros((1, 2)))


def test_derivative_is_exact_to_rounding(random):
    x = random.uniform(-1, 1, size=(2, 3))
    found = derivative(lambda x: np.stack([np.exp(x).sum(), np.sin(x[0] @ x[1])]), x)
    expected = np.stack([np.exp(x), np.cos(x[0] @ x[1]) * x[::-1]])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11)
