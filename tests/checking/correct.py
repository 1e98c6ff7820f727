"""Correct estimators in differently written forms: none of them may be called anything but
exact."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import torch

FORMS: list = []


def form(**options):
    def register(estimator):
        FORMS.append((estimator, options))
        return estimator

    return register


# NumPy: weights, and losses


@form()
def np_loop(log_prob, reward, discount):
    weight = np.zeros_like(reward)
    for i in range(reward.shape[0]):
        for t in range(reward.shape[1]):
            for k in range(t, reward.shape[1]):
                weight[i, t] += discount**k * reward[i, k]
    return weight


@form()
def np_reversed_cumulative_sum(reward, discount, step, mask, log_prob):
    power = discount**step * mask
    return np.cumsum((power * reward)[:, ::-1], axis=1)[:, ::-1]


@form()
def np_whole_return(reward, discount, step, log_prob):
    return np.broadcast_to(np.sum(discount**step * reward, axis=1, keepdims=True), log_prob.shape)


@form()
def np_scalar_loss(reward, discount, step, mask, log_prob):
    power = discount**step * mask
    to_go = np.cumsum((power * reward)[:, ::-1], axis=1)[:, ::-1]
    return -np.sum(to_go * log_prob * mask) / len(reward)


@form(layout="episode")
def plain_python(log_prob, reward, discount):
    loss, later = 0.0, 0.0
    for t in reversed(range(len(reward))):
        later = float(reward[t]) + discount * later
        loss -= discount**t * later * log_prob[t]
    return loss


@form()
def np_policy_object(policy, observation, action, reward, discount, step, mask):
    whole = np.sum(discount**step * reward, axis=1)
    return -np.mean(whole * np.sum(policy.log_prob(observation, action) * mask, axis=1))


@form()
def np_leave_one_out(reward, discount, step, mask, log_prob):
    whole = np.sum(discount**step * reward, axis=1)
    others = (whole.sum() - whole) / (len(whole) - 1)
    return np.broadcast_to((whole - others)[:, None], log_prob.shape)


@form(maximize=True)
def np_objective(reward, discount, step, mask, log_prob):
    whole = np.sum(discount**step * reward, axis=1)
    return float(np.mean(whole * np.sum(log_prob * mask, axis=1)))


# PyTorch


def torch_to_go(reward, discount):
    returns, later = [], torch.zeros(len(reward))
    for t in reversed(range(reward.shape[1])):
        later = reward[:, t] + discount * later
        returns.insert(0, later)
    return torch.stack(returns, 1)


@form()
def torch_reward_to_go(log_prob, reward, discount, step, mask):
    return -(discount**step * torch_to_go(reward, discount) * log_prob * mask).sum(1).mean()


@form(layout="episode")
def torch_episode(log_prob, reward, discount):
    returns, later = [], 0
    for r in reward.tolist()[::-1]:
        later = r + discount * later
        returns.insert(0, later)
    policy_loss = [-(discount**t) * log_prob[t] * g for t, g in enumerate(returns)]
    return torch.stack(policy_loss).sum()


@form()
def torch_flat(log_prob, reward, discount, step, mask, length):
    weight = (discount**step * torch_to_go(reward, discount))[mask]
    episodes = torch.repeat_interleave(torch.arange(len(length)), length)
    per_episode = torch.zeros(len(length)).index_add(0, episodes, weight * log_prob[mask])
    return -per_episode.mean()


@form()
def torch_state_baseline(log_prob, reward, discount, step, value, mask):
    advantage = torch_to_go(reward, discount) - value.detach()
    return -(discount**step * advantage * log_prob)[mask].sum() / len(reward)


@form()
def torch_own_baseline_of_the_state(log_prob, observation, reward, discount, step, mask):
    baseline = torch.sin(observation.double()) + 0.3 * observation
    return (
        -(discount**step * (torch_to_go(reward, discount) - baseline) * log_prob * mask)
        .sum(-1)
        .mean()
    )


@form()
def torch_gae_one(log_prob, reward, discount, step, value, next_value, done, mask):
    advantage, later = torch.zeros_like(reward), 0.0
    for t in reversed(range(reward.shape[1])):
        going_on = 1.0 - done[:, t]
        delta = reward[:, t] + discount * next_value[:, t] * going_on - value[:, t]
        later = (delta + discount * going_on * later) * mask[:, t]
        advantage[:, t] = later
    return -(discount**step * advantage.detach() * log_prob).sum(1).mean()


@form()
def torch_categorical(logits, action, reward, discount, step, mask):
    log_prob = torch.distributions.Categorical(logits=logits).log_prob(action)
    return -(discount**step * torch_to_go(reward, discount) * log_prob * mask).sum(1).mean()


@form()
def torch_policy_object(policy, observation, action, reward, discount, step, mask):
    log_prob = policy.log_prob(observation, action)
    return -(discount**step * torch_to_go(reward, discount) * log_prob * mask).sum(1).mean()


@form()
def torch_per_decision(log_prob, old_log_prob, reward, discount, mask, step):
    ratio = torch.exp(((log_prob - old_log_prob) * mask).cumsum(1))
    return -(discount**step * reward * ratio * mask).sum(1).mean()


@form()
def torch_whole_product(log_prob, old_log_prob, reward, discount, mask, step):
    ratio = torch.exp(((log_prob - old_log_prob) * mask).sum(1))
    return -(ratio * (discount**step * reward).sum(1)).mean()


@form()
def torch_weights(log_prob, old_log_prob, reward, discount, step, mask):
    ratio = torch.exp(((log_prob - old_log_prob) * mask).cumsum(1)).detach()
    return torch.flip(torch.cumsum(torch.flip(discount**step * reward * ratio, [1]), 1), [1])


@form()
def torch_rloo_by_group(log_prob, reward, discount, step, group, mask):
    whole, advantage = (discount**step * reward).sum(1), []
    for i in range(len(whole)):
        others = (group == group[i]) & (torch.arange(len(whole)) != i)
        advantage.append(whole[i] - whole[others].mean())
    return -(torch.stack(advantage) * (log_prob * mask).sum(1)).mean()


@form(layout="rollout", target="conventional")
def torch_a2c(log_prob, reward, discount, value, last_value, done):
    advantage, later, after = torch.zeros_like(reward), 0.0, last_value
    for t in reversed(range(len(reward))):
        delta = reward[t] + discount * after * (1 - done[t]) - value[t]
        later = delta + discount * (1 - done[t]) * later
        advantage[t], after = later, value[t]
    return -(advantage.detach() * log_prob).mean()


@form(layout="rollout", target="conventional-continuing")
def torch_a2c_through_truncation(log_prob, reward, discount, value, next_value, terminated, done):
    advantage, later = torch.zeros_like(reward), 0.0
    for t in reversed(range(len(reward))):
        delta = reward[t] + discount * next_value[t] * (1 - terminated[t]) - value[t]
        later = delta + discount * (1 - done[t]) * later
        advantage[t] = later
    return -(advantage.detach() * log_prob).mean()


@form(target="conventional")
def torch_without_power(log_prob, reward, discount, mask):
    return -(torch_to_go(reward, discount) * log_prob * mask).sum(1).mean()


@form(target="undiscounted")
def torch_undiscounted(log_prob, reward, mask):
    return -(torch_to_go(reward, 1.0) * log_prob * mask).sum(1).mean()


@form(target="continuing")
def torch_bootstrapped(log_prob, reward, discount, step, next_value, truncated, mask):
    paid = reward + discount * next_value.detach() * truncated
    return -(discount**step * torch_to_go(paid, discount) * log_prob * mask).sum(1).mean()


@form(target="reverse-kl")
def torch_k1_reward(log_prob, reference_log_prob, mask):
    cost = ((log_prob - reference_log_prob) * mask).detach()
    return (torch_to_go(cost, 1.0) * log_prob * mask).sum(1).mean()


@form(target="forward-kl-per-step")
def torch_k3(log_prob, reference_log_prob, mask):
    log_ratio = reference_log_prob - log_prob
    return ((log_ratio.exp() - log_ratio - 1) * mask).sum(1).mean()


@form(target="forward-kl")
def torch_forward_kl(log_prob, reference_log_prob, mask):
    ratio = (((reference_log_prob - log_prob) * mask).sum(1)).exp().detach()
    return -(ratio * (log_prob * mask).sum(1)).mean()


@form(target="entropy")
def torch_entropy(logits, mask):
    log_policy = torch.log_softmax(logits, -1)
    return ((log_policy.exp() * log_policy).sum(-1) * mask).sum(1).mean()


@form(target="entropy-bonus", entropy_coefficient=0.3)
def torch_entropy_bonus(log_prob, entropy, reward, discount, step, mask):
    gain = discount**step * torch_to_go(reward, discount) * log_prob + 0.3 * entropy
    return -(gain * mask).sum(1).mean()


@form(target="entropy-regularised", entropy_coefficient=0.3)
def torch_entropy_regularised(log_prob, entropy, reward, discount, step, mask):
    paid = reward + 0.3 * (entropy * mask).detach()
    gain = discount**step * (torch_to_go(paid, discount) * log_prob + 0.3 * entropy)
    return -(gain * mask).sum(1).mean()


@form(target="entropy-objective")
def torch_entropy_objective(log_prob, entropy, mask):
    gain = torch_to_go((entropy * mask).detach(), 1.0) * log_prob + entropy
    return -(gain * mask).sum(1).mean()


# JAX


@form()
def jax_scan(log_prob, reward, discount, step, mask):
    def back(later, now):
        later = now + discount * later
        return later, later

    to_go = jax.lax.scan(back, jnp.zeros(len(reward)), reward.T, reverse=True)[1].T
    return -jnp.mean(jnp.sum(jnp.where(mask, discount**step * to_go * log_prob, 0.0), axis=1))


@form()
def jax_weights(log_prob, reward, discount, step):
    discounted = discount**step * reward
    return jnp.flip(jnp.cumsum(jnp.flip(discounted, 1), axis=1), 1)


@form()
def jax_vmap(log_prob, reward, discount, mask):
    def one(log_prob, reward, mask):
        power = discount ** jnp.arange(len(reward))
        return jnp.sum(power * reward) * jnp.sum(log_prob * mask)

    return -jax.vmap(one)(log_prob, reward, mask).mean()


def jax_boolean_index(log_prob, reward, discount, step, mask):
    """JAX cannot compile it."""
    whole = jnp.sum(discount**step * reward, axis=1, keepdims=True) * jnp.ones_like(reward)
    return -jnp.sum(whole[mask] * log_prob[mask]) / len(reward)


@form(layout="episode")
def jax_episode(log_prob, reward, discount, value):
    power = discount ** jnp.arange(len(reward))
    to_go = jnp.cumsum((power * reward)[::-1])[::-1] / power
    return -jnp.sum(power * jax.lax.stop_gradient(to_go - value) * log_prob)


@form()
def jax_policy_object(policy, observation, action, reward, discount, step, mask):
    whole = jnp.sum(discount**step * reward, axis=1)
    return -jnp.mean(whole * jnp.sum(policy.log_prob(observation, action) * mask, axis=1))


@form()
def jax_magic_box(log_prob, reward, discount, step, mask):
    """DiCE (Foerster et al. 2018)."""
    total = jnp.cumsum(log_prob * mask, axis=1)
    box = jnp.exp(total - jax.lax.stop_gradient(total))
    return -jnp.mean(jnp.sum(discount**step * reward * box * mask, axis=1))


# As losses for language models are written


PLAIN = {"target": "undiscounted"}


def np_of_the_others(rewards, prompt_id):
    """Each reward less the mean of the others of its prompt; an answer alone keeps its own."""
    same = prompt_id[:, None] == prompt_id
    others = same.sum(1) - 1
    mean = (same @ rewards - rewards) / np.maximum(others, 1)
    return np.where(others > 0, rewards - mean, rewards)


def torch_of_the_others(rewards, prompt_id):
    """The same, prompt by prompt."""
    advantage = torch.empty_like(rewards)
    for prompt in prompt_id.unique():
        own = prompt_id == prompt
        scores = rewards[own]
        if len(scores) == 1:
            advantage[own] = scores
        else:
            advantage[own] = (scores - scores.mean()) * len(scores) / (len(scores) - 1)
    return advantage


@form(**PLAIN)
def np_rloo_of_libraries(per_token_logps, completion_mask, rewards, prompt_id):
    return np_of_the_others(rewards, prompt_id)[:, None] * completion_mask


@form(**PLAIN)
def torch_rloo_of_libraries(per_token_logps, completion_mask, rewards, prompt_id):
    advantage = torch_of_the_others(rewards, prompt_id)
    return -torch.einsum("nt,nt,n->", per_token_logps, completion_mask.double(), advantage) / len(
        rewards
    )


@form(**PLAIN)
def torch_by_prompt_in_lists(log_prob, reward, mask, group):
    scores: dict = {}
    for prompt, score in zip(group.tolist(), reward.sum(1).tolist(), strict=True):
        scores.setdefault(prompt, []).append(score)
    losses = []
    for i, prompt in enumerate(group.tolist()):
        own, score = scores[prompt], reward[i].sum()
        baseline = (sum(own) - score) / (len(own) - 1) if len(own) > 1 else 0.0
        losses.append(-(score - baseline) * log_prob[i][mask[i].bool()].sum())
    return sum(losses) / len(losses)


@form(**PLAIN)
def torch_baseline_of_the_prompt(log_prob, reward, mask, group):
    baseline = torch.tanh(group.double())
    return -((reward.sum(1) - baseline) * log_prob.masked_fill(mask == 0, 0.0).sum(1)).mean()


@form(**PLAIN)
def torch_ratio_to_itself(log_prob, reward, mask, group):
    advantage = torch_of_the_others(reward.sum(1), group)
    ratio = torch.exp(log_prob - log_prob.detach())
    return -(ratio * advantage[:, None] * mask).sum(1).mean()


@form(**PLAIN)
def torch_ratio_of_the_answer(old_per_token_logps, per_token_logps, response_mask, rewards):
    log_ratio = ((per_token_logps - old_per_token_logps) * response_mask).sum(-1)
    return -(log_ratio.exp() * rewards).mean()


@form(**PLAIN)
def torch_ratio_as_data(log_prob, old_log_prob, reward, mask, group):
    ratio = torch.exp(((log_prob - old_log_prob) * mask).sum(1)).detach()
    return -(ratio * (reward.sum(1) - 0.3 * group) * (log_prob * mask).sum(1)).mean()


@form(**PLAIN)
def torch_ratio_to_the_engine(log_prob, sampling_log_prob, reward, mask):
    ratio = torch.exp(torch.where(mask > 0, log_prob - sampling_log_prob, 0.0).sum(1))
    return -(ratio * reward.sum(1)).mean()


@form(**PLAIN)
def torch_two_ratios(log_prob, old_log_prob, sampling_log_prob, reward, mask):
    ratio = torch.exp(((log_prob - old_log_prob) * mask).sum(1))
    correction = torch.exp(((old_log_prob - sampling_log_prob) * mask).sum(1))
    return -(correction * ratio * reward.sum(1)).mean()


@form(advantage=np_of_the_others, **PLAIN)
def torch_advantages_from_before(per_token_logps, completion_mask, advantages):
    return -(advantages[:, None] * per_token_logps * completion_mask).sum(1).mean()


@form(micro_batches=2, **PLAIN)
def torch_micro_batches_of_sums(log_prob, reward, mask, discount):
    return -((log_prob * mask).sum(1) * reward.sum(1)).sum() / len(reward)


@form(target="regularised")
def np_kl_in_the_rewards(log_prob, reference_log_prob, reward, mask, group):
    paid = (reward - 0.1 * (log_prob - reference_log_prob)) * mask
    return np_of_the_others(paid.sum(1), group)[:, None] * mask


@form(target="regularised", kl_coefficient=0.3)
def torch_kl_to_go(log_prob, reference_log_prob, reward, mask):
    paid = (reward - 0.3 * (log_prob - reference_log_prob)).detach() * mask
    return -(torch_to_go(paid, 1.0) * log_prob * mask).sum(1).mean()


@form(target="regularised-per-step")
def torch_kl_of_each_step(log_prob, reference_log_prob, reward, mask, group):
    advantage = torch_of_the_others(reward.sum(1), group)[:, None]
    squared = 0.5 * (log_prob - reference_log_prob) ** 2
    return -((advantage * log_prob - 0.1 * squared) * mask).sum(1).mean()


def paid_for_brevity(reward, mask, length):
    return (reward * mask).sum(1) - 0.1 * length


@form(objective=paid_for_brevity)
def np_length_is_paid(log_prob, reward, mask, length, group):
    return np_of_the_others(reward.sum(1) - 0.1 * length, group)[:, None] * mask


@form(target="best-of-k")
def np_best_of_the_group(log_prob, reward, mask, group):
    score = (reward * mask).sum(1)
    best = np.array([score[group == each].max() for each in group])
    return (best * (group[:, None] == group).sum(1))[:, None] * mask


# Written in other ways


class Loss(torch.nn.Module):
    """A module with a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("baseline", torch.tensor(0.3))

    def forward(self, log_prob, reward, mask):
        return -((reward.sum(1) - self.baseline) * (log_prob * mask).sum(1)).mean()


class Weights:
    """An object that is called."""

    def __call__(self, log_prob, reward, mask):
        return reward.sum(1, keepdims=True) * mask


def shifted(log_prob, reward, mask, baseline):
    return (reward.sum(1, keepdims=True) - baseline) * mask


for _made in (Loss(), Weights(), partial(shifted, baseline=0.7)):
    form(**PLAIN)(_made)


@form()
def torch_magic_box(log_prob, reward, discount, step, mask):
    total = torch.cumsum(log_prob * mask, 1)
    box = torch.exp(total - total.detach())
    return -(discount**step * reward * box * mask).sum(1).mean()


@form()
def jax_associative_scan(log_prob, reward, discount, step, mask):
    paid = discount**step * reward
    to_go = jax.lax.associative_scan(jnp.add, paid, reverse=True, axis=1)
    return -jnp.einsum("nt,nt,nt->", to_go, log_prob, mask) / len(reward)


@form(layout="rollout", target="conventional-continuing")
def np_streams(log_prob, reward, discount, value, next_value, terminated, done):
    advantage = np.zeros_like(reward)
    later = np.zeros(reward.shape[1:])
    for t in reversed(range(len(reward))):
        delta = reward[t] + discount * next_value[t] * (1.0 - terminated[t]) - value[t]
        later = delta + discount * (1.0 - done[t]) * later
        advantage[t] = later
    return advantage
