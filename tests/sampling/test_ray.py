"""Rollouts on a cluster of Ray: the same runs, whatever dies. Several raylets on this machine stand
for its machines."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from helpers import same

import logpi
from logpi import PPO, LogpiError, Reinforce
from logpi.runs.folder import RunFolder
from logpi.sampling.host import kernels, ray_actors

pytestmark = [
    pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray's log files
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
METHODS = {
    "reinforce": Reinforce(hidden=(8,), episodes=10, baseline="none"),
    "gru": PPO(memory="gru", memory_size=4, environments=10, rollout_steps=16, minibatches=2),
}


@pytest.fixture(scope="module")
def cluster():
    """A cluster of two raylets, to which this process is connected."""
    import ray
    from ray.cluster_utils import Cluster

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
        cluster.add_node(num_cpus=2)
        ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False)
        yield cluster
        ray.shutdown()
        cluster.shutdown()


def checkpoint(run):
    """The arrays of the last checkpoint, and its counters."""
    found = dict(np.load(RunFolder.open(run.folder).checkpoints()[0]))
    counters = json.loads(found.pop("counters").tobytes())
    return found, counters


def on_cluster(environment, method, actors, out, **options):
    """A run that so many actors play."""
    ray = logpi.Ray()
    return logpi.train(environment, method, rollouts=ray, workers=actors, out=out, **options)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_run_is_the_same_on_a_cluster(cluster, tmp_path, method):
    options = {"steps": 700, "seed": 5}
    local = logpi.train("CartPole-v1", METHODS[method], out=tmp_path / "local", **options)
    for actors in (1, 3):
        run = on_cluster(
            "CartPole-v1", METHODS[method], actors, tmp_path / f"on_{actors}", **options
        )
        assert same(checkpoint(local)[0], checkpoint(run)[0])
        returns = run.drawn_evaluation.returns
        assert np.array_equal(returns, local.drawn_evaluation.returns)


def actors():
    """The processes that play for this one."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if command.startswith(b"ray::Actor") and is_descendant(int(entry.name)):
                found.append(int(entry.name))
    return found


def is_descendant(process):
    """Whether this process has started it, or what has started it."""
    while process > 1:
        if process == os.getpid():
            return True
        try:
            after_name = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2]
        except OSError:
            return False
        process = int(after_name.split()[1])
    return False


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["SIGKILL", "SIGSTOP"])
def test_an_actor_that_is_lost_is_replaced(cluster, tmp_path, capsys, kind):
    """Killed while it plays; one that is only stopped is let go on: nobody waits for it in vain."""
    options = {"steps": 3000, "seed": 5}
    local = logpi.train("CartPole-v1", METHODS["gru"], out=tmp_path / "local", **options)
    done = []

    def kill():
        while not done:
            for actor in actors()[:1]:
                os.kill(actor, getattr(signal, kind))
                done.append(actor)
                if kind == "SIGSTOP":
                    time.sleep(1.0)
                    os.kill(actor, signal.SIGCONT)
            time.sleep(0.05)

    killer = threading.Thread(target=kill)
    killer.start()
    run = on_cluster("CartPole-v1", METHODS["gru"], 2, tmp_path / "run", **options)
    killer.join()
    found, counters = checkpoint(run)
    assert same(checkpoint(local)[0], found)
    assert counters["lost"] == (1 if kind == "SIGKILL" else 0)


HANGS = """
import os, signal, time
from gymnasium.envs.classic_control import CartPoleEnv

class Hangs(CartPoleEnv):
    def step(self, action):
        if not os.path.exists(FLAG):
            open(FLAG, "w").close()
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
            time.sleep(100)
        return super().step(action)
"""


@pytest.mark.slow
def test_an_actor_that_hangs_is_replaced(cluster, tmp_path, monkeypatch):
    """Where no alarm reaches the step."""
    path = tmp_path / "hangs.py"
    flag = tmp_path / "hung"
    path.write_text(HANGS.replace("FLAG", repr(str(flag))))
    flag.touch()
    options = {"steps": 300, "seed": 5, "step_limit": 1.0}
    local = logpi.train(f"{path}:Hangs", METHODS["gru"], out=tmp_path / "local", **options)
    flag.unlink()
    run = on_cluster(f"{path}:Hangs", METHODS["gru"], 2, tmp_path / "run", **options)
    found, counters = checkpoint(run)
    assert same(checkpoint(local)[0], found)
    assert counters["lost"] >= 1


@pytest.mark.slow
def test_a_machine_that_is_lost_is_replaced(cluster, tmp_path):
    """Its actors go on elsewhere."""
    options = {"steps": 4000, "seed": 5}
    local = logpi.train("CartPole-v1", METHODS["gru"], out=tmp_path / "local", **options)
    node = cluster.add_node(num_cpus=4)
    before = set(actors())

    def remove():
        while len(set(actors()) - before) < 3:
            time.sleep(0.05)
        cluster.remove_node(node, allow_graceful=False)

    remover = threading.Thread(target=remove)
    remover.start()
    run = on_cluster("CartPole-v1", METHODS["gru"], 3, tmp_path / "run", **options)
    remover.join()
    found, counters = checkpoint(run)
    assert same(checkpoint(local)[0], found)
    assert counters["lost"] >= 1


@pytest.mark.slow
def test_a_machine_that_computes_otherwise_is_refused(cluster, tmp_path, monkeypatch):
    """Control: accepted, and recorded, with mixed hardware."""
    monkeypatch.setattr(kernels, "arithmetic_digest", lambda rows: "another")
    options = {"steps": 100, "rollouts": logpi.Ray(), "workers": 2}
    with pytest.raises(LogpiError, match="--mixed-hardware"):
        logpi.train("CartPole-v1", METHODS["gru"], out=tmp_path / "run", **options)
    logpi.train(
        "CartPole-v1", METHODS["gru"], out=tmp_path / "mixed", mixed_hardware=True, **options
    )


@pytest.mark.slow
def test_without_ray_one_line_names_the_extra(tmp_path):
    """And nobody imports it who does not ask for it."""
    (tmp_path / "ray.py").write_text("raise ImportError('no Ray here')\n")
    program = "from logpi.cli import main; import sys; sys.exit(main())"
    words = ["train", "CartPole-v1", "--hidden", "4", "--steps", "100", "--workers", "0"]

    def run(*more):
        return subprocess.run(
            [sys.executable, "-c", program, *words, *more],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(tmp_path)},
        )

    done = run("--rollouts", "ray")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("pip install 'logpi[ray]'")
    assert len(done.stderr.splitlines()) <= 2
    assert run().returncode == 0


def test_a_cluster_that_does_not_answer_is_named(monkeypatch, tmp_path):
    class Silent:
        @staticmethod
        def is_initialized():
            return False

        @staticmethod
        def init(**_):
            raise ConnectionError("nobody is there")

    monkeypatch.setattr(ray_actors, "import_module", lambda name: Silent)
    with pytest.raises(LogpiError, match="no cluster of Ray at ray://nowhere:1: ConnectionError"):
        logpi.train(
            "CartPole-v1",
            METHODS["gru"],
            steps=100,
            rollouts=logpi.Ray("ray://nowhere:1"),
            out=tmp_path / "run",
        )
