"""`--reference`: where a policy starts, and what it stays near."""

import dataclasses
import json

import numpy as np
import pytest

import logpi
from logpi import PPO, FiniteMDP, LogpiError, Reinforce

pytestmark = pytest.mark.slow

REWARD = np.array([0.0, 1.0, 2.0])
# One decision among three; β E_ref[e^{r/β}] has its maximum at π ∝ π_ref e^{r/β}.
CHOICE = FiniteMDP(
    [1.0, 0.0],
    np.tile([0.0, 1.0], (2, 3, 1)),
    np.tile(REWARD[None, :, None], (2, 1, 2)),
    [False, True],
    1,
)
TABLE = dict(
    hidden=(), baseline="leave-one-out", episodes=256, anneal=("learning_rate",), learning_rate=0.03
)


def law(policy):
    return np.exp(policy(np.array(0)).log_prob(np.arange(3)))


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A policy that has learned a little."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    return folder, law(logpi.train(CHOICE, Reinforce(**TABLE), steps=4000, out=folder).policy)


def test_the_optimum_is_the_tilted_reference(reference, tmp_path):
    """max J - β KL(π, π_ref) is at π ∝ π_ref e^{r/β}: π converges to it, and not without the
    coefficient."""
    folder, start = reference
    tilted = start * np.exp(REWARD / 2)
    near = Reinforce(**TABLE, reference=str(folder), reference_coefficient=2.0)
    found = law(logpi.train(CHOICE, near, steps=200_000, out=tmp_path / "near").policy)
    np.testing.assert_allclose(found, tilted / tilted.sum(), atol=0.01)
    free = Reinforce(**TABLE, reference=str(folder))
    assert law(logpi.train(CHOICE, free, steps=200_000, out=tmp_path / "free").policy)[2] > 0.95


OWN = """
import jax
def near(log_prob, reference_log_prob, reward):
    reward = reward - {coefficient} * jax.lax.stop_gradient(log_prob - reference_log_prob)
    return reward - reward.mean()
"""


@pytest.mark.parametrize("coefficient", [2.0, 0.0])
def test_an_own_estimator_sees_the_reference(reference, tmp_path, coefficient):
    """The same distance written by the user leads to the same tilted policy; without it to
    another."""
    folder, start = reference
    (tmp_path / "own.py").write_text(OWN.format(coefficient=coefficient))
    own = Reinforce(**TABLE, reference=str(folder), estimator=f"{tmp_path / 'own.py'}:near")
    found = law(logpi.train(CHOICE, own, steps=200_000, out=tmp_path / "run").policy)
    tilted = start * np.exp(REWARD / 2)
    assert (np.abs(found - tilted / tilted.sum()).max() < 0.01) == (coefficient == 2.0)
    alone = dataclasses.replace(own, reference=None)
    with pytest.raises(LogpiError, match="train with --reference"):
        logpi.train(CHOICE, alone, steps=100, out=tmp_path / "alone")


@pytest.mark.release
def test_a_run_starts_from_its_reference_and_keeps_it(reference, tmp_path):
    folder, start = reference
    config = Reinforce(
        **TABLE | dict(learning_rate=1e-9), reference=str(folder), reference_coefficient=1.0
    )
    run = logpi.train(CHOICE, config, steps=1000, out=tmp_path / "run")
    np.testing.assert_allclose(law(run.policy), start, atol=1e-6)
    whole = logpi.train(CHOICE, config, steps=2000, out=tmp_path / "whole")
    resumed = logpi.resume(tmp_path / "run", steps=2000, environment=CHOICE)
    np.testing.assert_array_equal(law(whole.policy), law(resumed.policy))


def test_the_return_that_is_reported_is_the_environment_s(reference, tmp_path):
    config = Reinforce(**TABLE, reference=str(reference[0]), reference_coefficient=1000.0)
    run = logpi.train(CHOICE, config, steps=2000, out=tmp_path / "run")
    assert 0 <= json.loads((run.folder / "evaluation.json").read_text())["mean"] <= 2
    returns = np.genfromtxt(run.folder / "metrics.csv", delimiter=",", names=True)[
        "rolloutep_rew_mean"
    ]
    assert np.all((returns >= 0) & (returns <= 2))


NETWORK = """
import equinox as eqx
def net(features, outputs, key):
    return eqx.nn.MLP(features, outputs, {width}, 1, key=key)
"""


@pytest.mark.release
def test_an_own_network_can_be_a_reference(tmp_path):
    """Loaded anew from its file it is the same kind of policy; not so with another width."""
    made = {width: tmp_path / f"net{width}.py" for width in (8, 9)}
    for width, path in made.items():
        path.write_text(NETWORK.format(width=width))
    source = {width: f"{path}:net" for width, path in made.items()}
    table = dict(baseline="leave-one-out", episodes=64)
    first = logpi.train(
        CHOICE, Reinforce(**table, network=source[8]), steps=2000, out=tmp_path / "first"
    )
    near = Reinforce(**table, network=source[8], reference=str(first.folder), learning_rate=1e-9)
    second = logpi.train(CHOICE, near, steps=100, out=tmp_path / "second")
    np.testing.assert_allclose(law(second.policy), law(first.policy), atol=1e-6)
    with pytest.raises(LogpiError, match="has another form"):
        logpi.train(
            CHOICE, dataclasses.replace(near, network=source[9]), steps=100, out=tmp_path / "third"
        )


def test_unfit_references_are_named(reference, tmp_path):
    for config, message in [
        (Reinforce(reference="nowhere"), "nowhere is not a folder"),
        (PPO(reference=str(reference[0])), "has another form"),
        (
            Reinforce(hidden=(), memory="gru", reference=str(reference[0])),
            "a policy with a memory cannot",
        ),
    ]:
        with pytest.raises(LogpiError, match=message):
            logpi.train(CHOICE, config, steps=100, out=tmp_path / "run")
