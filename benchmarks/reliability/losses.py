"""Kill workers, actors and machines while they play, and compare the runs with undisturbed ones.

    python benchmarks/reliability/losses.py --schedules 100

A schedule is a run of a method on an environment, played by one to three workers, or by one, two or
four actors of Ray on three raylets of this machine, and up to four losses at random instants:
`kill -9` of a worker or an actor, or of a raylet with all that it runs. Its instants are drawn again
until the run feels one. A run stops where one part is lost three times in a row, and is resumed.
Equal means: every array of the last checkpoint, which stands for everything that has been played.
"""

import argparse
import collections
import json
import logging
import os
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil

import logpi
from logpi import LogpiError
from logpi.methods.method import Method
from logpi.runs.folder import RunFolder

SMALL: dict[str, Any] = {"hidden": (16,), "environments": 16}
METHODS: dict[str, Method] = {
    "REINFORCE": logpi.Reinforce(hidden=(16,), episodes=16, baseline="none"),
    "A2C": logpi.A2C(**SMALL, rollout_steps=64),
    "PPO": logpi.PPO(**SMALL, rollout_steps=64, epochs=1, minibatches=1),
    "TRPO": logpi.TRPO(**SMALL, rollout_steps=64),
    "PPO, GRU": logpi.PPO(**SMALL, rollout_steps=64, epochs=1, minibatches=1, memory="gru"),
}
ENVIRONMENTS = {"CartPole-v1": 30_000, "Pendulum-v1": 30_000, "own.py:Both": 30_000}
# Whether on Ray, and how many actors or workers.
PLACES = [(False, 1), (True, 1), (False, 2), (True, 2), (False, 3), (True, 4)]
RAYLETS = 3  # beside the head
LONGEST = 5.0  # seconds until the last loss of a schedule

OWN = """
import gymnasium as gym, numpy as np

class Both(gym.Env):
    observation_space = gym.spaces.Box(-9, 9, (3,), np.float32)
    action_space = gym.spaces.Dict(
        {"jump": gym.spaces.Discrete(2), "push": gym.spaces.Box(-1, 1, (2,), np.float32)}
    )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.np_random.normal(size=3).astype(np.float32)
        return self.x, {}

    def step(self, action):
        moved = self.x + 0.1 * action["push"].sum() + action["jump"]
        self.x = np.clip(moved, -9, 9).astype(np.float32)
        return self.x, float(-abs(self.x).sum()), bool(self.np_random.random() < 0.02), False, {}
"""


def processes(word: str) -> list[int]:
    """The processes that this one and its children have started, by a word of their command."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if word in " ".join(process.cmdline()):
                found.append(process.pid)
    return found


@contextmanager
def cluster_of_raylets() -> Iterator[Any]:
    """A cluster, to which this process is connected; its head plays too."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False)
    try:
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


class Losses:
    """The losses of one schedule, made by a thread beside the run."""

    def __init__(self, random: np.random.Generator, kinds: list[str], cluster: Any):
        count = int(random.integers(1, 5))
        self._instants = np.sort(random.uniform(0.5, LONGEST, count))
        self._kinds = [str(random.choice(kinds)) for _ in range(count)]
        self._random = random
        self._cluster = cluster
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._make)
        self.made: collections.Counter[str] = collections.Counter()

    def __enter__(self) -> "Losses":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _make(self) -> None:
        begun = time.monotonic()
        for instant, kind in zip(self._instants, self._kinds, strict=True):
            if self._is_over.wait(max(0.0, instant - (time.monotonic() - begun))):
                return
            if kind == "machine":
                if self._cluster.worker_nodes:
                    node = next(iter(self._cluster.worker_nodes))
                    self._cluster.remove_node(node, allow_graceful=False)
                    self.made[kind] += 1
                continue
            playing = processes("ray::Actor" if kind == "actor" else "logpi.sampling.host.worker")
            if playing:
                with suppress(ProcessLookupError):
                    os.kill(int(self._random.choice(playing)), signal.SIGKILL)
                    self.made[kind] += 1


def arrays(folder: Path) -> dict[str, np.ndarray]:
    """Every array of the last checkpoint of a run, but the counters, which hold seconds."""
    found = dict(np.load(RunFolder.open(folder).checkpoints()[0]))
    del found["counters"]
    return found


class Schedule(NamedTuple):
    """What is played where. Method changes fastest: 90 numbers are all combinations."""

    method: str
    environment: str
    on_ray: bool
    workers: int

    @staticmethod
    def of(number: int) -> "Schedule":
        """The schedule of a number."""
        number, method = divmod(number, len(METHODS))
        number, environment = divmod(number, len(ENVIRONMENTS))
        on_ray, workers = PLACES[number % len(PLACES)]
        return Schedule(list(METHODS)[method], list(ENVIRONMENTS)[environment], on_ray, workers)

    def __str__(self) -> str:
        kind = "actors of Ray" if self.on_ray else "workers"
        return f"{self.method}, {self.environment}, {self.workers} {kind}"


class Outcome(NamedTuple):
    """The losses that were made, those that the run has felt, and whether it is the undisturbed
    one.
    """

    made: collections.Counter[str]
    felt: int
    is_equal: bool


def play(schedule: Schedule, random: np.random.Generator, cluster: Any) -> Outcome:
    """One run with losses at random instants, beside the undisturbed one."""
    environment = schedule.environment
    method = METHODS[schedule.method]
    kinds = ["worker"]
    own: dict[str, Any] = {}
    if schedule.on_ray:
        kinds = ["actor", "actor", "machine"]
        own = {"rollouts": logpi.Ray()}
    options: dict[str, Any] = {"steps": ENVIRONMENTS[environment], "seed": 1}
    with tempfile.TemporaryDirectory() as folder:
        alone = Path("alone") / f"{schedule.method} {environment}".replace("/", "-")
        whole = logpi.train(environment, method, out=alone, exist="resume", workers=0, **options)
        out = Path(folder) / "run"
        with Losses(random, kinds, cluster) as losses:
            try:
                logpi.train(
                    environment, method, out=out, workers=schedule.workers, **options, **own
                )
            except LogpiError as error:
                if "times in a row" not in str(error):
                    raise
                losses.made["stop"] += 1
        if losses.made["stop"]:
            logpi.resume(out)
        one = arrays(whole.folder)
        other = arrays(out)
        felt = losses_felt(out) + losses.made["stop"]
    is_equal = one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)
    return Outcome(losses.made, felt, is_equal)


def losses_felt(folder: Path) -> int:
    """How many places a run has replaced."""
    counters = np.load(RunFolder.open(folder).checkpoints()[0])["counters"]
    return int(json.loads(counters.tobytes())["lost"])


def main() -> int:
    """Play all schedules; exit with 1 where one has led elsewhere."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--schedules", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    made: collections.Counter[str] = collections.Counter()
    felt = 0
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("own.py").write_text(OWN)
        with cluster_of_raylets() as cluster:
            for number in range(arguments.schedules):
                schedule = Schedule.of(number)
                random = np.random.default_rng([arguments.seed, number])
                outcome = Outcome(collections.Counter(), 0, True)
                while not outcome.felt and outcome.is_equal:
                    while len(cluster.worker_nodes) < RAYLETS:
                        cluster.add_node(num_cpus=2)
                    outcome = play(schedule, random, cluster)
                    made += outcome.made
                felt += outcome.felt
                wrong += not outcome.is_equal
                lost = ", ".join(f"{count} {kind}" for kind, count in sorted(outcome.made.items()))
                verdict = "equal" if outcome.is_equal else "DIFFERS"
                print(f"{number:3} {schedule}: {lost}, {outcome.felt} felt; {verdict}", flush=True)
    total = ", ".join(f"{count} {kind}s" for kind, count in sorted(made.items()))
    equal = arguments.schedules - wrong
    print(
        f"seed {arguments.seed}: {equal} of {arguments.schedules} equal; {total}; {felt} were felt"
    )
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
