"""Published losses for language models, each in the ten lines that `logpi check` takes.

    logpi check examples/language_models.py:rloo --target undiscounted

An answer is an episode, a token an action, a prompt a start: `group` is its number. Rewards are
summed over the answer. Where there is a KL to a reference model, it is left out; the last two
functions are about it.
"""

import jax.numpy as jnp
from jax.lax import stop_gradient


def score_of(reward, mask):
    """R(τ) of each answer."""
    return (reward * mask).sum(1)


def over_group(x, group):
    """The mean over the answers to the same prompt."""
    same = group[:, None] == group[None, :]
    return same @ x / same.sum(1)


def standardised(score, group):
    """(R - mean) / deviation over the group, the deviation as PyTorch has it."""
    same = (group[:, None] == group[None, :]).sum(1)
    centred = score - over_group(score, group)
    variance = over_group(centred**2, group) * same / (same - 1)
    return centred / (jnp.sqrt(variance) + 1e-4)


def clipped(log_ratio, advantage, low, high):
    """min(ρ A, clip(ρ, 1 - low, 1 + high) A)."""
    ratio = jnp.exp(log_ratio)
    return jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - low, 1 + high) * advantage)


def rloo(log_prob, reward, mask, group):
    """RLOO (Ahmadian et al. 2024): the baseline of an answer is the mean of the others."""
    score = score_of(reward, mask)
    others = (group[:, None] == group[None, :]) & ~jnp.eye(len(score), dtype=bool)
    baseline = others @ score / jnp.maximum(others.sum(1), 1)
    return -jnp.mean((score - baseline) * (log_prob * mask).sum(1))


def grpo(log_prob, old_log_prob, reward, mask, group):
    """GRPO (Shao et al. 2024): scores over their deviation, the mean over each answer."""
    advantage = standardised(score_of(reward, mask), group)[:, None]
    gain = clipped(log_prob - old_log_prob, advantage, 0.2, 0.2)
    return -jnp.mean((gain * mask).sum(1) / mask.sum(1))


def dr_grpo(log_prob, old_log_prob, reward, mask, group):
    """Dr. GRPO (Liu et al. 2025): neither the deviation nor the length; a constant in its place."""
    score = score_of(reward, mask)
    advantage = (score - over_group(score, group))[:, None]
    gain = clipped(log_prob - old_log_prob, advantage, 0.2, 0.2)
    return -jnp.mean((gain * mask).sum(1))


def dapo(log_prob, old_log_prob, reward, mask, group):
    """DAPO (Yu et al. 2025): the mean over all tokens, a higher upper limit, and no groups whose
    answers are all alike."""
    score = score_of(reward, mask)
    differs = over_group(jnp.abs(score - over_group(score, group)), group) > 0
    kept = mask * differs[:, None]
    advantage = jnp.where(differs, standardised(score, group), 0.0)[:, None]
    gain = clipped(log_prob - old_log_prob, advantage, 0.2, 0.28)
    return -(gain * kept).sum() / jnp.maximum(kept.sum(), 1)


def gspo(log_prob, old_log_prob, reward, mask, group):
    """GSPO (Zheng et al. 2025): one ratio an answer, the geometric mean of those of its tokens."""
    advantage = standardised(score_of(reward, mask), group)
    log_ratio = ((log_prob - old_log_prob) * mask).sum(1) / mask.sum(1)
    return -jnp.mean(clipped(log_ratio, advantage, 3e-4, 4e-4))


def cispo(log_prob, old_log_prob, reward, mask, group):
    """CISPO (MiniMax 2025): the ratio is cut and is data, so that every token keeps a gradient."""
    advantage = standardised(score_of(reward, mask), group)[:, None]
    ratio = stop_gradient(jnp.minimum(jnp.exp(log_prob - old_log_prob), 2.0))
    return -(ratio * advantage * log_prob * mask).sum() / mask.sum()


def gpg(log_prob, reward, mask, group):
    """GPG (Chu et al. 2025): the plain policy gradient with the group's mean, over all tokens."""
    score = score_of(reward, mask)
    advantage = (score - over_group(score, group))[:, None]
    return -(advantage * log_prob * mask).sum() / mask.sum()


def opo(log_prob, reward, mask, group, length):
    """OPO (Hao et al. 2025): on-policy, with the baseline Σ length × R / Σ length of the group."""
    score = score_of(reward, mask)
    baseline = over_group(length * score, group) / over_group(1.0 * length, group)
    return -jnp.mean((score - baseline) * (log_prob * mask).sum(1))


def reinforce_plus_plus(log_prob, old_log_prob, reward, mask):
    """REINFORCE++ (Hu 2025): no group; scores are standardised over the whole batch."""
    score = score_of(reward, mask)
    deviation = jnp.sqrt(jnp.mean((score - jnp.mean(score)) ** 2))
    advantage = ((score - jnp.mean(score)) / (deviation + 1e-8))[:, None]
    gain = clipped(log_prob - old_log_prob, advantage, 0.2, 0.2)
    return -(gain * mask).sum() / mask.sum()


def ppo_with_critic(log_prob, old_log_prob, reward, mask, value):
    """PPO (Schulman et al. 2017) with a value for each token, γ = λ = 1."""
    to_go = jnp.flip(jnp.cumsum(jnp.flip(reward * mask, 1), 1), 1)
    advantage = to_go - stop_gradient(value)
    gain = clipped(log_prob - old_log_prob, advantage, 0.2, 0.2)
    return -(gain * mask).sum() / mask.sum()


def kl_in_the_reward(log_prob, reference_log_prob, reward, mask, group):
    """RLOO whose rewards contain -β log(π/π_ref), as data; β = 0.1."""
    penalty = stop_gradient(log_prob - reference_log_prob)
    return rloo(log_prob, reward - 0.1 * penalty, mask, group)


def k3_in_the_loss(log_prob, reference_log_prob, reward, mask, group):
    """RLOO plus β (π_ref/π - 1 - log(π_ref/π)) of each token, as GRPO has it; β = 0.1."""
    log_ratio = reference_log_prob - log_prob
    distance = (jnp.exp(log_ratio) - 1 - log_ratio) * mask
    return rloo(log_prob, reward, mask, group) + 0.1 * jnp.mean(distance.sum(1))
