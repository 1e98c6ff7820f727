"""Train with PureJaxRL's ppo.py on a gymnax environment as the JSON argument says; print steps a
second and the return of the episodes that ended in the last tenth of the updates."""

import json
import sys
import time
from pathlib import Path

import jax
import numpy as np

# It has no package: `compare.py` clones it into the peer's environment.
sys.path.insert(0, str(Path(sys.prefix) / "source" / "purejaxrl"))

from ppo import make_train

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

task = json.loads(sys.argv[1])
key = jax.random.PRNGKey(task["seed"])
train = jax.jit(make_train({**SETTINGS, **task["options"]})).lower(key).compile()
start = time.perf_counter()
metrics = jax.block_until_ready(train(key))["metrics"]
seconds = time.perf_counter() - start
updates = len(metrics["returned_episode"])
last = {name: np.asarray(values[-updates // 10 :]) for name, values in metrics.items()}
returns = last["returned_episode_returns"][last["returned_episode"]]
print(
    json.dumps(
        {"rate": task["options"]["TOTAL_TIMESTEPS"] / seconds, "return": float(returns.mean())}
    )
)
