"""Policy-gradient mistakes and deliberate biases as public code has them, for `logpi check`.

Sources and measured effects stand in docs/bugs.md, which is generated from this file. Try one:

    logpi check examples/bugs.py:whiten_per_episode
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass
class Bug:
    """One entry of the table: what is run, and the verdicts that are right for it."""

    name: str
    estimator: Callable[..., Any]
    verdicts: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)


BUGS: list[Bug] = []


def bug(
    name: str, *verdicts: str, **options: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(estimator: Callable[..., Any]) -> Callable[..., Any]:
        BUGS.append(Bug(name, estimator, verdicts or ("biased",), options))
        return estimator

    return register


def to_go(reward, discount):
    """R_t for [episodes, time] with zero rewards after the end."""
    returns, later = torch.zeros_like(reward), 0.0
    for t in reversed(range(reward.shape[1])):
        later = reward[:, t] + discount * later
        returns[:, t] = later
    return returns


def reinforce(log_prob, weight, mask):
    """Minus the sum over t, mean over episodes."""
    return -(weight * log_prob * mask).sum(1).mean()


# A. Credit assignment and discounting


@bug("gamma-t-missing", "biased", "other-target")
def gamma_t_missing(log_prob, reward, discount, mask):
    return reinforce(log_prob, to_go(reward, discount), mask)


@bug("gamma-t-twice")
def gamma_t_twice(log_prob, reward, discount, step, mask):
    return reinforce(log_prob, discount ** (2 * step) * to_go(reward, discount), mask)


@bug("gamma-t-twice")
def gamma_squared_in_the_return(log_prob, reward, discount, step, mask):
    return reinforce(log_prob, discount**step * to_go(reward, discount**2), mask)


@bug("whole-return", "exact", layout="episode")
def whole_return(log_prob, reward, discount):
    total = sum(discount**t * r for t, r in enumerate(reward))
    return -(log_prob * total).sum()


@bug("no-reward-sum", layout="episode")
def no_reward_sum(log_prob, reward, discount):
    loss = 0.0
    for t in range(len(reward)):
        loss = loss - discount**t * reward[t] * log_prob[t]
    return loss


@bug("returns-misordered", layout="episode")
def returns_misordered(log_prob, reward, discount):
    returns, later = [], 0.0
    for r in reward.flip(0):
        later = r + discount * later
        returns.append(later)  # never reversed
    return -(log_prob * torch.stack(returns)).sum()


@bug("reward-delayed", "scaled")
def reward_delayed(log_prob, reward, discount, step, mask):
    late = torch.cat([torch.zeros_like(reward[:, :1]), reward], 1)  # the slot of a_t holds r_t
    returns = to_go(late, discount)[:, :-1]
    return reinforce(log_prob, discount**step * returns, mask)


@bug("meanlogp-sumreturn", layout="episode")
def meanlogp_sumreturn(log_prob, reward, discount):
    returns, later = [], 0.0
    for r in reward.flip(0):
        later = r + discount * later
        returns.insert(0, later)
    return -log_prob.mean() * torch.stack(returns).sum()


@bug("per-episode-1/T", layout="episode")
def per_episode_mean(log_prob, reward, discount, step):
    returns = to_go(reward[None], discount)[0]
    return -(discount**step * returns * log_prob).mean()


@bug("mean-over-all-steps")
def mean_over_all_steps(log_prob, reward, discount, step, mask):
    weight = discount**step * to_go(reward, discount)
    return -(weight * log_prob)[mask].mean()


@bug("step-budget-stopping")
def step_budget_stopping(log_prob, reward, discount, step, mask, length):
    weight = discount**step * to_go(reward, discount)
    loss, steps, episodes = 0.0, 0, 0
    for i in range(len(length)):
        loss = loss - (weight[i] * log_prob[i] * mask[i]).sum()
        steps, episodes = steps + int(length[i]), episodes + 1
        if steps >= 3:
            break
    return loss / episodes


# B. Baselines, centring, whitening


@bug("whiten-per-episode", layout="episode")
def whiten_per_episode(log_prob, reward, discount):
    returns = to_go(reward[None], discount)[0]
    returns = (returns - returns.mean()) / (returns.std(correction=0) + 1e-8)
    return -(log_prob * returns).sum()


@bug("scale-not-centred", layout="episode")
def scale_not_centred(log_prob, reward, discount):
    returns = to_go(reward[None], discount)[0]
    return -(log_prob * returns / (returns.std(correction=0) + 1e-8)).sum()


@bug("whiten-batch")
def whiten_batch(log_prob, reward, discount, value, mask):
    advantage = (to_go(reward, discount) - value.detach())[mask]
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    return -(advantage * log_prob[mask]).mean()


@bug("whiten-running", "scaled")
def whiten_running(log_prob, reward, discount, step, mask):
    mean, deviation = 0.7, 1.9  # of earlier batches
    return reinforce(log_prob, discount**step * (to_go(reward, discount) - mean) / deviation, mask)


@bug("mean-advantage")
def mean_advantage(log_prob, reward, discount, step, value, mask):
    advantage = (to_go(reward, discount) - value.detach())[mask].mean()
    return -(advantage * (log_prob * mask).sum(1)).mean()


@bug("broadcast-NxN")
def broadcast(log_prob, reward, discount, mask):
    returns = to_go(reward, discount)[mask].unsqueeze(1)  # [steps, 1]
    return -(returns * log_prob[mask]).mean()  # [steps, steps]


@bug("own-sample-baseline", "scaled")
def own_sample_baseline(log_prob, reward, discount, step, mask):
    whole = (discount**step * reward).sum(1)
    return -((whole - whole.mean()) * (log_prob * mask).sum(1)).mean()


@bug("grpo-std", discount=1.0)
def grpo_std(log_prob, reward, group, mask):
    total = reward.sum(1)
    advantage = torch.zeros_like(total)
    for prompt in group.unique():
        own = group == prompt
        advantage[own] = (total[own] - total[own].mean()) / (total[own].std() + 1e-6)
    return -(advantage * (log_prob * mask).sum(1)).mean()


@bug("batch-fit-baseline")
def batch_fit_baseline(log_prob, reward, discount, step, observation, mask):
    returns = to_go(reward, discount)
    baseline = torch.zeros_like(returns)
    for state in observation[mask].unique():
        here = (observation == state) & mask
        baseline[here] = returns[here].mean()
    return reinforce(log_prob, discount**step * (returns - baseline), mask)


@bug("baseline-never-fit", "exact")
def baseline_never_fit(log_prob, reward, discount, step, mask):
    baseline = torch.zeros_like(reward)
    return reinforce(log_prob, discount**step * (to_go(reward, discount) - baseline), mask)


@bug("action-dep-baseline")
def action_dependent_baseline(log_prob, reward, discount, step, value, action, mask):
    baseline = value.detach() * (1 + 0.5 * action)  # b(s, a), without its correction
    return reinforce(log_prob, discount**step * (to_go(reward, discount) - baseline), mask)


# C. Episode ends, bootstrapping, auto-reset, collection


@bug("boot-through-terminal")
def boot_through_terminal(log_prob, reward, discount, step, last_value, value, length, mask):
    returns, later = torch.zeros_like(reward), last_value
    for t in reversed(range(reward.shape[1])):
        later = torch.where(mask[:, t], reward[:, t] + discount * later, later)
        returns[:, t] = later
    return reinforce(log_prob, discount**step * (returns - value).detach(), mask)


def generalised(reward, value, next_value, discount, decay, boot, cut):
    """Advantages of a rollout [time, env]."""
    advantage, later = torch.zeros_like(reward), 0.0
    for t in reversed(range(len(reward))):
        delta = reward[t] + discount * next_value[t] * boot[t] - value[t]
        later = delta + discount * decay * cut[t] * later
        advantage[t] = later
    return advantage.detach()


@bug("no-cut", layout="rollout", target="conventional")
def no_cut(log_prob, reward, discount, value, next_value, done):
    going_on = 1 - done
    advantage = generalised(
        reward, value, next_value, discount, 1.0, going_on, torch.ones_like(reward)
    )
    return -(advantage * log_prob).mean()


@bug("trunc-boundary-ignored", layout="rollout", target="conventional-continuing")
def truncation_boundary_ignored(log_prob, reward, discount, value, next_value, terminated):
    going_on = 1 - terminated
    advantage = generalised(reward, value, next_value, discount, 1.0, going_on, going_on)
    return -(advantage * log_prob).mean()


@bug("trunc-as-terminal", "other-target", target="continuing")
def truncation_as_termination(log_prob, reward, discount, step, value, mask):
    return reinforce(log_prob, discount**step * (to_go(reward, discount) - value.detach()), mask)


@bug("trunc-wrong-state", target="continuing")
def truncation_wrong_state(log_prob, reward, discount, step, value, truncated, mask):
    returns, later = torch.zeros_like(reward), torch.zeros_like(reward[:, 0])
    for t in reversed(range(reward.shape[1])):
        later = torch.where(truncated[:, t], value[:, t].detach(), later)  # V(s_{T-1}), not V(s_T)
        later = torch.where(mask[:, t], reward[:, t] + discount * later, later)
        returns[:, t] = later
    return reinforce(log_prob, discount**step * returns, mask)


@bug("overlong-filter")
def overlong_filter(log_prob, reward, discount, step, truncated, mask):
    kept = ~truncated.any(1, keepdim=True)
    return reinforce(log_prob, discount**step * to_go(reward, discount) * kept, mask)


@bug("gae-lambda")
def gae_lambda(log_prob, reward, discount, step, value, next_value, done, mask):
    transposed = [x.T for x in (reward * mask, value * mask, next_value)]
    going_on = (1 - done).T
    advantage = generalised(*transposed, discount, 0.95, going_on, going_on).T
    return reinforce(log_prob, discount**step * advantage, mask)


# D. The score


@bug("softmax-wrong-axis")
def softmax_wrong_axis(logits, action, reward, discount, step, mask):
    log_policy = torch.log_softmax(logits, dim=0)
    log_prob = log_policy.gather(2, action[:, :, None])[:, :, 0]
    return reinforce(log_prob, discount**step * to_go(reward, discount), mask)


def plain(log_prob, reward, discount, step, mask):
    """Right in itself; wrong with a sampler that draws from another law."""
    return reinforce(log_prob, discount**step * to_go(reward, discount), mask)


def executed_is_clipped(logits):
    """Action 2 is clipped to 1."""
    probability = torch.softmax(logits, -1)
    return torch.stack(
        [probability[:, 0], probability[:, 1] + probability[:, 2], torch.zeros(len(logits))], -1
    )


def masked(logits):
    """Action 1 is not allowed in every second state."""
    allowed = torch.ones_like(logits)
    allowed[::2, 1] = 0
    probability = torch.softmax(logits, -1) * allowed
    return probability / probability.sum(-1, keepdim=True)


def epsilon_greedy(logits):
    return 0.9 * torch.softmax(logits, -1) + 0.1 / logits.shape[-1]


def hot(logits):
    return torch.softmax(logits / 1.7, -1)


def old_policy(logits):
    return torch.softmax(torch.cos(3.0 * torch.arange(logits.numel())).reshape(logits.shape), -1)


def softmax_twice(logits):
    return torch.softmax(torch.softmax(logits, -1), -1)


BUGS += [
    Bug("logp-of-executed", plain, ("biased",), {"sampler": executed_is_clipped}),
    Bug("mask-missing", plain, ("biased",), {"sampler": masked}),
    Bug("eps-greedy", plain, ("biased",), {"sampler": epsilon_greedy}),
    Bug("temperature", plain, ("biased", "scaled"), {"sampler": hot}),
    Bug("stale-no-ratio", plain, ("biased",), {"sampler": old_policy}),
]


# Continuous actions


def density(mean, log_std, action):
    return torch.distributions.Normal(mean, log_std.exp()).log_prob(action)


@bug("logp-of-executed", actions="gaussian")
def executed_is_scored(mean, log_std, action, reward):
    return -(density(mean, log_std, action).sum(-1) * reward).mean()


@bug("logp-not-summed", actions="gaussian")
def mean_over_dimensions(mean, log_std, raw_action, reward):
    return -(density(mean, log_std, raw_action).mean(-1) * reward).mean()


@bug("tanh-logdet", actions="tanh-gaussian")
def ratio_without_log_determinant(mean, log_std, raw_action, reward, old_log_prob):
    ratio = (density(mean, log_std, raw_action).sum(-1) - old_log_prob).exp()
    return -(ratio * reward).mean()


@bug("rsample-in-score", actions="gaussian")
def action_has_a_gradient(mean, log_std, raw_action, reward):
    noise = ((raw_action - mean) / log_std.exp()).detach()
    reparametrised = mean + log_std.exp() * noise
    return -(density(mean, log_std, reparametrised).sum(-1) * reward).mean()


@bug("entropy-of-gaussian", actions="tanh-gaussian", target="entropy-regularised")
def entropy_before_tanh(log_prob, log_std, reward, entropy_coefficient=0.01):
    return -(log_prob * reward).mean() - entropy_coefficient * log_std.sum(-1).mean()


@bug("double-softmax")
def double_softmax(logits, action, reward, discount, step, mask):
    probability = torch.softmax(logits, -1)
    log_prob = torch.distributions.Categorical(logits=probability).log_prob(action)
    return reinforce(log_prob, discount**step * to_go(reward, discount), mask)


BUGS.append(
    Bug("double-softmax in the sampler too", double_softmax, ("exact",), {"sampler": softmax_twice})
)


@bug("logp-of-resampled", "zero")
def log_prob_of_another_action(logits, reward, discount, step, mask):
    fresh = torch.softmax(logits, -1).detach()  # the mean over a newly drawn action
    log_prob = (fresh * torch.log_softmax(logits, -1)).sum(-1)
    return reinforce(log_prob, discount**step * to_go(reward, discount), mask)


@bug("prob-floor")
def probability_floor(logits, action, reward, discount, step, mask):
    probability = torch.softmax(logits, -1).gather(2, action[:, :, None])[:, :, 0]
    return reinforce(
        torch.log(probability.clamp(min=1e-8)), discount**step * to_go(reward, discount), mask
    )


# E. Stop-gradients, signs, entropy, KL


@bug("value-leak")
def value_leak(log_prob, reward, discount, step, value, mask):
    return reinforce(log_prob, discount**step * (to_go(reward, discount) - value), mask)


@bug("policy-sign", "reversed")
def policy_sign(log_prob, reward, discount, step, mask):
    return -reinforce(log_prob, discount**step * to_go(reward, discount), mask)


@bug("entropy-sign", "reversed", target="entropy")
def entropy_sign(entropy, mask):
    return (entropy * mask).sum(1).mean()


@bug("entropy-sampled-nlp", "zero", target="entropy")
def entropy_of_sampled_actions(log_prob, mask):
    return -(-log_prob * mask).sum(1).mean()


@bug("entropy-no-grad", "other-target", target="entropy-bonus")
def entropy_without_gradient(log_prob, reward, discount, step, entropy, mask):
    bonus = (entropy.detach() * mask).sum(1).mean()
    return reinforce(log_prob, discount**step * to_go(reward, discount), mask) - 0.01 * bonus


@bug("kl-k1-loss", "zero", target="reverse-kl")
def k1_as_a_loss(log_prob, reference_log_prob, mask):
    return ((log_prob - reference_log_prob) * mask).sum(1).mean()


@bug("kl-k3-loss", "other-target", target="reverse-kl")
def k3_as_a_loss(log_prob, reference_log_prob, mask):
    log_ratio = reference_log_prob - log_prob
    return ((log_ratio.exp() - 1 - log_ratio) * mask).sum(1).mean()


@bug("kl-k3-reward", target="reverse-kl")
def k3_as_a_reward(log_prob, reference_log_prob, mask):
    log_ratio = (reference_log_prob - log_prob).detach()
    cost = (log_ratio.exp() - 1 - log_ratio) * mask
    return -reinforce(log_prob, to_go(cost, 1.0), mask)


@bug("kl-token-loss", "other-target", target="reverse-kl")
def k2_as_a_loss(log_prob, reference_log_prob, mask):
    return (0.5 * (log_prob - reference_log_prob) ** 2 * mask).sum(1).mean()


@bug("kl-coef-ignored", "other-target", target="reverse-kl")
def coefficient_ignored(
    log_prob, reference_log_prob, reward, discount, step, mask, kl_coefficient=0.1
):
    return reinforce(log_prob, discount**step * to_go(reward, discount), mask)


@bug("adv-through-critic-loss", "exact")
def critic_loss_through_the_advantage(
    log_prob, reward, discount, step, value, next_value, done, mask
):
    transposed = [x.T for x in (reward * mask, value * mask, next_value)]
    delta = transposed[0] + discount * transposed[2] * (1 - done).T - transposed[1]  # not detached
    critic = (delta.T**2 * mask).sum(1).mean()
    return (
        reinforce(log_prob, discount**step * (to_go(reward, discount) - value.detach()), mask)
        + critic
    )


# F. Off-policy and PPO


@bug("old-logp-recomputed")
def old_log_prob_recomputed(log_prob, old_log_prob, reward, discount, step, mask):
    ratio = torch.exp(log_prob - log_prob.detach())
    return reinforce(ratio, discount**step * to_go(reward, discount), mask)


@bug("per-step-ratio")
def per_step_ratio(log_prob, old_log_prob, reward, discount, step, value, mask):
    ratio = torch.exp(log_prob - old_log_prob)
    return reinforce(ratio, discount**step * (to_go(reward, discount) - value.detach()), mask)


@bug("gspo-ratio")
def gspo(log_prob, old_log_prob, reward, discount, step, mask, length):
    whole = (discount**step * reward).sum(1)
    ratio = torch.exp(((log_prob - old_log_prob) * mask).sum(1) / length)
    return -(ratio * whole).mean()


@bug("truncated-is")
def truncated_importance(log_prob, old_log_prob, reward, discount, step, mask):
    ratio = torch.exp((log_prob - old_log_prob) * mask).prod(1).detach().clamp(max=1.0)
    whole = (discount**step * reward).sum(1)
    return -(ratio * whole * (log_prob * mask).sum(1)).mean()


@bug("ppo-clip")
def ppo_clip(log_prob, old_log_prob, reward, discount, step, value, mask):
    advantage = discount**step * (to_go(reward, discount) - value.detach())
    ratio = torch.exp(log_prob - old_log_prob)
    surrogate = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
    return -(surrogate * mask).sum(1).mean()


@bug("clip-wrong")
def clip_before_the_advantage(log_prob, old_log_prob, reward, discount, step, mask):
    advantage = discount**step * to_go(reward, discount)
    ratio = torch.exp(log_prob - old_log_prob)
    return -(torch.minimum(ratio, ratio.clamp(0.8, 1.2)) * advantage * mask).sum(1).mean()


# G. Aggregation as for sequence models


@bug("grpo-1/len")
def grpo_per_sequence_mean(log_prob, reward, discount, step, mask, length):
    whole = (discount**step * reward).sum(1)
    return -(whole[:, None] * log_prob * mask / length[:, None]).sum(1).mean()


@bug("drgrpo-padded-len")
def padded_length(log_prob, reward, discount, step, mask):
    return -(discount**step * to_go(reward, discount) * log_prob * mask).mean()


@bug("microbatch-norm")
def microbatch_mean(log_prob, reward, discount, step, mask):
    weight, loss = discount**step * to_go(reward, discount), 0.0
    for i in range(len(reward)):  # one sequence to a micro-batch
        loss = loss - (weight[i] * log_prob[i] * mask[i]).sum() / mask[i].sum()
    return loss / len(reward)


@bug("drop-zero-variance")
def drop_groups_of_equal_reward(log_prob, reward, discount, step, group, mask):
    whole, loss, kept = (discount**step * reward).sum(1), 0.0, 0
    for prompt in group.unique():
        own = group == prompt
        if (whole[own] == whole[own][0]).all():
            continue
        advantage = (whole[own] - whole[own].mean()) * own.sum() / (own.sum() - 1)
        loss, kept = loss - (advantage * (log_prob * mask).sum(1)[own]).sum(), kept + own.sum()
    return loss / max(kept, 1) + 0 * log_prob.sum()


@bug("masked-token-leak")
def padding_in_the_mean(log_prob, reward, discount, step, mask):
    returns = to_go(reward, discount)
    return reinforce(log_prob, discount**step * (returns - returns.mean()), mask)


# H. Reward processing


@bug("normalize-reward")
def reward_by_its_own_deviation(log_prob, reward, discount, step, mask):
    scaled = reward / (reward[mask].std(correction=0) + 1e-8)
    return reinforce(log_prob, discount**step * to_go(scaled, discount), mask)


@bug("reward-clip")
def reward_sign(log_prob, reward, discount, step, mask):
    return reinforce(log_prob, discount**step * to_go(reward.sign(), discount), mask)
