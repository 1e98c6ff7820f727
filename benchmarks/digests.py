"""Digests of short runs: two versions of the code that give the same line trained the same
parameters, bit for bit.

    python benchmarks/digests.py > before.txt     # one version
    python benchmarks/digests.py > after.txt      # the other, on the same machine
    diff before.txt after.txt

A digest is of every array in the last checkpoint and of every number in metrics.csv that is no
time. It depends on the processor, whose products of matrices have their own last bits, so it is no
constant that a test could hold.
"""

import argparse
import csv
import hashlib
import tempfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

import logpi
from logpi import A2C, NPG, PPO, TRPO, Reinforce


class Image(gym.Env):
    """A bright square on the left or on the right, which is the right action; three choices of
    steps of 5."""

    observation_space = gym.spaces.Box(0, 255, (6, 6, 1), np.uint8)
    action_space = gym.spaces.MultiDiscrete([2, 3])

    def _look(self):
        self.side = int(self.np_random.integers(2))
        image = np.zeros((6, 6, 1), np.uint8)
        image[self.np_random.integers(6), 3 * self.side + self.np_random.integers(3)] = 255
        return image

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._look(), {}

    def step(self, action):
        self.t += 1
        reward = float(action[0] == self.side)
        return self._look(), reward, self.t == 5, False, {}


CORRIDOR = "finite:short-corridor"
OWN = """
import equinox as eqx
import jax.numpy as jnp

def net(features, outputs, key):
    return eqx.nn.MLP(features, outputs, 8, 1, key=key)

def loss(log_prob, reward, mask, value):
    later = jnp.flip(jnp.cumsum(jnp.flip(reward, 1), axis=1), 1)
    return -jnp.mean(jnp.sum(jnp.where(mask, (later - value) * log_prob, 0.0), axis=1))
"""
SMALL: dict[str, Any] = dict(hidden=(16,), environments=4, rollout_steps=64)
FITTED: dict[str, Any] = dict(SMALL, value_minibatches=4)


def runs(folder: Path):
    """(name, environment, algorithm, steps) of every run."""
    (folder / "own.py").write_text(OWN)
    own = folder / "own.py"
    for kind, place in (("host", "CartPole-v1"), ("compiled", CORRIDOR)):
        yield f"{kind} reinforce", place, Reinforce(episodes=8), 3000
        yield (
            f"{kind} reinforce none whole",
            place,
            Reinforce(episodes=8, baseline="none", returns="whole"),
            1500,
        )
        yield (
            f"{kind} reinforce whiten",
            place,
            Reinforce(episodes=8, baseline="leave-one-out", whiten=True),
            1500,
        )
        yield (
            f"{kind} reinforce gru",
            place,
            Reinforce(episodes=8, memory="gru", memory_size=8),
            1500,
        )
        yield f"{kind} reinforce own", place, Reinforce(episodes=8, estimator=f"{own}:loss"), 1500
        yield f"{kind} a2c", place, A2C(**SMALL, entropy_coefficient=0.01), 2000
        yield f"{kind} a2c twice", place, A2C(**SMALL, epochs=2, shared_trunk=True), 2000
        yield f"{kind} ppo", place, PPO(**SMALL, minibatches=4), 2000
        varied: dict[str, Any] = dict(minibatches=4, value_clip=0.2, kl_stop=0.01, whiten=True)
        varied["anneal"] = ("learning_rate", "clip=0.1")
        yield f"{kind} ppo varied", place, PPO(**SMALL, **varied), 2000
        yield (
            f"{kind} ppo lstm",
            place,
            PPO(**SMALL, minibatches=4, memory="lstm", memory_size=8),
            2000,
        )
        yield f"{kind} npg", place, NPG(**FITTED, entropy_coefficient=0.01), 2000
        yield f"{kind} trpo", place, TRPO(**FITTED, normalize_returns=False), 2000
        yield f"{kind} trpo gru", place, TRPO(**FITTED, memory="gru", memory_size=8), 2000
    yield "host own network", "CartPole-v1", Reinforce(episodes=8, network=f"{own}:net"), 1500
    yield "host box", "Pendulum-v1", PPO(**SMALL, minibatches=4, actions="tanh-normal"), 2000
    yield "host box reinforce", "Pendulum-v1", Reinforce(episodes=4), 3000
    yield "host image", Image, PPO(**SMALL, minibatches=4), 2000
    near: dict[str, Any] = dict(reference=str(folder / "host-ppo"), reference_coefficient=0.1)
    yield "host near", "CartPole-v1", PPO(**SMALL, minibatches=4, **near), 2000


def digest(folder: Path) -> str:
    """Of the arrays of the last checkpoint, whatever their names, and of the numbers of
    metrics.csv."""
    newest = max((folder / "checkpoints").glob("step_*.npz"))
    with np.load(newest) as arrays:
        found = [arrays[name] for name in arrays.files if name != "counters"]
    parts = sorted(hashlib.sha256(array.tobytes()).hexdigest() for array in found if array.size)
    with open(folder / "metrics.csv", newline="") as file:
        for row in csv.DictReader(file):
            parts += [f"{name}={value}" for name, value in row.items() if name not in TIMES]
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]


TIMES = ("time/time_elapsed", "time/fps")


def main() -> None:
    """Train, and print a line a run."""
    parser = argparse.ArgumentParser(description="Digests of short runs.")
    parser.add_argument("--only", default="", help="runs whose name holds this")
    only = parser.parse_args().only
    with tempfile.TemporaryDirectory() as place:
        for name, environment, algorithm, steps in runs(Path(place)):
            if only in name or name == "host ppo":
                out = Path(place) / name.replace(" ", "-")
                run = logpi.train(
                    environment, algorithm, steps=steps, seed=5, out=out, workers=None
                )
                print(f"{name:24} {digest(out)} {run.evaluation.mean:.6g}", flush=True)


if __name__ == "__main__":
    main()
