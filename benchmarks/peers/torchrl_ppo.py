"""Train PPO with TorchRL as the JSON argument says, and print what came of it as JSON."""

import json
import sys
import time

import torch
from second_half import rate
from tensordict.nn import TensorDictModule
from torch import nn
from torch.distributions import Categorical
from torchrl.collectors import Collector
from torchrl.envs import ExplorationType, GymEnv, SerialEnv, set_exploration_type
from torchrl.modules import ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

torch.set_num_threads(1)
task = json.loads(sys.argv[1])
options, count = task["options"], task["environments"]
torch.manual_seed(task["seed"])


def make():
    return GymEnv(task["environment"], categorical_action_encoding=True)


environments = SerialEnv(count, make)
environments.set_seed(task["seed"])
size, actions = (
    environments.observation_spec["observation"].shape[-1],
    int(make().action_spec.space.n),
)


def body(outputs):
    return nn.Sequential(
        nn.Linear(size, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, outputs)
    )


actor = ProbabilisticActor(
    TensorDictModule(body(actions), in_keys=["observation"], out_keys=["logits"]),
    in_keys=["logits"],
    distribution_class=Categorical,
    return_log_prob=True,
)
critic = ValueOperator(body(1), in_keys=["observation"])
advantage = GAE(gamma=options["gamma"], lmbda=options["gae_lambda"], value_network=critic)
objective = ClipPPOLoss(
    actor,
    critic,
    clip_epsilon=options["clip_range"],
    entropy_bonus=False,
    normalize_advantage=True,
    loss_critic_type="l2",
)
optimizer = torch.optim.Adam(objective.parameters(), lr=options["learning_rate"])
rows = options["n_steps"] * count
updates = task["steps"] // rows
clock: list[tuple[int, float]] = []
collector = Collector(environments, actor, frames_per_batch=rows, total_frames=updates * rows)
for update, data in enumerate(collector):
    clock.append((update * rows, time.perf_counter()))
    left = 1 - update / updates
    optimizer.param_groups[0]["lr"] = options["learning_rate"] * left
    with torch.no_grad():
        advantage(data)
    flat = data.reshape(-1)
    for _ in range(options["n_epochs"]):
        for part in torch.randperm(rows).split(options["batch_size"]):
            losses = objective(flat[part])
            optimizer.zero_grad()
            (losses["loss_objective"] + losses["loss_critic"]).backward()
            nn.utils.clip_grad_norm_(objective.parameters(), 0.5)
            optimizer.step()
    collector.update_policy_weights_()
collector.shutdown()

judge, returns = make(), []
judge.set_seed(10_000 + task["seed"])
with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
    for _ in range(task.get("evaluate", 20)):
        returns.append(float(judge.rollout(1000, actor)["next", "reward"].sum()))
print(json.dumps({"rate": rate(clock, task["steps"]), "return": sum(returns) / len(returns)}))
