"""Train PPO with Tianshou as the JSON argument says, and print what came of it as JSON."""

import json
import sys
import time

import gymnasium as gym
import numpy as np
import torch
from second_half import rate
from tianshou.algorithm import PPO
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
body = lambda: Net(state_shape=example.observation_space.shape, hidden_sizes=[64, 64], activation=torch.nn.Tanh)
actor = DiscreteActor(preprocess_net=body(), action_shape=example.action_space.n, softmax_output=False)
policy = DiscreteActorPolicy(actor=actor, action_space=example.action_space, deterministic_eval=True)
algorithm = PPO(
    policy=policy,
    critic=DiscreteCritic(preprocess_net=body()),
    optim=AdamOptimizerFactory(lr=options["learning_rate"]),
    gamma=options["gamma"],
    gae_lambda=options["gae_lambda"],
    eps_clip=options["clip_range"],
    advantage_normalization=True,
    ent_coef=0.0,
    max_grad_norm=0.5,
)
rows = options["n_steps"] * count
collector = Collector[CollectStats](algorithm, environments, VectorReplayBuffer(rows, count))
clock: list[tuple[int, float]] = []
algorithm.run_training(
    OnPolicyTrainerParams(
        training_collector=collector,
        max_epochs=1,
        epoch_num_steps=task["steps"],
        collection_step_num_env_steps=rows,
        batch_size=options["batch_size"],
        update_step_num_repetitions=options["n_epochs"],
        training_fn=lambda epoch, steps: clock.append((steps, time.perf_counter())),
        show_progress=False,
        verbose=False,
    )
)
judge = Collector[CollectStats](algorithm, DummyVectorEnv([lambda: gym.make(task["environment"])] * 10))
judge.reset()
found = judge.collect(n_episode=task.get("evaluate", 20))
print(json.dumps({"rate": rate(clock, task["steps"]), "return": float(found.returns.mean())}))
