"""What limits a run on 10, 100 and 1,000 machines: a model of a batch, and a simulation of it.

    python benchmarks/scaling.py                    # every task, as a table
    python benchmarks/scaling.py CartPole-v1

A machine plays a constant number of copies, so a batch grows with the machines. On this machine are
measured: the seconds in which one place plays its part of a batch, those of an update of two sizes,
and those that the process that trains needs to ask an actor of Ray and to take its answer. The
model of a batch on n machines is

    T(n) = n (m + b s / w) + E[max of n plays] + u₀ + u₁ s n

with m seconds of messages for a machine, b bytes a step, s steps of a machine, w bytes a second of
the network, and an update of u₀ + u₁ seconds a step. Plays are taken to be lognormal in the model.
The simulation draws them from those that were measured, and moves every message by itself. If the
machines played the next batch during the update, with parameters one batch old, a batch would take
the longer of the two: "overlap" says how many times as fast that is.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.special import ndtri

import logpi
from logpi.environments.registry import make_environment
from logpi.environments.spec import HostEnvironment
from logpi.methods.method import Method
from logpi.networks.policy import Policy
from logpi.sampling.host.place import Here, Request
from logpi.sampling.host.places import Places
from logpi.sampling.host.program import UpdateProgram
from logpi.sampling.host.ray_actors import Cluster, RayActor
from logpi.sampling.host.shares import Shares
from logpi.sampling.host.unfinished import no_episodes
from logpi.sampling.seam import SHARE_SIZE, Ray

NETWORK = 1.25e9  # bytes a second: 10 Gbit/s
MACHINES = (1, 10, 100, 1000)
LEARNED = 10  # batches before the first that is measured
MEASURED = 30
UPDATES = 5  # of those
SIMULATED = 200
ACTORS = 4

SLOW = """
import time
import gymnasium as gym

class Slow(gym.Wrapper):
    def __init__(self):
        super().__init__(gym.make("CartPole-v1"))

    def step(self, action):
        time.sleep(0.01)
        return super().step(action)
"""


class Task(NamedTuple):
    """What one machine plays."""

    environment: str
    method: type[Method]
    options: Mapping[str, Any]
    copies: int

    def on(self, machines: int) -> Method:
        """The method, with the copies of so many machines."""
        name = "episodes" if self.method is logpi.Reinforce else "environments"
        return self.method(**self.options, **{name: self.copies * machines})


TASKS: Mapping[str, Task] = {
    "CartPole-v1": Task("CartPole-v1", logpi.Reinforce, {}, 8),
    "HalfCheetah-v5": Task("HalfCheetah-v5", logpi.PPO, {"rollout_steps": 256}, 8),
    "Pong": Task("ALE/Pong-v5", logpi.PPO, {"rollout_steps": 64, "epochs": 3}, 4),
    "10 ms a step": Task("slow.py:Slow", logpi.PPO, {"rollout_steps": 32, "minibatches": 4}, 4),
}


class Played(NamedTuple):
    """Batches of some machines in one process: seconds of each play, mean steps, the policy, bytes
    of a step, and the median seconds of an update.
    """

    plays: Float[ndarray, " batch"]
    steps: float
    policy: Policy
    step_bytes: float
    update: float


class Costs(NamedTuple):
    """What was measured: `plays` in seconds a batch of a place, `steps` of such a batch, the line
    of the update, bytes of the parameters and of a step.
    """

    plays: Float[ndarray, " batch"]
    steps: float
    update: float
    update_step: float
    parameters: int
    step_bytes: float


def never() -> bool:
    return False


def measure(task: Task) -> Costs:
    """The costs of a task on this machine; the update of one and of four machines' batches."""
    one = play(task, 1, MEASURED)
    four = play(task, 4, UPDATES)
    slope = max(0.0, (four.update - one.update) / (four.steps - one.steps))
    leaves = jax.tree.leaves(one.policy.on_host())
    return Costs(
        plays=one.plays,
        steps=one.steps,
        update=max(0.0, one.update - slope * one.steps),
        update_step=slope,
        parameters=sum(leaf.nbytes for leaf in leaves),
        step_bytes=one.step_bytes,
    )


def play(task: Task, machines: int, batches: int) -> Played:
    """Play the batches of so many machines in this process, after some in which it learns."""
    method = task.on(machines)
    environment = make_environment(task.environment)
    assert isinstance(environment, HostEnvironment)

    def here(shares: Shares) -> Here:
        return Here(environment, shares, 0, never)

    copies = task.copies * machines
    rows = method.rows
    length = environment.spec.max_episode_steps if rows is None else rows + 1
    places = Places([(here, Shares(range(copies), SHARE_SIZE))], print)
    learner = method.make_learner(environment.spec, 0)
    under_way = None
    if rows is not None:
        under_way = no_episodes(learner.policy, environment.spec, copies)
    places.restore(learner.policy, under_way, rows)
    trajectory, _ = places.sample(learner.policy, under_way, 0, rows, length)
    program = UpdateProgram(method, 10**9, learner, trajectory)
    program(learner, trajectory)  # compiles it
    places.restore(learner.policy, under_way, rows)
    plays = []
    updates = []
    steps = []
    learned = LEARNED // machines
    for batch in range(learned + batches):
        begun = time.perf_counter()
        trajectory, under_way = places.sample(learner.policy, under_way, batch, rows, length)
        plays.append(time.perf_counter() - begun)
        steps.append(int(trajectory.mask.sum()))
        if batch < learned + UPDATES:
            begun = time.perf_counter()
            updated, _ = program(learner, trajectory)
            updates.append(time.perf_counter() - begun)
            if batch < learned:
                learner = updated
    places.close()
    bytes_of_row = sum(x.nbytes for x in jax.tree.leaves(trajectory)) / trajectory.mask.size
    return Played(
        plays=np.array(plays[learned:]),
        steps=float(np.mean(steps[learned:])),
        policy=learner.policy,
        step_bytes=bytes_of_row,
        update=float(np.median(updates[learned:])),
    )


def seconds_of_messages() -> float:
    """What asking an actor of Ray and taking its answer cost the process that trains."""
    environment = make_environment("CartPole-v1")
    assert isinstance(environment, HostEnvironment)
    policy = TASKS["CartPole-v1"].on(1).make_learner(environment.spec, 0).policy
    cluster = Cluster(Ray())
    parts = Shares(range(ACTORS * SHARE_SIZE), SHARE_SIZE).split(ACTORS)
    actors = [RayActor(cluster, environment, part, 0, never, False) for part in parts]
    costs = []
    for batch in range(20):
        method = "show" if batch else "restore"
        begun = time.perf_counter()
        for actor in actors:
            arguments = (batch,) if batch else (None, None)
            actor.ask(Request(method, policy, arguments))
        asked = time.perf_counter() - begun
        time.sleep(0.2)  # until all answers are there
        begun = time.perf_counter()
        for actor in actors:
            actor.answer()
        costs.append((asked + time.perf_counter() - begun) / ACTORS)
    for actor in actors:
        actor.close()
    cluster.close()
    return float(np.median(costs[1:]))


class Batch(NamedTuple):
    """The seconds of a batch on n machines, by what they are spent on."""

    messages: float
    plays: float
    update: float

    @property
    def total(self) -> float:
        return self.messages + self.plays + self.update

    @property
    def overlap(self) -> float:
        """How many times as fast batches would be that are played during the update."""
        return self.total / max(self.messages + self.plays, self.update)


def model(costs: Costs, message: float, machines: int) -> Batch:
    """T(n) = n (m + b s / w) + E[max of n plays] + u₀ + u₁ s n.

    The largest of n normal numbers is, on average, near Φ⁻¹((n - 3/8) / (n + 1/4)) (Blom 1958).
    """
    logs = np.log(costs.plays)
    most = ndtri((machines - 0.375) / (machines + 0.25))
    sent = costs.parameters + costs.step_bytes * costs.steps
    return Batch(
        messages=machines * (message + sent / NETWORK),
        plays=float(np.exp(logs.mean() + logs.std(ddof=1) * most)),
        update=costs.update + costs.update_step * costs.steps * machines,
    )


def simulate(
    costs: Costs, message: float, machines: int, random: np.random.Generator
) -> Float[ndarray, " batch"]:
    """Seconds of each of many batches, message by message.

    The process that trains asks one machine after another, then takes the answers in that order.
    """
    down = message / 2 + costs.parameters / NETWORK
    up = message / 2 + costs.step_bytes * costs.steps / NETWORK
    update = costs.update + costs.update_step * costs.steps * machines
    totals = []
    for _ in range(SIMULATED):
        asked = down * np.arange(1, machines + 1)
        ends = asked + random.choice(costs.plays, machines)
        now = asked[-1]
        for end in ends:
            now = max(now, end) + up
        totals.append(now + update)
    return np.array(totals)


def half(costs: Costs, message: float) -> int:
    """The number of machines at which each does half of what the first does alone."""
    alone = model(costs, message, 1).total
    machines = 1
    while model(costs, message, machines).total < 2 * alone and machines < 10**6:
        machines += max(1, machines // 20)
    return machines


def describe(name: str, costs: Costs, message: float) -> str:
    """One row of the table, and how far model and simulation are apart."""
    random = np.random.default_rng(0)
    cells = []
    apart = []
    for machines in MACHINES:
        simulated = float(simulate(costs, message, machines, random).mean())
        apart.append(model(costs, message, machines).total / simulated - 1)
        cells.append(f"{machines * costs.steps / simulated:,.0f}")
    some = model(costs, message, 10)
    many = model(costs, message, MACHINES[-1])
    limit = costs.steps / (many.total - many.plays) * MACHINES[-1]
    spent = ", ".join(
        f"{part} {seconds / many.total:.0%}" for part, seconds in many._asdict().items()
    )
    furthest = max(apart, key=abs)
    return (
        f"| {name} | {' | '.join(cells)} | {limit:,.0f} | {half(costs, message):,} | {spent} |"
        f" {some.overlap:.2f}, {many.overlap:.2f} | {furthest:+.0%} |"
    )


def main(names: Sequence[str]) -> None:
    """Measure, and print the table."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("logpi", "jax", "ray"))
    print(f"{os.cpu_count()} cores; {versions}")
    message = seconds_of_messages()
    print(f"messages with an actor: {1e3 * message:.1f} ms; network {NETWORK / 1e9:.2f} GB/s")
    rows = []
    for name in names:
        costs = measure(TASKS[name])
        spread = np.quantile(costs.plays, [0, 0.5, 1])
        print(
            f"{name}: plays {1e3 * spread[1]:.1f} [{1e3 * spread[0]:.1f}, {1e3 * spread[2]:.1f}] ms"
            f" for {costs.steps:,.0f} steps, update {1e3 * costs.update:.1f} ms and"
            f" {1e6 * costs.update_step:.1f} µs a step, {costs.step_bytes:,.0f} bytes a step,"
            f" {costs.parameters / 1e3:,.0f} kB of parameters",
            flush=True,
        )
        rows.append(describe(name, costs, message))
    heads = " | ".join(f"{machines:,} machines" for machines in MACHINES)
    print(
        f"\n| task | {heads} | at most | half at | a batch on 1,000 is | overlap on 10 and 1,000 |"
        " model is off by |"
    )
    print("|---|" + "---|" * (len(MACHINES) + 5))
    print("\n".join(rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tasks", nargs="*", help=f"of {', '.join(TASKS)}; by default all")
    chosen = parser.parse_args().tasks or list(TASKS)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("slow.py").write_text(SLOW)
        main(chosen)
