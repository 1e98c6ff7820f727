"""Copies of compiled environments on several devices: four that XLA makes of this processor."""

import json
import os
import socket
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
from logpi.environments.options import EnvironmentOptions
from logpi.environments.registry import make_environment
from logpi.sampling.compiled.sampler import CompiledSampler

METHODS = {
    "reinforce": logpi.Reinforce(hidden=(8,), episodes=16, baseline="none"),
    "ppo": logpi.PPO(hidden=(8,), environments=16, rollout_steps=16, epochs=2, minibatches=2),
    "trpo": logpi.TRPO(hidden=(8,), environments=16, rollout_steps=16),
    "gru": logpi.PPO(hidden=(8,), environments=16, rollout_steps=16, minibatches=2, memory="gru"),
}
environment = make_environment("gymnax:CartPole-v1", EnvironmentOptions(50))
for name in sys.argv[1:]:
    method = METHODS[name]
    ends = []
    for devices in (1, 4):
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


def with_four_devices(program, folder, *words):
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=4"
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, *words],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        cwd=folder,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    "methods",
    [
        pytest.param(("ppo",), marks=pytest.mark.slow),
        pytest.param(("reinforce", "trpo", "gru"), marks=pytest.mark.release),
    ],
)
def test_several_devices_learn_what_one_learns(tmp_path, methods):
    """One update within rounding, parameters on every device, copies divided. A run on four goes on
    on one, here, and on four again. Control: another seed is another update.
    """
    done = with_four_devices(PROGRAM, tmp_path, *methods)
    assert done.stdout.splitlines()[-1:] == ["as one"], done.stderr
    other_seeds = PROGRAM.replace("method.copies, 3, lambda", "method.copies, devices, lambda")
    control = with_four_devices(other_seeds, tmp_path, methods[0])
    assert "Not equal to tolerance" in control.stderr
    run = RunFolder.open(Path(tmp_path / "run"))
    assert json.loads((run.path / "config.json").read_text())["settings"]["devices"] == 4
    before = run.saved_steps()
    assert before is not None
    with pytest.raises(LogpiError, match="--devices 4: JAX finds 1 here"):
        logpi.resume(run.path, steps=before + 500)
    ppo = logpi.PPO(hidden=(8,), environments=16, rollout_steps=16, epochs=2, minibatches=2)
    options = {"exist": "resume", "steps": before + 500, "out": run.path}
    on_one = logpi.train("gymnax:CartPole-v1", ppo, devices=1, **options)
    assert on_one.steps >= before + 500
    back = f"""
import logpi
ppo = logpi.PPO(hidden=(8,), environments=16, rollout_steps=16, epochs=2, minibatches=2)
run = logpi.train(
    "gymnax:CartPole-v1", ppo, devices=4, exist="resume", steps={before + 1500}, out="run"
)
print("at", run.steps)
"""
    on_four = with_four_devices(back, tmp_path)
    assert int(on_four.stdout.split()[-1]) >= before + 1500, on_four.stderr


def test_devices_that_cannot_be_had_are_refused(tmp_path):
    ppo = logpi.PPO(hidden=(4,), environments=6, rollout_steps=8, minibatches=1)
    options = {"steps": 100, "out": tmp_path / "run"}
    with pytest.raises(LogpiError, match="stepped from Python, on no device"):
        logpi.train("CartPole-v1", ppo, devices=2, **options)
    with pytest.raises(LogpiError, match="--devices 2: JAX finds 1 here"):
        logpi.train("finite:short-corridor", ppo, devices=2, **(options | {"out": tmp_path / "b"}))


JOINED = """
import sys, time
import jax, numpy as np
jax.distributed.initialize(sys.argv[1], num_processes=2, process_id=int(sys.argv[2]))
import logpi

METHODS = {
    "reinforce": logpi.Reinforce(hidden=(8,), episodes=16, baseline="none"),
    "ppo": logpi.PPO(hidden=(8,), environments=16, rollout_steps=16, epochs=2, minibatches=2),
}
assert len(jax.devices()) == 4 and len(jax.local_devices()) == 2
time.sleep(LATE * int(sys.argv[2]))
for name in sys.argv[3:]:
    method = METHODS[name]
    run = logpi.train(
        "gymnax:CartPole-v1", method, steps=600, seed=SEED, devices=4, out=name,
        max_episode_steps=50,
    )
    run = logpi.resume(name, steps=1200)
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(run.policy)]
    np.savez(f"{name}_{sys.argv[2]}.npz", *leaves, run.evaluation.returns)
print("done")
"""


def joined(program, folder, methods):
    """What two processes say that JAX has joined, each with two devices."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2"
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", program, address, str(number), *methods],
            env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    return [process.communicate(timeout=300) for process in processes]


@pytest.mark.release
@pytest.mark.parametrize(("late", "methods"), [(0, ["ppo"]), (35, ["reinforce", "ppo"])])
def test_processes_that_are_joined_learn_what_one_learns(tmp_path, late, methods):
    """Two processes of two devices, and one of four: the same policy within rounding, though the
    second may begin 35 s late, more than JAX waits for by itself. The first process writes the
    folder. Control: another seed is another policy.
    """
    here = tmp_path / "joined"
    here.mkdir()
    for out, error in joined(JOINED.replace("SEED", "3").replace("LATE", str(late)), here, methods):
        assert out.splitlines()[-1:] == ["done"], error
    alone = tmp_path / "alone"
    alone.mkdir()
    one_process = JOINED.replace("SEED", "3").replace("LATE", "0").replace("sys.argv[2]", "'0'")
    one_process = "\n".join(
        line
        for line in one_process.splitlines()
        if "distributed" not in line and "assert" not in line
    )
    done = with_four_devices(one_process, alone, "", "", *methods)
    assert done.stdout.splitlines()[-1:] == ["done"], done.stderr
    for name in methods:
        first, second, single = (
            np.load(path)
            for path in (here / f"{name}_0.npz", here / f"{name}_1.npz", alone / f"{name}_0.npz")
        )
        assert all(np.array_equal(first[key], second[key]) for key in first)
        for key in first:
            np.testing.assert_allclose(first[key], single[key], rtol=1e-3, atol=2e-5)
        assert np.isfinite(logpi.load(here / name).act(np.zeros(4))).all()
    assert sorted(path.name for path in here.iterdir() if path.is_dir()) == sorted(methods)
    other = with_four_devices(one_process.replace("seed=3", "seed=4"), tmp_path, "", "", "ppo")
    assert other.stdout.splitlines()[-1:] == ["done"], other.stderr
    another = np.load(tmp_path / "ppo_0.npz")
    assert not np.allclose(another["arr_0"], np.load(here / "ppo_0.npz")["arr_0"], atol=1e-3)
