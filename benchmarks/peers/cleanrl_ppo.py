"""CleanRL's PPO for discrete actions, by its published settings and in its structure; it has no
package to install.

Plain PyTorch in one file, as CleanRL is: `gym.vector.SyncVectorEnv`, a forward pass for each step
of the copies, GAE, clipped surrogate and clipped value loss, Adam annealed to 0 (cleanrl/ppo.py;
Huang et al. 2022).
"""

import json
import sys
import time

import gymnasium as gym
import numpy as np
import torch
from second_half import rate
from torch import Tensor, nn
from torch.distributions import Categorical

COUNT, ROWS, MINIBATCHES, EPOCHS = 4, 128, 4, 4
LEARNING_RATE, DISCOUNT, TRACE_DECAY, CLIP = 2.5e-4, 0.99, 0.95, 0.2
ENTROPY, VALUE, MAX_GRADIENT = 0.01, 0.5, 0.5

torch.set_num_threads(1)
task = json.loads(sys.argv[1])
torch.manual_seed(task["seed"])
np.random.seed(task["seed"])


def layer(inputs: int, outputs: int, scale: float = 2**0.5) -> nn.Linear:
    linear = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(linear.weight, scale)
    nn.init.zeros_(linear.bias)
    return linear


def network(inputs: int, outputs: int, scale: float) -> nn.Sequential:
    return nn.Sequential(
        layer(inputs, 64), nn.Tanh(), layer(64, 64), nn.Tanh(), layer(64, outputs, scale)
    )


def make():
    return gym.wrappers.RecordEpisodeStatistics(gym.make(task["environment"]))


environments = gym.vector.SyncVectorEnv([make] * COUNT)
size, actions = (
    environments.single_observation_space.shape[0],
    int(environments.single_action_space.n),
)
actor, critic = network(size, actions, 0.01), network(size, 1, 1.0)
parameters = [*actor.parameters(), *critic.parameters()]
optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE, eps=1e-5)


def rollout(observation: Tensor, done: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """ROWS steps of each copy, with the advantages of the critic that saw them."""
    names = {
        "o": (size,),
        "a": (),
        "log_prob": (),
        "reward": (),
        "done": (),
        "value": (),
        "advantage": (),
    }
    data = {name: torch.zeros(ROWS, COUNT, *shape) for name, shape in names.items()}
    for t in range(ROWS):
        data["o"][t], data["done"][t] = observation, done
        with torch.no_grad():
            law = Categorical(logits=actor(observation))
            action = law.sample()
            data["value"][t] = critic(observation).flatten()
            data["a"][t], data["log_prob"][t] = action, law.log_prob(action)
        new, reward, terminated, truncated, _ = environments.step(action.numpy())
        data["reward"][t] = torch.tensor(reward)
        observation, done = torch.Tensor(new), torch.Tensor(np.logical_or(terminated, truncated))
    with torch.no_grad():
        following, unfinished, last = critic(observation).flatten(), 1 - done, torch.zeros(COUNT)
        for t in reversed(range(ROWS)):
            error = data["reward"][t] + DISCOUNT * following * unfinished - data["value"][t]
            data["advantage"][t] = last = error + DISCOUNT * TRACE_DECAY * unfinished * last
            following, unfinished = data["value"][t], 1 - data["done"][t]
    return observation, done, {name: x.flatten(0, 1) for name, x in data.items()}


def loss(data: dict[str, Tensor]) -> Tensor:
    law = Categorical(logits=actor(data["o"]))
    ratio = (law.log_prob(data["a"]) - data["log_prob"]).exp()
    weight = (data["advantage"] - data["advantage"].mean()) / (data["advantage"].std() + 1e-8)
    surrogate = torch.min(ratio * weight, ratio.clamp(1 - CLIP, 1 + CLIP) * weight).mean()
    value, target = critic(data["o"]).flatten(), data["advantage"] + data["value"]
    clipped = data["value"] + (value - data["value"]).clamp(-CLIP, CLIP)
    error = 0.5 * torch.max((value - target) ** 2, (clipped - target) ** 2).mean()
    return VALUE * error - surrogate - ENTROPY * law.entropy().mean()


observation, done = torch.Tensor(environments.reset(seed=task["seed"])[0]), torch.zeros(COUNT)
batch = COUNT * ROWS
updates = task["steps"] // batch
clock: list[tuple[int, float]] = []
for update in range(updates):
    clock.append((update * batch, time.perf_counter()))
    optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1 - update / updates)
    observation, done, data = rollout(observation, done)
    for _ in range(EPOCHS):
        for part in np.random.permutation(batch).reshape(MINIBATCHES, -1):
            optimizer.zero_grad()
            loss({name: x[part] for name, x in data.items()}).backward()
            nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT)
            optimizer.step()

judge, returns = gym.make(task["environment"]), []
for episode in range(task.get("evaluate", 20)):
    (o, _), total, over = judge.reset(seed=10_000 + episode), 0.0, False
    while not over:
        with torch.no_grad():
            action = int(actor(torch.Tensor(o)).argmax())
        o, reward, terminated, truncated, _ = judge.step(action)
        total, over = total + float(reward), terminated or truncated
    returns.append(total)
print(json.dumps({"rate": rate(clock, task["steps"]), "return": float(np.mean(returns))}))
