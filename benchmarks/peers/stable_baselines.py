"""Train with Stable-Baselines3 or SBX as the JSON argument says, and print what came of it as JSON."""

import json
import sys
import time
from importlib import import_module

import gymnasium as gym
import torch
from second_half import rate
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

torch.set_num_threads(1)
task = json.loads(sys.argv[1])
clock: list[tuple[int, float]] = []


class Clock(BaseCallback):
    """Steps and seconds at the start of every rollout."""

    def _on_rollout_start(self) -> None:
        clock.append((self.num_timesteps, time.perf_counter()))

    def _on_step(self) -> bool:
        return True


options = task["options"]
for name in task.get("linear", []):
    options[name] = lambda left, start=options[name]: start * left
algorithm = getattr(import_module(task["library"]), task["algorithm"])
environments = make_vec_env(task["environment"], task["environments"], seed=task["seed"])
model = algorithm("MlpPolicy", environments, seed=task["seed"], device="cpu", **options)
model.learn(task["steps"], callback=Clock())
returns, _ = evaluate_policy(model, gym.make(task["environment"]), task.get("evaluate", 20))
print(json.dumps({"rate": rate(clock, task["steps"]), "return": float(returns)}))
