"""CleanRL's PPO for discrete actions, by its published settings and in its structure; it has no
package to install.

Plain PyTorch in one file, as CleanRL is: a forward pass for each step of the copies, GAE, clipped
surrogate and clipped value loss, Adam annealed to 0. The copies are Gymnasium's `SyncVectorEnv`
(cleanrl/ppo.py; Huang et al. 2022), or EnvPool's for Atari (cleanrl/ppo_atari_envpool.py).
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

task = json.loads(sys.argv[1])
IS_ATARI = task.get("envpool", False)
COUNT, ROWS = task.get("environments", 4), task.get("rollout_steps", 128)
MINIBATCHES, EPOCHS = 4, task.get("epochs", 4)
LEARNING_RATE, DISCOUNT, TRACE_DECAY = 2.5e-4, 0.99, 0.95
CLIP = 0.1 if IS_ATARI else 0.2
ENTROPY, VALUE, MAX_GRADIENT = 0.01, 0.5, 0.5

torch.set_num_threads(task.get("threads", 1))
torch.manual_seed(task["seed"])
np.random.seed(task["seed"])


def initialised(layer, scale: float = 2**0.5):
    nn.init.orthogonal_(layer.weight, scale)
    nn.init.zeros_(layer.bias)
    return layer


def hidden_layers(inputs: int) -> list[nn.Module]:
    first, second = initialised(nn.Linear(inputs, 64)), initialised(nn.Linear(64, 64))
    return [first, nn.Tanh(), second, nn.Tanh()]


class Networks(nn.Module):
    """Logits and values, by two networks."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        head = initialised(nn.Linear(64, outputs), 0.01)
        self.actor = nn.Sequential(*hidden_layers(inputs), head)
        self.critic = nn.Sequential(*hidden_layers(inputs), initialised(nn.Linear(64, 1), 1.0))

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        return self.actor(observation), self.critic(observation).flatten()


class ImageNetwork(nn.Module):
    """Logits and values of four images in a row, by one trunk."""

    def __init__(self, outputs: int):
        super().__init__()
        self.trunk = nn.Sequential(
            initialised(nn.Conv2d(4, 32, 8, stride=4)),
            nn.ReLU(),
            initialised(nn.Conv2d(32, 64, 4, stride=2)),
            nn.ReLU(),
            initialised(nn.Conv2d(64, 64, 3)),
            nn.ReLU(),
            nn.Flatten(),
            initialised(nn.Linear(64 * 7 * 7, 512)),
            nn.ReLU(),
        )
        self.actor = initialised(nn.Linear(512, outputs), 0.01)
        self.critic = initialised(nn.Linear(512, 1), 1.0)

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.trunk(observation / 255.0)
        return self.actor(hidden), self.critic(hidden).flatten()


class Copies:
    """Environments side by side; the next step of one that is done begins its next episode."""

    def __init__(self, count: int, seed: int):
        if IS_ATARI:
            import envpool

            self.environments = envpool.make(
                task["environment"],
                env_type="gymnasium",
                num_envs=count,
                episodic_life=True,
                reward_clip=True,
                seed=seed,
            )
            self.space = self.environments.observation_space
            self.actions = int(self.environments.action_space.n)
            first, _ = self.environments.reset()
        else:
            self.environments = gym.vector.SyncVectorEnv([self.one] * count)
            self.space = self.environments.single_observation_space
            self.actions = int(self.environments.single_action_space.n)
            first, _ = self.environments.reset(seed=seed)
        self.first = torch.Tensor(first)

    def one(self):
        return gym.wrappers.RecordEpisodeStatistics(gym.make(task["environment"]))

    def step(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        new, reward, terminated, truncated, _ = self.environments.step(action.numpy())
        done = np.logical_or(terminated, truncated)
        return torch.Tensor(new), torch.Tensor(reward), torch.Tensor(done)


copies = Copies(COUNT, task["seed"])
if IS_ATARI:
    agent = ImageNetwork(copies.actions)
else:
    agent = Networks(copies.space.shape[0], copies.actions)
parameters = list(agent.parameters())
optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE, eps=1e-5)


def rollout(observation: Tensor, done: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """ROWS steps of each copy, with the advantages of the critic that saw them."""
    names = {
        "o": copies.space.shape,
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
            logits, data["value"][t] = agent(observation)
            law = Categorical(logits=logits)
            action = law.sample()
            data["a"][t], data["log_prob"][t] = action, law.log_prob(action)
        observation, data["reward"][t], done = copies.step(action)
    with torch.no_grad():
        following, unfinished, last = agent(observation)[1], 1 - done, torch.zeros(COUNT)
        for t in reversed(range(ROWS)):
            error = data["reward"][t] + DISCOUNT * following * unfinished - data["value"][t]
            data["advantage"][t] = last = error + DISCOUNT * TRACE_DECAY * unfinished * last
            following, unfinished = data["value"][t], 1 - data["done"][t]
    return observation, done, {name: x.flatten(0, 1) for name, x in data.items()}


def loss(data: dict[str, Tensor]) -> Tensor:
    logits, value = agent(data["o"])
    law = Categorical(logits=logits)
    ratio = (law.log_prob(data["a"]) - data["log_prob"]).exp()
    weight = (data["advantage"] - data["advantage"].mean()) / (data["advantage"].std() + 1e-8)
    surrogate = torch.min(ratio * weight, ratio.clamp(1 - CLIP, 1 + CLIP) * weight).mean()
    target = data["advantage"] + data["value"]
    clipped = data["value"] + (value - data["value"]).clamp(-CLIP, CLIP)
    error = 0.5 * torch.max((value - target) ** 2, (clipped - target) ** 2).mean()
    return VALUE * error - surrogate - ENTROPY * law.entropy().mean()


observation, done = copies.first, torch.zeros(COUNT)
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

judge = Copies(1, 10_000)
observation, total, returns = judge.first, 0.0, []
while len(returns) < task.get("evaluate", 20):
    with torch.no_grad():
        action = agent(observation)[0].argmax(1)
    observation, reward, over = judge.step(action)
    total += float(reward)
    if over:
        returns.append(total)
        total = 0.0
print(json.dumps({"rate": rate(clock, task["steps"]), "return": float(np.mean(returns))}))
