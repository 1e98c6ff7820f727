"""Copies of compiled environments on several devices: four that XLA makes of this processor."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import logpi
from logpi import LogpiError
from logpi.runs.folder import RunFolder

PROGRAM = """
import sys
import jax, numpy as np
import logpi
from logpi.environments.registry import make_environment
from logpi.sampling.compiled.sampler import CompiledSampler

METHODS = {
    "reinforce": logpi.Reinforce(hidden=(8,), episodes=16, baseline="none"),
    "ppo": logpi.PPO(hidden=(8,), environments=16, rollout_steps=16, epochs=2, minibatches=2),
    "trpo": logpi.TRPO(hidden=(8,), environments=16, rollout_steps=16),
    "gru": logpi.PPO(hidden=(8,), environments=16, rollout_steps=16, minibatches=2, memory="gru"),
}
environment = make_environment("gymnax:CartPole-v1", max_episode_steps=50)
for name, method in METHODS.items():
    ends = []
    for devices in (1, 2, 4):
        sampler = CompiledSampler(environment, method.copies, 3, lambda: False, devices)
        learner = sampler.begin(method, method.make_learner(environment.spec, 3))
        learner, metrics = sampler.advance(method, learner, 10**6)(learner, 1)
        parameters = jax.tree.leaves(learner.policy)
        copies = [leaf for leaf in jax.tree.leaves(learner.environment) if leaf.size]
        assert all(leaf.sharding.is_fully_replicated for leaf in parameters)
        assert all(len(leaf.sharding.device_set) == devices for leaf in parameters)
        for leaf in copies:
            assert leaf.addressable_shards[0].data.shape[0] == method.copies // devices
        ends.append((metrics[0], [np.asarray(leaf) for leaf in parameters]))
    for end in ends[1:]:
        for metric in ("surrogate", "entropy", "gradient_norm", "steps", "episode_return"):
            np.testing.assert_allclose(end[0][metric], ends[0][0][metric], rtol=1e-3, atol=1e-5)
        for one, other in zip(ends[0][1], end[1], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=2e-5)
logpi.train("gymnax:CartPole-v1", METHODS["ppo"], steps=1000, devices=4, out="run")
logpi.resume("run", steps=2000)
print("as one")
"""


def with_four_devices(program, folder):
    flags = "--xla_force_host_platform_device_count=4"
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        cwd=folder,
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_several_devices_learn_what_one_learns(tmp_path):
    """One update within rounding, parameters on every device, copies divided. A checkpoint is read
    with another number of devices: one, here. Control: another seed is another update.
    """
    done = with_four_devices(PROGRAM, tmp_path)
    assert done.stdout.splitlines()[-1:] == ["as one"], done.stderr
    other_seeds = PROGRAM.replace("method.copies, 3, lambda", "method.copies, devices, lambda")
    control = with_four_devices(other_seeds, tmp_path)
    assert "Not equal to tolerance" in control.stderr
    run = RunFolder.open(Path(tmp_path / "run"))
    assert json.loads((run.path / "config.json").read_text())["settings"]["devices"] == 4
    before = run.saved_steps()
    assert before is not None
    with pytest.raises(LogpiError, match="--devices 4: JAX finds 1 here"):
        logpi.resume(run.path, steps=before + 500)
    found = logpi.load(run.path)
    assert np.isfinite(found.act(np.zeros(4))).all()


def test_devices_that_cannot_be_had_are_refused(tmp_path):
    ppo = logpi.PPO(hidden=(4,), environments=6, rollout_steps=8, minibatches=1)
    options = {"steps": 100, "out": tmp_path / "run"}
    with pytest.raises(LogpiError, match="stepped from Python, on no device"):
        logpi.train("CartPole-v1", ppo, devices=2, **options)
    with pytest.raises(LogpiError, match="--devices 2: JAX finds 1 here"):
        logpi.train("finite:short-corridor", ppo, devices=2, **(options | {"out": tmp_path / "b"}))
