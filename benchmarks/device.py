"""Training on an accelerator: environments of gymnax by the thousand, seeds side by side.

    python benchmarks/device.py
    python benchmarks/device.py --environments 256 --seeds 1 4     # where there is a processor only

PPO and REINFORCE on gymnax:CartPole-v1 on the first device that JAX finds: seconds of compilation,
and environment steps a second of all seeds together in the second half of the updates. PureJaxRL
publishes ratios: 2,048 agents, each of 500,000 steps, "in half the time it takes to train a single
PyTorch PPO agent on a single GPU" (its README). CleanRL's own documents give 10.5 minutes for such
an agent, which makes 3.3 million steps a second.
"""

import argparse
import os
import time
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np

import logpi
from logpi.environments.registry import make_environment
from logpi.environments.spec import CompiledEnvironment
from logpi.methods.learner import Learner
from logpi.methods.method import Method
from logpi.sampling.compiled.sampler import CompiledSampler

PUBLISHED = 2048 * 500_000 / (10.5 * 60 / 2)
ROWS = 128


def methods(environments: int) -> Mapping[str, Method]:
    """PPO with the settings of PureJaxRL, and REINFORCE."""
    ppo = logpi.PPO(environments=environments, rollout_steps=ROWS, epochs=4, minibatches=4)
    reinforce = logpi.Reinforce(episodes=environments, baseline="leave-one-out")
    return {"PPO": ppo, "REINFORCE": reinforce}


def measure(
    environment: CompiledEnvironment, method: Method, seeds: int, updates: int
) -> tuple[float, float]:
    """Seconds of compilation, and steps a second of so many updates of all seeds together."""
    sampler = CompiledSampler(environment, method.copies, 0, lambda: False)
    learners = [
        sampler.begin(method, method.make_learner(environment.spec, seed)) for seed in range(seeds)
    ]
    learner: Learner = jax.tree.map(lambda *leaves: jnp.stack(leaves), *learners)
    numbers = np.arange(seeds, dtype=np.uint32)
    program = jax.vmap(partial(sampler.many_updates, method, 10**9), in_axes=(0, 0, None))
    one = np.int32(1)  # each call makes one update
    begun = time.perf_counter()
    compiled = jax.jit(program).lower(learner, numbers, one).compile()
    compilation = time.perf_counter() - begun
    for _ in range(updates):
        learner = jax.block_until_ready(compiled(learner, numbers, one)[0])
    before = steps_made(learner)
    begun = time.perf_counter()
    for _ in range(updates):
        learner = jax.block_until_ready(compiled(learner, numbers, one)[0])
    return compilation, (steps_made(learner) - before) / (time.perf_counter() - begun)


def steps_made(learner: Learner) -> int:
    """Environment steps of all seeds."""
    low, high = np.asarray(learner.steps).T.astype(int)
    return int(np.sum(low + 2**32 * high))


def main() -> None:
    """Print one line for each method, number of environments and number of seeds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--environments", type=int, nargs="+", default=[4096, 65536])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--updates", type=int, default=10, help="measured; as many come before")
    arguments = parser.parse_args()
    device = jax.devices()[0]
    names = ", ".join(f"{name} {version(name)}" for name in ("logpi", "jax", "gymnax"))
    print(f"{device.platform} {device.device_kind}; {os.cpu_count()} cores; {names}")
    if device.platform == "cpu":
        print("JAX finds no accelerator here: these are figures of the processor.")
    environment = make_environment("gymnax:CartPole-v1")
    assert isinstance(environment, CompiledEnvironment)
    for count in arguments.environments:
        for name, method in methods(count).items():
            for seeds in arguments.seeds:
                compilation, rate = measure(environment, method, seeds, arguments.updates)
                share = f"{rate / PUBLISHED:.2f} of what PureJaxRL publishes"
                print(
                    f"{name}, {count:,} environments, {seeds} seeds: compiled in"
                    f" {compilation:.1f} s, {rate:,.0f} steps/s, {share}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
