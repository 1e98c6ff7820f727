"""What the parts of each row of comparisons.toml cost by themselves, and how near a run comes.

python benchmarks/floors.py                 # every row that compares steps a second
python benchmarks/floors.py cheetah pong    # some of them

A run plays, and takes gradients. The floor is the time of the environment alone, with random
actions, divided among all cores, and of the bare gradients of policy and critic, at the rate at
which all cores multiply matrices of 1024×1024: nothing else, and nothing that waits. `reached` is
the floor over the time that training takes, in the second half of a run.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from compare import COMPARISONS
from limits import product_rate
from process import train_in

import logpi
from logpi.environments.host.group import Group
from logpi.environments.registry import make_environment
from logpi.environments.spec import CompiledEnvironment, EnvironmentSpec, HostEnvironment
from logpi.methods.learner import Learner
from logpi.methods.method import Method
from logpi.methods.value_fitting import MOST_PASSES
from logpi.runs.folder import RunFolder

ROWS = 64  # of the forward pass whose work is counted
SECONDS = 2.0  # that the environment is stepped
BACKWARD = 3  # a gradient is as much work as so many forward passes


class Work(NamedTuple):
    """Floating-point operations of a forward pass for one row."""

    policy: float
    critic: float


class Row(NamedTuple):
    """Seconds of one environment step."""

    environment: float
    """Alone, in one process."""
    gradient: float
    """Bare, on all cores."""
    training: float
    """What a run takes."""

    @property
    def floor(self) -> float:
        """The least that both can take together."""
        return self.environment / cores() + self.gradient


def cores() -> int:
    """Of this machine."""
    return os.cpu_count() or 1


def operations(function: Callable[..., object], *arguments: object) -> float:
    """What XLA counts in a program without loops."""
    analysis = jax.jit(function).lower(*arguments).compile().cost_analysis()
    return float((analysis or {})["flops"])


def forward_work(learner: Learner) -> Work:
    """Of the two networks, a step of the memory included."""
    policy = learner.policy
    observation = policy.encoder.example(ROWS)
    memory = policy.initial_memory(ROWS)
    step = np.zeros(ROWS, np.int32)

    def act(observation: jax.Array, memory: jax.Array) -> object:
        after = policy.next_memory(observation, memory, step)
        return policy(observation, after)

    def judge(observation: jax.Array, memory: jax.Array) -> object:
        return learner.critic(observation[None], step[None], memory[None])

    work = operations(act, observation, memory) / ROWS
    if learner.value is None:
        return Work(work, 0.0)
    return Work(work, operations(judge, observation, memory) / ROWS)


def gradient_work(method: Method, work: Work, batch: float) -> float:
    """Operations of all gradients of an update, a step of the environment; `batch` steps have one
    update.
    """
    match method:
        case logpi.Reinforce():
            passes = min(method.value_steps * method.value_batch / batch, MOST_PASSES)
            return BACKWARD * (work.policy + passes * work.critic)
        case logpi.NPG() | logpi.TRPO():
            # A product with the Fisher matrix is two backward passes of one.
            products = method.conjugate_gradient_steps + 1
            natural = BACKWARD * work.policy * (1 + 2 * products)
            return natural + method.value_epochs * BACKWARD * work.critic
        case logpi.A2C() | logpi.PPO():
            own = 0.0 if method.shared_trunk else work.critic  # else its last layer alone
            return method.epochs * BACKWARD * (work.policy + own)
    raise NotImplementedError(type(method).__name__)


def alone(made: HostEnvironment | CompiledEnvironment, copies: int) -> float:
    """Seconds of a step of an environment with random actions, resets included."""
    if isinstance(made, CompiledEnvironment):
        return compiled_alone(made, copies)
    if made.pool is not None:
        return pool_alone(made.pool(copies), made.spec, copies)
    assert made.make is not None
    environment = made.make()
    environment.reset(seed=0)
    environment.action_space.seed(0)
    actions = [environment.action_space.sample() for _ in range(1000)]
    steps = 0
    begun = time.perf_counter()
    while time.perf_counter() - begun < SECONDS:
        for action in actions[:100]:
            _, _, terminated, truncated, _ = environment.step(action)
            if terminated or truncated:
                environment.reset()
        steps += 100
    return (time.perf_counter() - begun) / steps


def pool_alone(group: Group, spec: EnvironmentSpec, copies: int) -> float:
    """The same of copies that a package steps together."""
    everyone = range(copies)
    group.reset([0] * copies, everyone)
    spec.action_space.seed(0)
    actions = [np.array([spec.action_space.sample() for _ in everyone]) for _ in range(50)]
    rounds = 0
    begun = time.perf_counter()
    while time.perf_counter() - begun < SECONDS:
        for action in actions:
            group.step(action, everyone)
            ended = np.flatnonzero(group.terminated | group.truncated)
            if len(ended):
                group.reset([1] * len(ended), ended.tolist())
        rounds += len(actions)
    seconds = time.perf_counter() - begun
    group.close()
    return seconds / (rounds * copies)


def compiled_alone(made: CompiledEnvironment, copies: int) -> float:
    """The same of copies that one compiled loop steps; an episode that ends begins again."""
    count = 1000
    action = jnp.zeros(made.spec.action_space.shape or (), jnp.int32)

    def step(state: object, key: jax.Array) -> tuple[object, None]:
        def one(key: jax.Array, state: object) -> object:
            after, _, _, terminated, truncated = made.step(key, state, action)
            start, _ = made.reset(key)
            ended = terminated | truncated
            return jax.tree.map(lambda new, old: jnp.where(ended, new, old), start, after)

        return jax.vmap(one)(jax.random.split(key, copies), state), None

    def loop(key: jax.Array) -> object:
        state, _ = jax.vmap(made.reset)(jax.random.split(key, copies))
        return jax.lax.scan(step, state, jax.random.split(key, count))[0]

    program = jax.jit(loop)
    jax.block_until_ready(program(jax.random.key(0)))
    begun = time.perf_counter()
    jax.block_until_ready(program(jax.random.key(1)))
    return (time.perf_counter() - begun) / (count * copies)


def measure_row(environment: str, options: list[str], operations_a_second: float) -> Row:
    """Train with these options, then measure the parts."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        rate = train_in(out, environment, 0, options)["rate"]
        found = RunFolder.open(out)
        method = found.settings.algorithm
        counters = json.loads(np.load(found.checkpoints()[0])["counters"].tobytes())
    made = make_environment(environment)
    work = forward_work(method.make_learner(made.spec, 0))
    batch = counters["steps"] / counters["updates"]
    gradient = gradient_work(method, work, batch) / operations_a_second
    return Row(alone(made, method.copies), gradient, 1 / rate)


def main() -> None:
    """Print a line for every row."""
    timed = [name for name, work in COMPARISONS.items() if work["by"] == "rate"]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(timed))
    names = parser.parse_args().names or timed
    operations_a_second = product_rate(1024, 1024, 1024)
    print(f"{cores()} cores, {operations_a_second / 1e9:.0f} GFLOP/s\n")
    print("| row | environment alone | bare gradients | floor | training | reached |")
    print("|---|---|---|---|---|---|")
    for name in names:
        environment, *options = COMPARISONS[name]["ours"].split()
        row = measure_row(environment, options, operations_a_second)
        cells = [f"{1 / each:,.0f}" for each in (row.environment, row.gradient, row.floor)]
        reached = f"{1 / row.training:,.0f} | {row.floor / row.training:.0%}"
        print(f"| {name} | {' | '.join(cells)} | {reached} |", flush=True)


if __name__ == "__main__":
    main()
