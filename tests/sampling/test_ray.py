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
from helpers import IS_FIRST, OWN, same

import logpi
from logpi import PPO, LogpiError, Reinforce
from logpi.runs.folder import RunFolder
from logpi.sampling.host import kernels, ray_actors

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "reliability"))
from losses import processes

pytestmark = [
    pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray's log files
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
METHODS = {
    "reinforce": Reinforce(hidden=(8,), episodes=14, baseline="none"),
    "gru": PPO(memory="gru", memory_size=4, environments=14, rollout_steps=16, minibatches=2),
    "a2c": logpi.A2C(hidden=(8,), environments=14, rollout_steps=7),
    "trpo": logpi.TRPO(hidden=(8,), environments=14, rollout_steps=16),
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
@pytest.mark.parametrize(
    ("environment", "method", "numbers"),
    [
        ("CartPole-v1", "reinforce", (1, 4)),
        pytest.param("CartPole-v1", "gru", (2,), marks=pytest.mark.release),
        pytest.param("Pendulum-v1", "a2c", (4,), marks=pytest.mark.release),
        ("own.py:Both", "trpo", (2,)),
    ],
)
def test_a_run_is_the_same_on_a_cluster(cluster, tmp_path, environment, method, numbers):
    """So many actors, of discrete, continuous and composite actions."""
    (tmp_path / "own.py").write_text(OWN)
    if environment == "own.py:Both":
        environment = f"{tmp_path}/{environment}"
    options = {"steps": 700, "seed": 5}
    local = logpi.train(environment, METHODS[method], out=tmp_path / "local", **options)
    for actors in numbers:
        run = on_cluster(environment, METHODS[method], actors, tmp_path / f"on_{actors}", **options)
        assert same(checkpoint(local)[0], checkpoint(run)[0])
        returns = run.drawn_evaluation.returns
        assert np.array_equal(returns, local.drawn_evaluation.returns)


@pytest.mark.slow
def test_a_sweep_on_a_cluster_makes_the_runs_that_it_makes_here(cluster, tmp_path):
    """Two seeds; the process that makes one of them is killed, and another resumes it."""
    options = {"seeds": range(2), "steps": 20_000}
    method = METHODS["reinforce"]
    alone = logpi.sweep("CartPole-v1", method, out=tmp_path / "local", **options)
    killed = []
    is_over = threading.Event()

    def kill():
        while not killed and not is_over.wait(0.02):
            if any(RunFolder.open(each).checkpoints() for each in folders_of(tmp_path / "ray")):
                for process in processes("ray::_perform")[:1]:
                    os.kill(process, signal.SIGKILL)
                    killed.append(process)

    killer = threading.Thread(target=kill)
    killer.start()
    swept = logpi.sweep("CartPole-v1", method, out=tmp_path / "ray", on=logpi.Ray(), **options)
    is_over.set()
    killer.join()
    assert killed
    for one, other in zip(swept.runs, alone.runs, strict=True):
        assert one.failure is None
        assert same(checkpoint(one)[0], checkpoint(other)[0])
    assert len(swept.runs) == 2


TRAINS = """
import sys
import logpi

logpi.train(
    "CartPole-v1",
    logpi.Reinforce(hidden=(8,), episodes=14, baseline="none"),
    steps=20_000, seed=5, workers=2, rollouts=logpi.Ray(sys.argv[1]), out="run", exist="resume",
)
"""


@pytest.mark.slow
def test_a_run_goes_on_after_the_process_that_trains_has_died(cluster, tmp_path):
    """Killed once it has a checkpoint, and started again by the same words, as on another machine
    that sees the folder.
    """

    def start():
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", TRAINS, cluster.address], cwd=tmp_path
        )

    first = start()
    while not list((tmp_path / "run").glob("checkpoints/step_*.npz")):
        assert first.poll() is None
        time.sleep(0.02)
    first.kill()
    first.wait()
    before = RunFolder.open(tmp_path / "run").saved_steps()
    assert before is not None
    assert before < 20_000
    assert start().wait(timeout=120) == 0
    options = {"steps": 20_000, "seed": 5}
    alone = logpi.train("CartPole-v1", METHODS["reinforce"], out=tmp_path / "alone", **options)
    found = dict(np.load(RunFolder.open(tmp_path / "run").checkpoints()[0]))
    del found["counters"]
    assert same(checkpoint(alone)[0], found)


def folders_of(sweep):
    """The runs of a sweep that have begun."""
    return [path.parent for path in sweep.glob("*/config.json")]


def actors():
    """The processes that play for this one."""
    return processes("ray::Actor")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["SIGKILL", pytest.param("SIGSTOP", marks=pytest.mark.release)])
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


HANGS = (
    IS_FIRST
    + """
import os, signal, time
from gymnasium.envs.classic_control import CartPoleEnv

class Hangs(CartPoleEnv):
    def step(self, action):
        if is_first(FLAG):
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
            time.sleep(100)
        return super().step(action)
"""
)


@pytest.mark.release
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


@pytest.mark.release
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
