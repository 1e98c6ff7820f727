"""Causes that show in the verdict or in the sampler's law, rather than in the weights."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from logpi.checking.measuring import Measurement
from logpi.checking.mistakes.divergences import AS_REWARD
from logpi.checking.mistakes.forms import Cause
from logpi.checking.verdict import ALONE, Judgement

_BY_SCALE = {
    ALONE: (
        "group-of-one",
        "an episode that is alone in its group has the weight 0: nothing is learned from it",
        "sample at least two, or let a single one keep its return",
    ),
    "1/N": (
        "broadcast-NxN",
        "the loss is divided by N once too often",
        "multiply sample by sample, then average",
    ),
    "N": (
        "sum-over-episodes",
        "the loss is a sum over episodes, not their mean",
        "divide by the number of episodes",
    ),
    "(N-1)/N": (
        "own-sample-baseline",
        "the baseline contains the sample's own return, or one episode is left out",
        "leave the episode's own return out of its baseline, or multiply by N/(N-1)",
    ),
    "(G-1)/G": (
        "own-sample-baseline",
        "the baseline of a group contains the sample's own return",
        "leave the episode's own return out of its baseline, or multiply by G/(G-1)",
    ),
    "γ": (
        "reward-delayed",
        "everything is discounted once too often: rewards are stored one row late",
        "store the reward that follows an action in the row of that action",
    ),
    "1/γ": (
        "undercounted-discount",
        "everything is discounted once too little: R_t begins with r / γ",
        "give the first reward of R_t the weight 1, the next one γ",
    ),
    "1/T": ("per-episode-1/T", "the loss is a mean over time, not a sum", "sum over t"),
}
_BY_TARGET = {
    "forward-kl-per-step": (
        "kl-k3-loss",
        "the gradient of the forward KL of each state, which is that of the k3 estimate",
        AS_REWARD,
    ),
    "forward-kl": (
        "kl-direction",
        "the gradient is that of KL(reference, π)",
        "exchange policy and reference",
    ),
    "reverse-kl": (
        "kl-direction",
        "the gradient is that of KL(π, reference)",
        "exchange policy and reference",
    ),
    "reverse-kl-per-step": (
        "kl-token-loss",
        "the KL of each step is there, its effect on later states is not",
        AS_REWARD,
    ),
    "entropy": (
        "entropy-per-step",
        "the entropy of each state is there, its effect on later states is not",
        "add it to the rewards; if it is meant, check it with --target entropy",
    ),
    "entropy-bonus": (
        "entropy-per-step",
        "the entropy has no effect on later states",
        "add it to the rewards",
    ),
    "policy": (
        "importance-weighted",
        "the policy itself is differentiated, not the sampler's law",
        "if it is meant, check it with --target policy",
    ),
}


class _Objective(NamedTuple):
    """What a target of rewards has."""

    has_power: bool
    """γ^t."""
    is_discounted: bool
    """γ inside the return."""
    goes_on: bool
    """The task goes on after the time limit."""


_OBJECTIVES = {
    "discounted": _Objective(has_power=True, is_discounted=True, goes_on=False),
    "undiscounted": _Objective(has_power=False, is_discounted=False, goes_on=False),
    "conventional": _Objective(has_power=False, is_discounted=True, goes_on=False),
    "continuing": _Objective(has_power=True, is_discounted=True, goes_on=True),
    "conventional-continuing": _Objective(has_power=False, is_discounted=True, goes_on=True),
}
_REWARD = ("discounted", "undiscounted", "conventional", "continuing", "conventional-continuing")


def value_leak(detached: str) -> Cause:
    """The policy's loss reaches the critic; `detached` is the verdict where it does not."""
    return Cause(
        "value-leak",
        "value is differentiable here: the policy's loss moves the critic, and with shared"
        f" parameters the policy. Under stop_gradient the verdict is {detached}",
        "detach (stop_gradient) value before it enters the weight",
    )


ENTROPY_SIGN = (
    "entropy-sign",
    "the entropy is taken off the objective",
    "subtract it from the loss",
)


Kind: TypeAlias = Literal["kl", "entropy", "policy"]


def by_verdict(
    judgement: Judgement,
    target: str,
    matches: tuple[str, ...],
    names: tuple[str, ...],
    silent: bool,
) -> list[Cause]:
    """What the verdict itself says; `silent`: the gradient is 0 whatever happens."""
    kind = _kind(target, names)
    match judgement.verdict:
        case "reversed":
            said = "the sign is wrong: the loss rises where the objective does"
            remedy = "minimise minus the objective, or --maximize"
            return [Cause(f"{kind}-sign", said, remedy, 0.0)]
        case "scaled":
            return [by_scale(judgement.scale_name)]
        case "zero":
            return [_zero(names, silent)]
        case "other-target":
            return _other_target(target, matches, kind)
        case _:
            return []


def _kind(target: str, names: tuple[str, ...]) -> Kind:
    """What the target is about."""
    if "kl" in target and "reference_log_prob" in names:
        return "kl"
    if target.startswith("entropy"):
        return "entropy"
    return "policy"


def by_scale(name: str | None) -> Cause:
    """What a constant factor of this name comes from."""
    if name in _BY_SCALE:
        return Cause(*_BY_SCALE[name], 0.0)
    said = f"exact but for the factor {name}"
    if name is not None and name.startswith("a factor"):
        said = f"exact but for {name}"
    return Cause("constant-factor", said, "harmless with a tuned step size", 0.0)


def _other_target(target: str, matches: tuple[str, ...], kind: Kind) -> list[Cause]:
    first = matches[0]
    if kind != "policy" and first in _REWARD:
        name = "kl-coef-ignored" if kind == "kl" else "entropy-no-grad"
        said = (
            "the term adds nothing to the expected gradient: it is not differentiated, or it is a"
            " log-probability of what was drawn, whose gradient is 0 on average"
        )
        return [
            Cause(name, said, "differentiate the entropy or KL itself, or pay it as a reward", 0.0)
        ]
    if target in _REWARD and first not in (*_REWARD, "policy"):
        said = f"this is the gradient of another term, {first}"
        return [Cause("another-term", said, f"--target {first} says that it is meant", 0.0)]
    if target in matches:
        return []
    if target in _OBJECTIVES and first in _OBJECTIVES:
        return _other_objective(target, first)
    return [Cause(*_BY_TARGET[name], 0.0) for name in matches if name in _BY_TARGET][:1]


def _other_objective(target: str, match: str) -> list[Cause]:
    """In what the gradient that was found differs from the one that was asked for."""
    asked = _OBJECTIVES[target]
    found = _OBJECTIVES[match]
    meant = f"if it is meant, ask for --target {match}"
    causes = []
    if asked.goes_on and not found.goes_on:
        said = "where the time limit cuts, the episode is taken to have terminated"
        remedy = "use terminated, not done, where the next value is added"
        causes.append(Cause("trunc-as-terminal", said, remedy, 0.0))
    if found.goes_on and not asked.goes_on:
        said = "where the time limit cuts, the value of the next state is added"
        causes.append(Cause("trunc-bootstrapped", said, meant, 0.0))
    if asked.is_discounted and not found.is_discounted:
        said = "the plain sum of rewards is maximised"
        return [*causes, Cause("undiscounted-return", said, f"discount; {meant}", 0.0)]
    if found.is_discounted and not asked.is_discounted:
        said = "rewards are discounted, while the target is their plain sum"
        return [*causes, Cause("discounted-return", said, f"leave γ out; {meant}", 0.0)]
    if asked.has_power and not found.has_power:
        said = "γ^t is missing, as in most libraries (deliberate): the gradient of no objective"
        remedy = f"multiply by γ^t; {meant}"
        causes.append(Cause("gamma-t-missing", said, remedy, 0.0))
    if found.has_power and not asked.has_power:
        said = "γ^t is there, which the target does not have"
        causes.append(Cause("gamma-t-present", said, f"leave it out; {meant}", 0.0))
    return causes


def _zero(names: tuple[str, ...], silent: bool) -> Cause:
    if silent:
        said = (
            "the gradient of every batch is 0: the loss does not depend on the policy, is detached"
            " from it, or all of its weights are 0"
        )
        return Cause(
            "no-gradient",
            said,
            "let log_prob, logits, entropy or policy enter the loss with its gradient; a single"
            " episode minus its own mean is 0",
        )
    if "reference_log_prob" in names:
        return Cause(
            "kl-k1-loss",
            "log π - log reference is the loss: its expected gradient is zero",
            AS_REWARD,
        )
    if "reward" not in names and {"log_prob", "entropy"} & set(names):
        return Cause(
            "entropy-sampled-nlp",
            "E[∇ log π] = 0: -log π(a) is no entropy bonus",
            "use the entropy itself",
        )
    return Cause(
        "logp-of-resampled",
        "E[weight × ∇ log π] = 0: the weight does not depend on the action whose score it"
        " multiplies",
        "take the log-probability of the action that was executed",
    )


LOGP_OF_EXECUTED = (
    "log_prob is of the executed (clipped, remapped) action",
    "keep the sampled action for log_prob",
)
_BY_LAW = {
    "stale-no-ratio": (
        "the data come from a policy that does not depend on θ, without importance weights",
        "multiply by the importance weight",
    ),
    "mask-missing": (
        "actions are masked when sampling, not in log_prob",
        "mask the logits before log_prob too",
    ),
    "logp-of-executed": LOGP_OF_EXECUTED,
    "temperature": (
        "actions are drawn at another temperature than log_prob has",
        "divide the logits in log_prob too",
    ),
    "eps-greedy": (
        "actions are partly uniform (ε-greedy), log_prob is the policy's",
        "use the log-probability of the mixture",
    ),
    "double-softmax": (
        "a second softmax stands in the sampler only",
        "sample and score with the same logits",
    ),
    "sampler-differs": (
        "the law that acts is not the one whose score is taken",
        "use one law for both",
    ),
}


def by_law(measurements: Sequence[Measurement], names: tuple[str, ...]) -> list[Cause]:
    """How the sampler's law differs from the policy's."""
    first = measurements[0].situation
    law = first.law.table
    policy = first.probe.policy
    if np.allclose(law, policy):
        return []
    jacobian = first.law.jacobian
    is_fixed = jacobian is None or not np.any(jacobian)
    if is_fixed and "old_log_prob" in names:
        return []
    name = "stale-no-ratio" if is_fixed else _difference(law, policy)
    return [Cause(name, *_BY_LAW[name])]


def _difference(law: Float[ndarray, "O A"], policy: Float[ndarray, "O A"]) -> str:
    """How a law that depends on θ came out of the policy."""
    never = law <= 1e-12
    if (never & (policy > 0)).any():
        allowed = np.where(never, 0.0, policy)
        masked = np.allclose(law, allowed / allowed.sum(axis=1, keepdims=True))
        if masked:
            return "mask-missing"
        return "logp-of-executed"
    if _linear(np.log(law), np.log(policy)):
        return "temperature"
    if _linear(law, policy):
        return "eps-greedy"
    if _linear(np.log(law), policy):
        return "double-softmax"
    return "sampler-differs"


def _linear(y: Float[ndarray, "O A"], x: Float[ndarray, "O A"]) -> bool:
    """Whether y = a x + b_o with one a for all observations."""

    def centred(z):
        return z - z.mean(axis=1, keepdims=True)

    a = np.sum(centred(y) * centred(x)) / np.sum(centred(x) ** 2)
    return bool(np.allclose(centred(y), a * centred(x), atol=1e-9))
