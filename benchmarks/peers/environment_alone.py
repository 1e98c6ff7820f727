"""Episodes of an environment with random actions, from a seed each, in one process: what is left of
its steps a second by whoever trains on it is their own cost."""

import json
import sys
import time

import gymnasium as gym

task = json.loads(sys.argv[1])
environment = gym.make(task["environment"])
environment.action_space.seed(task["seed"])
steps = 0
paid = 0.0
episodes = 0
start = time.perf_counter()
while steps < task["steps"]:
    environment.reset(seed=task["seed"] + episodes)
    over = False
    while not over:
        _, reward, terminated, truncated, _ = environment.step(environment.action_space.sample())
        paid += float(reward)
        over = terminated or truncated
        steps += 1
    episodes += 1
seconds = time.perf_counter() - start
print(json.dumps({"rate": steps / seconds, "return": paid / episodes}))
