"""Estimators as public libraries compute them, called through the libraries' own code.

Each function gets what `logpi check` gives it and lets the library make its loss of it. Where a
library steps its own optimiser, the gradient by `log_prob` is read off and returned as weights.
None of this runs an environment.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from gymnasium import spaces


def weights(loss_gradient: Any) -> Any:
    """Minus ∂loss/∂log_prob as weights, whose mean over rows is the estimator."""
    return -loss_gradient * loss_gradient.numel()


def sb3_buffer(
    reward: Any,
    value: Any,
    last_value: Any,
    done: Any,
    log_prob: Any,
    discount: float,
    decay: float,
) -> Any:
    """Stable-Baselines3's own rollout buffer with its own advantages, in double precision."""
    from stable_baselines3.common.buffers import RolloutBuffer

    steps, envs = reward.shape
    space = spaces.Box(-1, 1, (1,))
    buffer = RolloutBuffer(
        steps, space, spaces.Discrete(3), gamma=discount, gae_lambda=decay, n_envs=envs
    )
    for name in ("rewards", "values", "advantages", "log_probs", "episode_starts"):
        setattr(buffer, name, np.zeros((steps, envs)))
    buffer.rewards[:] = reward.detach().numpy()
    buffer.values[:] = value.detach().numpy()
    buffer.log_probs[:] = log_prob.detach().numpy()
    buffer.episode_starts[1:] = done[:-1].double().numpy()
    buffer.full, buffer.pos = True, steps
    buffer.compute_returns_and_advantage(last_value.detach(), done[-1].numpy())
    return buffer


def sb3(kind: Any, buffer: Any, log_prob: Any, **settings: Any) -> Any:
    """Run the library's `train` on a policy that answers with the given log-probabilities; return
    the weights."""
    leaf = log_prob.detach().clone().requires_grad_()
    # the buffer hands out its rows env by env
    flat = leaf.T.reshape(-1)
    gradients: list[Any] = []
    optimizer = SimpleNamespace(
        zero_grad=lambda: None,
        step=lambda: gradients.append(leaf.grad.clone()),
        param_groups=[{"lr": 0.0}],
    )
    policy = SimpleNamespace(
        set_training_mode=lambda mode: None,
        optimizer=optimizer,
        parameters=lambda: [],
        evaluate_actions=lambda observation, action: (torch.zeros(len(flat)), flat, None),
    )
    buffer.get = lambda batch_size=None: iter([_rows(buffer)])
    runner = SimpleNamespace(
        policy=policy,
        rollout_buffer=buffer,
        action_space=spaces.Discrete(3),
        ent_coef=0.0,
        vf_coef=0.0,
        max_grad_norm=1e9,
        _update_learning_rate=lambda optimizer: None,
        _n_updates=0,
        logger=SimpleNamespace(record=lambda *a, **k: None),
        **settings,
    )
    kind.train(runner)
    return weights(gradients[0])


def _rows(buffer: Any) -> Any:
    def take(array):
        return torch.as_tensor(array.swapaxes(0, 1).reshape(-1))

    return SimpleNamespace(
        observations=None,
        actions=torch.zeros(buffer.rewards.size),
        advantages=take(buffer.advantages),
        returns=take(buffer.returns),
        old_log_prob=take(buffer.log_probs),
        old_values=take(buffer.values),
    )


def sb3_a2c(log_prob, reward, value, last_value, done, discount):
    """A2C with its defaults: λ = 1, no normalisation."""
    from stable_baselines3 import A2C

    buffer = sb3_buffer(reward, value, last_value, done, log_prob, discount, 1.0)
    return sb3(A2C, buffer, log_prob, normalize_advantage=False)


def sb3_ppo(log_prob, reward, value, last_value, done, discount):
    """PPO with its defaults, first epoch: λ = 0.95, advantages normalised over the minibatch, old
    policy = policy."""
    from stable_baselines3 import PPO

    buffer = sb3_buffer(reward, value, last_value, done, log_prob, discount, 0.95)
    settings = {
        "normalize_advantage": True,
        "clip_range": lambda progress: 0.2,
        "clip_range_vf": None,
        "_current_progress_remaining": 1.0,
        "n_epochs": 1,
        "batch_size": None,
        "target_kl": None,
    }
    return sb3(PPO, buffer, log_prob, **settings)


def torchrl_advantage(
    reward: Any,
    value: Any,
    next_value: Any,
    done: Any,
    terminated: Any,
    discount: float,
    decay: float,
):
    """TorchRL's own GAE, [env, time, 1]."""
    from torchrl.objectives.value.functional import generalized_advantage_estimate

    def turn(x):
        return x.detach().T.unsqueeze(-1).contiguous()

    advantage, target = generalized_advantage_estimate(
        discount, decay, turn(value), turn(next_value), turn(reward), turn(done), turn(terminated)
    )
    return advantage, target


def torchrl_loss(
    make: Any, logits: Any, action: Any, advantage: Any, target: Any, old_log_prob: Any
) -> Any:
    """A TorchRL loss module on an actor that answers with the given logits."""
    from tensordict import TensorDict
    from tensordict.nn import TensorDictModule
    from torchrl.modules import ProbabilisticActor, ValueOperator

    turned = logits.transpose(0, 1)

    class Given(torch.nn.Module):
        def forward(self, observation):
            return turned

    class Zero(torch.nn.Module):
        def forward(self, observation):
            return torch.zeros(*turned.shape[:2], 1)

    actor = ProbabilisticActor(
        TensorDictModule(Given(), in_keys=["observation"], out_keys=["logits"]),
        in_keys=["logits"],
        distribution_class=torch.distributions.Categorical,
    )
    critic = ValueOperator(Zero(), in_keys=["observation"])
    data = TensorDict(
        {
            "observation": torch.zeros(*turned.shape[:2], 1),
            "action": action.T,
            "advantage": advantage,
            "value_target": target,
            "action_log_prob": old_log_prob.detach().T,
            "sample_log_prob": old_log_prob.detach().T,
        },
        batch_size=turned.shape[:2],
    )
    out = make(actor, critic)(data)
    return out["loss_actor"] if "loss_actor" in set(out.keys()) else out["loss_objective"]


def torchrl_reinforce(
    logits, action, log_prob, reward, value, next_value, done, terminated, discount
):
    """ReinforceLoss with its default estimator: GAE, λ = 0.95."""
    from torchrl.objectives import ReinforceLoss

    found = torchrl_advantage(reward, value, next_value, done, terminated, discount, 0.95)

    def make(actor, critic):
        return ReinforceLoss(actor, critic, functional=False)

    return torchrl_loss(make, logits, action, *found, log_prob)


def torchrl_a2c(logits, action, log_prob, reward, value, next_value, done, terminated, discount):
    """A2CLoss with its default estimator: GAE, λ = 0.95; no entropy bonus."""
    from torchrl.objectives import A2CLoss

    found = torchrl_advantage(reward, value, next_value, done, terminated, discount, 0.95)

    def make(actor, critic):
        return A2CLoss(actor, critic, entropy_bonus=False, functional=False)

    return torchrl_loss(make, logits, action, *found, log_prob)


def torchrl_a2c_lambda_one(
    logits, action, log_prob, reward, value, next_value, done, terminated, discount
):
    """A2CLoss with λ = 1."""
    from torchrl.objectives import A2CLoss

    found = torchrl_advantage(reward, value, next_value, done, terminated, discount, 1.0)

    def make(actor, critic):
        return A2CLoss(actor, critic, entropy_bonus=False, functional=False)

    return torchrl_loss(make, logits, action, *found, log_prob)


def torchrl_clip_ppo(
    logits, action, log_prob, reward, value, next_value, done, terminated, discount
):
    """ClipPPOLoss with its defaults, first epoch: λ = 0.95, advantages as they are, old policy =
    policy."""
    from torchrl.objectives import ClipPPOLoss

    found = torchrl_advantage(reward, value, next_value, done, terminated, discount, 0.95)

    def make(actor, critic):
        return ClipPPOLoss(actor, critic, entropy_bonus=False, functional=False)

    return torchrl_loss(make, logits, action, *found, log_prob)
