"""Train PPO or Reinforce with Tianshou as the JSON argument says, and print what came of it as
JSON."""

import json
import sys
import time

import gymnasium as gym
import numpy as np
import torch
from second_half import rate
from tianshou.algorithm import PPO, Reinforce
from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, CollectStats, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.trainer import OnPolicyTrainerParams
from tianshou.utils.net.common import Net
from tianshou.utils.net.discrete import DiscreteActor, DiscreteCritic

torch.set_num_threads(1)
task = json.loads(sys.argv[1])
options, count = task["options"], task["environments"]
np.random.seed(task["seed"])
torch.manual_seed(task["seed"])

environments = DummyVectorEnv([lambda: gym.make(task["environment"])] * count)
environments.seed(task["seed"])
example = gym.make(task["environment"])


def body():
    return Net(
        state_shape=example.observation_space.shape, hidden_sizes=[64, 64], activation=torch.nn.Tanh
    )


actor = DiscreteActor(
    preprocess_net=body(), action_shape=example.action_space.n, softmax_output=False
)
policy = DiscreteActorPolicy(
    actor=actor, action_space=example.action_space, deterministic_eval=True
)
adam = AdamOptimizerFactory(lr=options["learning_rate"])
if task["algorithm"] == "Reinforce":
    algorithm = Reinforce(policy=policy, optim=adam, gamma=options["gamma"])
    collect = {"collection_step_num_env_steps": None, "collection_step_num_episodes": count}
    buffer, batch, epochs = 500 * count, None, 1
else:
    algorithm = PPO(
        policy=policy,
        critic=DiscreteCritic(preprocess_net=body()),
        optim=adam,
        gamma=options["gamma"],
        gae_lambda=options["gae_lambda"],
        eps_clip=options["clip_range"],
        advantage_normalization=True,
        ent_coef=0.0,
        max_grad_norm=0.5,
    )
    buffer, batch, epochs = options["n_steps"] * count, options["batch_size"], options["n_epochs"]
    collect = {"collection_step_num_env_steps": buffer}
collector = Collector[CollectStats](algorithm, environments, VectorReplayBuffer(buffer, count))
clock: list[tuple[int, float]] = []
algorithm.run_training(
    OnPolicyTrainerParams(
        training_collector=collector,
        max_epochs=1,
        epoch_num_steps=task["steps"],
        batch_size=batch,
        update_step_num_repetitions=epochs,
        training_fn=lambda epoch, steps: clock.append((steps, time.perf_counter())),
        show_progress=False,
        verbose=False,
        **collect,
    )
)
judge = Collector[CollectStats](
    algorithm, DummyVectorEnv([lambda: gym.make(task["environment"])] * 10)
)
judge.reset()
found = judge.collect(n_episode=task.get("evaluate", 20))
print(json.dumps({"rate": rate(clock, task["steps"]), "return": float(found.returns.mean())}))
