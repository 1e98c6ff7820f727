"""Train with a file of PureJaxRL, ppo.py unless another is named, on a gymnax environment as the JSON
argument says; print steps a second and the return of the episodes that ended in the last tenth of
the updates."""

import json
import sys
import time
from importlib import import_module
from pathlib import Path

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np

# It has no package: `compare.py` clones it into the peer's environment.
sys.path.insert(0, str(Path(sys.prefix) / "source" / "purejaxrl"))

SETTINGS = {
    "LR": 2.5e-4,
    "UPDATE_EPOCHS": 4,
    "NUM_MINIBATCHES": 4,
    "GAMMA": 0.99,
    "GAE_LAMBDA": 0.95,
    "CLIP_EPS": 0.2,
    "ENT_COEF": 0.01,
    "VF_COEF": 0.5,
    "MAX_GRAD_NORM": 0.5,
    "ACTIVATION": "tanh",
    "ANNEAL_LR": True,
}

MEMORY_SIZE = 128


class GRUCell(flax.linen.GRUCell):
    """As ppo_rnn.py calls it: since flax 0.7 the cell has to be told its size."""

    features: int = MEMORY_SIZE

    @staticmethod
    def initialize_carry(key, batch, size):
        return jnp.zeros((*batch, size))


flax.linen.GRUCell = GRUCell
task = json.loads(sys.argv[1])
make_train = import_module(task.get("file", "ppo")).make_train
key = jax.random.PRNGKey(task["seed"])
train = jax.jit(make_train({**SETTINGS, **task["options"]})).lower(key).compile()
start = time.perf_counter()
found = jax.block_until_ready(train(key))
seconds = time.perf_counter() - start
metrics = found["metrics"] if "metrics" in found else found["metric"]  # as the file calls them
updates = len(metrics["returned_episode"])
last = {name: np.asarray(values[-updates // 10 :]) for name, values in metrics.items()}
returns = last["returned_episode_returns"][last["returned_episode"]]
print(
    json.dumps(
        {"rate": task["options"]["TOTAL_TIMESTEPS"] / seconds, "return": float(returns.mean())}
    )
)
