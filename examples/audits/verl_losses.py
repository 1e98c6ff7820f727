"""verl's own functions, `verl.trainer.ppo.core_algos`: every advantage estimator that it registers
for whole answers, every policy loss, every aggregation."""

import inspect

import torch
from omegaconf import OmegaConf
from verl.trainer.config import AlgoConfig
from verl.trainer.ppo import core_algos
from verl.workers.config import ActorConfig

SUM = "seq-mean-token-sum"
ALGORITHM = AlgoConfig(gamma=1.0, lam=1.0)
WITHOUT_DEVIATION = AlgoConfig(gamma=1.0, lam=1.0, norm_adv_by_std_in_grpo=False)
# Those that need several turns, several rewards, or entropies that the check does not give.
LEFT_OUT = {"gdpo", "optimal_token_baseline", "tir_optimal_token_baseline"}
ADVANTAGES = sorted(set(core_algos.ADV_ESTIMATOR_REGISTRY) - LEFT_OUT)
LOSSES = sorted(set(core_algos.POLICY_LOSS_REGISTRY) - {"bypass_mode"})
AGGREGATIONS = ("token-mean", "token-sum", SUM, SUM + "-norm", "seq-mean-token-mean")


def configuration():
    """The defaults of the actor; the policy losses that need a setting of their own get it."""
    return ActorConfig(
        strategy="fsdp",
        rollout_n=4,
        ppo_micro_batch_size_per_gpu=1,
        policy_loss=OmegaConf.create(
            {
                "clip_cov_ratio": 0.0002,
                "clip_cov_lb": 1.0,
                "clip_cov_ub": 5.0,
                "kl_cov_ratio": 0.0002,
                "ppo_kl_coef": 0.1,
                "dro_beta": 0.1,
            }
        ),
    )


def advantage(name, config=ALGORITHM):
    """One of the registered estimators; ReMax's baseline is a constant, the critic of GAE is
    wrong on purpose."""
    estimate = core_algos.get_adv_estimator_fn(name)

    def of_critic(reward, value, mask):
        return estimate(reward, value, mask.double(), gamma=1.0, lam=1.0)[0]

    def of_greedy_answer(reward, mask):
        baseline = 0.3 * reward.new_ones(len(reward))
        return estimate(reward, baseline, mask.double(), config=config)[0]

    def of_batch(reward, mask):
        return estimate(reward, mask.double(), config=config)[0]

    def of_group(reward, mask, group):
        given = {"index": group.numpy(), "config": config}
        if "norm_adv_by_std_in_grpo" in inspect.signature(estimate).parameters:
            given["norm_adv_by_std_in_grpo"] = config.norm_adv_by_std_in_grpo
        return estimate(reward, mask.double(), **given)[0]

    kinds = {"gae": of_critic, "remax": of_greedy_answer, "reinforce_plus_plus": of_batch}
    return kinds.get(name, of_group)


def loss(name="vanilla", aggregation=SUM, later=True):
    """One of the registered losses; on the first step after sampling unless `later`.

    clip_cov draws at random which tokens it leaves out: with one seed it is a function.
    """
    policy_loss = core_algos.get_policy_loss_fn(name)
    config = configuration()

    def of(old_log_prob, log_prob, advantages, mask):
        torch.manual_seed(0)
        found = policy_loss(old_log_prob, log_prob, advantages, mask.double(), aggregation, config)
        return found[0]

    return of if later else on_the_first_step(of)


def on_the_first_step(loss):
    """The loss where the old policy is the policy."""

    def first(log_prob, advantages, mask):
        return loss(log_prob.detach(), log_prob, advantages, mask)

    return first


def audits():
    """(implementation, loss, options of the check)."""
    plain = {"target": "undiscounted", "framework": "torch"}
    rloo = plain | {"advantage": advantage("rloo")}
    for name in ADVANTAGES:
        options = plain | {"advantage": advantage(name)}
        if name == "grpo_passk":
            options["target"] = "best-of-k"
        yield f"advantage {name}", loss(later=False), options
    for name, target in (("grpo", "undiscounted"), ("grpo_passk", "best-of-k")):
        given = {"advantage": advantage(name, WITHOUT_DEVIATION), "target": target}
        yield f"advantage {name}, no deviation", loss(later=False), plain | given
    for aggregation in AGGREGATIONS:
        if aggregation != SUM:
            averaged = loss(aggregation=aggregation, later=False)
            yield f"rloo, aggregation {aggregation}", averaged, rloo
    divided = loss(aggregation="token-mean", later=False)
    yield "rloo, token-mean of two micro-batches", divided, rloo | {"micro_batches": 2}
    for name in LOSSES:
        yield f"rloo, loss {name}, first step", loss(name, later=False), rloo
        yield f"rloo, loss {name}, later", loss(name), rloo
