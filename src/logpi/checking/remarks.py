"""Causes that show in the verdict or in the sampler's law, rather than in the weights."""

from collections.abc import Sequence

import numpy as np

from logpi.checking.diagnosis import Cause, Evidence
from logpi.checking.verdict import Judgement

_BY_SCALE = {
    "1/N": ("broadcast-NxN", "divided by N once too often", "multiply sample by sample, then average"),
    "N": ("sum-over-episodes", "a sum over episodes instead of their mean", "divide by the number of episodes"),
    "(N-1)/N": (
        "own-sample-baseline",
        "the baseline contains the sample's own return",
        "leave it out, or multiply by N/(N-1)",
    ),
    "(G-1)/G": (
        "own-sample-baseline",
        "the baseline of a group contains the sample's own return",
        "leave it out, or multiply by G/(G-1)",
    ),
    "γ": (
        "reward-delayed",
        "everything is discounted once too often: rewards stored one row late",
        "r_{t+1} answers a_t",
    ),
    "1/γ": ("undercounted-discount", "discounted once too little", "the first reward of R_t has weight 1"),
    "1/T": ("per-episode-1/T", "a mean over time instead of the sum", "sum over t"),
}
_BY_TARGET = {
    "conventional": ("gamma-t-missing", "γ^t is missing, as in most libraries (deliberate)", "multiply by γ^t"),
    "undiscounted": (
        "undiscounted-return",
        "the plain sum of rewards is maximised",
        "discount, or --target undiscounted",
    ),
    "discounted": (
        "trunc-as-terminal",
        "the time limit is taken for the end of the task",
        "add γ^{T-t} V of the final state",
    ),
    "continuing": (
        "trunc-bootstrapped",
        "the time limit is bootstrapped through",
        "--target continuing says that it is meant",
    ),
    "conventional-continuing": (
        "gamma-t-missing",
        "γ^t is missing and the time limit is bootstrapped through, as in most libraries (deliberate)",
        "--target conventional-continuing says that it is meant",
    ),
    "forward-kl-per-step": ("kl-k3-loss", "the gradient of the forward KL of each state, as of k3", "k1 as a reward"),
    "forward-kl": ("kl-direction", "the gradient of the other KL", "exchange policy and reference"),
    "reverse-kl": ("kl-direction", "the gradient of the reverse KL", "exchange policy and reference"),
    "reverse-kl-per-step": (
        "kl-token-loss",
        "the KL of each step without its effect on later states",
        "k1 as a reward",
    ),
    "entropy": ("entropy-per-step", "the entropy of each state without its effect on later states", "--target entropy"),
    "entropy-bonus": ("entropy-per-step", "the entropy has no effect on later states", "add it to the rewards"),
    "policy": ("importance-weighted", "the policy itself is differentiated, not the sampler's law", "--target policy"),
}


_REWARD = ("discounted", "undiscounted", "conventional", "continuing", "conventional-continuing")


def value_leak() -> Cause:
    """The policy's loss reaches the critic."""
    return Cause(
        "value-leak",
        "the advantage is not detached: the policy's loss moves the critic, and with shared parameters the policy",
        "detach (stop_gradient) value before it enters the weight",
        0.0,
    )


def entropy_sign() -> Cause:
    """The entropy beside a reward is made small."""
    return Cause("entropy-sign", "the entropy is taken off the objective", "subtract it from the loss", 0.0)


def by_target(judgement: Judgement, target: str, matches: tuple[str, ...], names: tuple[str, ...]) -> list[Cause]:
    """What the verdict itself says."""
    kl, entropy = "kl" in target and "reference_log_prob" in names, target.startswith("entropy")
    if judgement.verdict == "reversed":
        name = "kl-sign" if kl else "entropy-sign" if entropy else "policy-sign"
        return [
            Cause(
                name,
                "the sign is wrong: the loss rises where the objective does",
                "minimise minus the objective, or --maximize",
                0.0,
            )
        ]
    if judgement.verdict == "scaled" and judgement.scale_name in _BY_SCALE:
        return [Cause(*_BY_SCALE[judgement.scale_name], 0.0)]
    if judgement.verdict == "scaled":
        return [
            Cause(
                "constant-factor",
                f"exact but for the factor {judgement.scale_name}",
                "harmless with a tuned step size",
                0.0,
            )
        ]
    if judgement.verdict == "zero":
        return [_zero(names)]
    if judgement.verdict == "other-target" and (kl or entropy) and matches[0] in _REWARD:
        name = "kl-coef-ignored" if kl else "entropy-no-grad"
        return [
            _cause(name, "the term has no gradient: the rest of the loss is all there is", "differentiate the term")
        ]
    if judgement.verdict == "other-target" and target in _REWARD and matches[0] not in (*_REWARD, "policy"):
        term, said = matches[0], f"--target {matches[0]} says that it is meant"
        return [_cause("another-term", f"this is the gradient of another term, {term}", said)]
    if judgement.verdict == "other-target" and target not in matches:
        return [Cause(*_BY_TARGET[name], 0.0) for name in matches if name in _BY_TARGET][:1]
    return []


def _zero(names: tuple[str, ...]) -> Cause:
    if "reference_log_prob" in names:
        return Cause("kl-k1-loss", "log π - log reference as a loss has zero expected gradient", "k1 as a reward", 0.0)
    if "reward" not in names and {"log_prob", "entropy"} & set(names):
        return Cause(
            "entropy-sampled-nlp", "E[∇ log π] = 0: -log π(a) is no entropy bonus", "use the entropy itself", 0.0
        )
    return Cause(
        "logp-of-resampled",
        "E[weight × ∇ log π] = 0: the weight does not depend on the action whose score it multiplies",
        "take the log-probability of the action that was executed",
        0.0,
    )


def by_law(evidence: Sequence[Evidence]) -> list[Cause]:
    """How the sampler's law differs from the policy's."""
    first = evidence[0].situation
    law, policy = first.law.table, first.probe.policy
    if np.allclose(law, policy):
        return []
    jacobian = first.law.jacobian
    if jacobian is None or not np.any(jacobian):
        return [
            _cause(
                "stale-no-ratio",
                "the data come from a policy that does not depend on θ, without importance weights",
                "multiply by the importance weight",
            )
        ]
    if (law[policy > 0] < 1e-12).any():
        support = law > 1e-12
        masked = np.where(support, policy, 0.0)
        if np.allclose(law, masked / masked.sum(axis=1, keepdims=True)):
            return [
                _cause(
                    "mask-missing",
                    "actions are masked when sampling, not in log_prob",
                    "mask the logits before log_prob too",
                )
            ]
        return [
            _cause(
                "logp-of-executed",
                "log_prob is of the executed (clipped, remapped) action",
                "keep the sampled action for log_prob",
            )
        ]
    if _linear(np.log(law), np.log(policy)):
        return [
            _cause(
                "temperature",
                "actions are drawn at another temperature than log_prob has",
                "divide the logits in log_prob too",
            )
        ]
    if _linear(law, policy):
        return [
            _cause(
                "eps-greedy",
                "actions are partly uniform (ε-greedy), log_prob is the policy's",
                "use the log-probability of the mixture",
            )
        ]
    if _linear(np.log(law), policy):
        return [
            _cause(
                "double-softmax", "a second softmax stands in the sampler only", "sample and score with the same logits"
            )
        ]
    return [_cause("sampler-differs", "the law that acts is not the one whose score is taken", "use one law for both")]


def _cause(name: str, explanation: str, remedy: str) -> Cause:
    return Cause(name, explanation, remedy, 0.0)


def _linear(y: np.ndarray, x: np.ndarray) -> bool:
    """Whether y = a x + b_o with one a for all observations."""
    centred = lambda z: z - z.mean(axis=1, keepdims=True)
    a = np.sum(centred(y) * centred(x)) / np.sum(centred(x) ** 2)
    return bool(np.allclose(centred(y), a * centred(x), atol=1e-9))
