"""Estimators re-implemented from what public code and papers describe; the cited code itself is not
run."""

import torch


def to_go(reward, discount):
    returns, later = torch.zeros_like(reward), 0.0
    for t in reversed(range(len(reward))):
        later = reward[t] + discount * later
        returns[t] = later
    return returns


def pytorch_examples_reinforce(log_prob, reward, discount):
    """pytorch/examples, reinforce.py: one episode, returns whitened within it, no γ^t."""
    returns = to_go(reward, discount)
    returns = (returns - returns.mean()) / (
        returns.std(correction=0) + torch.finfo(torch.float32).eps
    )
    return -(log_prob * returns).sum()


def gymnasium_tutorial(log_prob, reward, discount):
    """Gymnasium's REINFORCE tutorial before #1336 was mended: mean of log-probabilities times sum
    of returns."""
    return -log_prob.mean() * to_go(reward, discount).sum()


def spinning_up_vpg(log_prob, reward, discount, value, next_value, done, mask):
    """Spinning Up, vpg.py: GAE with λ = 0.97, whitened over the batch, mean over its steps."""
    advantage, later = torch.zeros_like(reward), 0.0
    for t in reversed(range(reward.shape[1])):
        going_on = 1.0 - done[:, t]
        delta = reward[:, t] + discount * next_value[:, t] * going_on - value[:, t]
        later = (delta + discount * 0.97 * going_on * later) * mask[:, t]
        advantage[:, t] = later
    kept = advantage[mask].detach()
    kept = (kept - kept.mean()) / (kept.std(correction=0) + 1e-8)
    return -(kept * log_prob[mask]).mean()


def cleanrl_ppo(log_prob, reward, value, last_value, done, discount):
    """CleanRL, ppo.py, first epoch, one minibatch: GAE with λ = 0.95, advantages normalised."""
    advantage, later, after = torch.zeros_like(reward), 0.0, last_value
    for t in reversed(range(len(reward))):
        going_on = 1.0 - done[t]
        delta = reward[t] + discount * after * going_on - value[t]
        later = delta + discount * 0.95 * going_on * later
        advantage[t], after = later, value[t]
    advantage = advantage.detach().reshape(-1)
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    ratio = torch.exp(log_prob.reshape(-1) - log_prob.reshape(-1).detach())
    return torch.max(-advantage * ratio, -advantage * ratio.clamp(0.8, 1.2)).mean()


def tianshou_reinforce(log_prob, reward, discount, mask):
    """Tianshou, Reinforce without return standardisation: rewards to go, mean over the steps of the
    batch."""
    returns = torch.stack([to_go(row, discount) for row in reward])
    return -(log_prob[mask] * returns[mask]).mean()


def trl_rloo(log_prob, reward, group, mask):
    """TRL, RLOO: whole-sequence reward minus the mean of the group's other samples, sum of
    log-probabilities."""
    whole = reward.sum(1)
    advantage = torch.zeros_like(whole)
    for prompt in group.unique():
        own = group == prompt
        count = own.sum()
        advantage[own] = whole[own] - (whole[own].sum() - whole[own]) / (count - 1)
    return -(advantage * (log_prob * mask).sum(1)).mean()


def trl_grpo(log_prob, reward, group, mask):
    """TRL, GRPO as first published: group mean and deviation, mean over the tokens of each
    sequence."""
    whole = reward.sum(1)
    advantage = torch.zeros_like(whole)
    for prompt in group.unique():
        own = group == prompt
        advantage[own] = (whole[own] - whole[own].mean()) / (whole[own].std() + 1e-4)
    ratio = torch.exp(log_prob - log_prob.detach())
    return -((ratio * advantage[:, None] * mask).sum(1) / mask.sum(1)).mean()
