"""Train with Stable-Baselines3 or SBX as the JSON argument says, and print what came of it as
JSON."""

import json
import sys
import time
from importlib import import_module

import torch
from second_half import rate
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack, VecNormalize

task = json.loads(sys.argv[1])
torch.set_num_threads(task.get("threads", 1))
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


def made(count: int, seed: int) -> VecEnv:
    """So many copies; of an Atari game with its usual wrappers and the last four images."""
    if task["environment"].startswith("ALE/"):
        import_module("ale_py")  # which registers the games
        # the wrappers repeat each action four times; the game itself would do so too
        images = make_atari_env(task["environment"], count, seed, env_kwargs={"frameskip": 1})
        return VecFrameStack(images, 4)
    return make_vec_env(task["environment"], count, seed=seed)


environments = made(task["environments"], task["seed"])
judge = made(1, task["seed"] + 1_000_000)
if task.get("normalize"):
    environments = VecNormalize(environments, gamma=options["gamma"])
    judge = VecNormalize(judge, training=False, norm_reward=False)
    judge.obs_rms = environments.obs_rms
policy = task.get("policy", "MlpPolicy")
model = algorithm(policy, environments, seed=task["seed"], device="cpu", **options)
model.learn(task["steps"], callback=Clock())
returns, _ = evaluate_policy(model, judge, task.get("evaluate", 20))
print(json.dumps({"rate": rate(clock, task["steps"]), "return": float(returns)}))
