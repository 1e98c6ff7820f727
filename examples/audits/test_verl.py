"""What a library can hold against its own losses: `pytest examples/audits/test_verl.py` where verl
is installed."""

from functools import partial

from verl.trainer.config import AlgoConfig
from verl.trainer.ppo import core_algos
from verl.workers.config import ActorConfig

from logpi.testing import assert_exact, assert_verdict

ACTOR = ActorConfig(strategy="fsdp", rollout_n=4, ppo_micro_batch_size_per_gpu=1)
ALGORITHM = AlgoConfig(norm_adv_by_std_in_grpo=True)


def advantage(name, reward, mask, group):
    estimate = core_algos.get_adv_estimator_fn(name)
    return estimate(reward, mask.double(), index=group.numpy(), config=ALGORITHM)[0]


def loss(aggregation, log_prob, advantages, mask):
    compute = core_algos.get_policy_loss_fn("vanilla")
    old = log_prob.detach()
    return compute(old, log_prob, advantages, mask.double(), aggregation, ACTOR)[0]


def test_rloo_is_the_policy_gradient():
    assert_exact(
        partial(loss, "seq-mean-token-sum"),
        advantage=partial(advantage, "rloo"),
        target="undiscounted",
        framework="torch",
    )


def test_grpo_is_biased_on_purpose():
    assert_verdict(
        partial(loss, "seq-mean-token-mean"),
        "biased",
        causes=["grpo-std", "per-episode-1/T"],
        advantage=partial(advantage, "grpo"),
        target="undiscounted",
        framework="torch",
    )
