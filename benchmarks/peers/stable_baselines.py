"""Train with Stable-Baselines3 or SBX as the JSON argument says, and print what came of it as
JSON."""

import json
import sys
import time
from importlib import import_module

import torch
from second_half import rate
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecNormalize

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
if "activation" in task:
    options["policy_kwargs"] = {
        **options.get("policy_kwargs", {}),
        "activation_fn": getattr(torch.nn, task["activation"]),
    }
environments = make_vec_env(task["environment"], task["environments"], seed=task["seed"])
judge = make_vec_env(task["environment"], 1, seed=task["seed"] + 1_000_000)
if task.get("normalize"):
    environments = VecNormalize(environments, gamma=options["gamma"])
    judge = VecNormalize(judge, training=False, norm_reward=False)
    judge.obs_rms = environments.obs_rms
model = algorithm("MlpPolicy", environments, seed=task["seed"], device="cpu", **options)
model.learn(task["steps"], callback=Clock())
returns, _ = evaluate_policy(model, judge, task.get("evaluate", 20))
print(json.dumps({"rate": rate(clock, task["steps"]), "return": float(returns)}))
