"""Train with rejax's PPO on a gymnax environment as the JSON argument says; print steps a second
and the return."""

import json
import sys
import time

import jax
import numpy as np
from rejax import PPO

task = json.loads(sys.argv[1])
algorithm = PPO.create(
    env=task["environment"],
    total_timesteps=task["steps"],
    eval_freq=task["steps"],
    agent_kwargs={"activation": "tanh", "hidden_layer_sizes": [64, 64]},
    **task["options"],
)
train = jax.jit(PPO.train).lower(algorithm, jax.random.PRNGKey(task["seed"])).compile()
start = time.perf_counter()
_, (_, returns) = jax.block_until_ready(train(algorithm, jax.random.PRNGKey(task["seed"])))
seconds = time.perf_counter() - start
print(json.dumps({"rate": task["steps"] / seconds, "return": float(np.mean(returns[-1]))}))
