"""OpenRLHF's own policy loss. It imports deepspeed and flash_attn, which this way does not use:
empty modules stand in for them."""

import sys
import types

from verl_losses import advantage, on_the_first_step


class _Absent(types.ModuleType):
    __path__: list[str] = []

    def __getattr__(self, name):
        return None


ABSENT = (
    "deepspeed",
    "flash_attn",
    "flash_attn.bert_padding",
    "flash_attn.utils",
    "flash_attn.utils.distributed",
)
for _name in ABSENT:
    sys.modules[_name] = _Absent(_name)

from openrlhf.models.loss import PolicyLoss  # noqa: E402

for _name in ABSENT:
    del sys.modules[_name]


def loss(later=True, **settings):
    """The loss with its defaults and these settings; on the first step unless `later`."""
    policy_loss = PolicyLoss(**settings)

    def of(old_log_prob, log_prob, advantages, mask):
        return policy_loss(log_prob, old_log_prob, advantages, mask.double())[0]

    return of if later else on_the_first_step(of)


def audits():
    """(implementation, loss, options of the check); advantages are leave-one-out, by verl."""
    options = {
        "target": "undiscounted",
        "framework": "torch",
        "advantage": advantage("rloo"),
    }
    averages = {"token_level_loss": False}
    for name, settings in (
        ("all tokens", {}),
        ("each answer", averages),
        ("each answer, dual clip", averages | {"dual_clip": 3.0}),
        ("GSPO", {"policy_loss_type": "gspo"}),
    ):
        yield f"PolicyLoss, {name}, first step", loss(later=False, **settings), options
        yield f"PolicyLoss, {name}, later", loss(**settings), options
