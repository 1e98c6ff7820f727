"""The benchmarks of scaling and of accelerators: their model, and that their commands run."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))


def some_costs():
    from scaling import Costs

    plays = np.random.default_rng(0).lognormal(-2, 0.2, 500)
    return Costs(
        plays=plays,
        steps=1000.0,
        update=0.01,
        update_step=1e-6,
        parameters=10_000,
        step_bytes=50.0,
    )


@pytest.mark.parametrize("machines", [1, 10, 100])
def test_the_model_is_what_the_simulation_shows(machines):
    """Within 6 %. Control: without waiting for the slowest it is far off on many machines."""
    from scaling import model, simulate

    costs = some_costs()
    simulated = simulate(costs, 1e-4, machines, np.random.default_rng(1)).mean()
    batch = model(costs, 1e-4, machines)
    assert batch.total == pytest.approx(simulated, rel=0.06)
    if machines > 1:
        nobody_waits = batch._replace(plays=float(costs.plays.mean()))
        assert nobody_waits.total < 0.85 * simulated


def test_half_is_where_a_batch_takes_twice_as_long():
    from scaling import half, model

    costs = some_costs()
    alone = model(costs, 1e-4, 1).total
    machines = half(costs, 1e-4)
    assert model(costs, 1e-4, machines).total >= 2 * alone
    assert model(costs, 1e-4, int(0.9 * machines)).total < 2 * alone


@pytest.mark.release
def test_an_accelerator_that_is_not_there_is_said():
    words = ["--environments", "16", "--seeds", "1", "2", "--updates", "1"]
    command = [sys.executable, str(BENCHMARKS / "device.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "JAX finds no accelerator here" in done.stdout
    assert sum("steps/s" in line for line in lines) == 4


@pytest.mark.release
def test_scaling_is_measured():
    command = [sys.executable, "-W", "ignore", str(BENCHMARKS / "scaling.py"), "CartPole-v1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "| CartPole-v1 |" in done.stdout
