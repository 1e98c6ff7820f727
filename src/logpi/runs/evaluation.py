"""How good a policy is: the mean return of fresh episodes, with an interval."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import jax
import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from logpi.core.errors import LogpiError
from logpi.environments.spec import EnvironmentSpec, space_to_json
from logpi.networks.encoder import Encoder
from logpi.networks.heads import Head, NormalHead, ProductHead, action_head
from logpi.networks.options import BoxLaw
from logpi.networks.policy import Policy
from logpi.runs.checkpoint import Counters
from logpi.sampling.seam import FEWEST_EVALUATED, Sampler

# At the end of a run at most so many episodes are played in each way of acting. Their steps are
# this share of those of the run: a step of evaluation takes a quarter to all of the time of one of
# training. A short run spends a larger share, up to so many steps, or two episodes would judge it.
EPISODES = 100
SHARE = 0.025
SHORT_SHARE = 0.15
SHORT_STEPS = 5000


def mean_interval(values: Float[ndarray, " number"]) -> tuple[float, float]:
    """95 % confidence interval of the mean of some numbers, Student's t; infinite for a single
    one.
    """
    if len(values) < 2:
        return -math.inf, math.inf
    mean = float(values.mean())
    half = float(half_width(values))
    return mean - half, mean + half


def half_width(values: Float[ndarray, "*row number"]) -> Float[ndarray, "*row"] | float:
    """How far the 95 % confidence interval of the mean of each row reaches, Student's t."""
    from scipy.special import stdtrit

    count = values.shape[-1]
    return stdtrit(count - 1, 0.975) * values.std(axis=-1, ddof=1) / math.sqrt(count)


@dataclass(frozen=True)
class Evaluation:
    """The plain (undiscounted) returns [D0.2] and lengths of whole episodes."""

    returns: Float[ndarray, " episode"]
    lengths: Int[ndarray, " episode"]

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(self.returns.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of the mean, Student's t; infinite for a single episode."""
        return mean_interval(self.returns)

    def to_json(self) -> dict[str, Any]:
        """`mean`, `interval`, `episodes`, `returns`, `lengths`."""
        interval = [bound if np.isfinite(bound) else None for bound in self.interval]
        return {
            "mean": self.mean,
            "interval": interval,
            "episodes": len(self.returns),
            "returns": self.returns.tolist(),
            "lengths": self.lengths.tolist(),
        }

    @staticmethod
    def from_json(fields: Mapping[str, Any]) -> "Evaluation":
        """What `to_json` wrote.

        **Raises:** `LookupError`, `TypeError` or `ValueError` for anything else.
        """
        returns = np.array(fields["returns"], float)
        lengths = np.array(fields["lengths"], int)
        if returns.ndim != 1 or len(returns) < 1 or returns.shape != lengths.shape:
            raise ValueError("returns and lengths are not those of episodes")
        return Evaluation(returns, lengths)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.mean:.1f} [{low:.1f}, {high:.1f}]"


@dataclass(frozen=True)
class FinalEvaluation:
    """What a run's policy is worth at its end, in both ways of acting."""

    most_probable: Evaluation
    drawn: Evaluation

    @property
    def differs(self) -> bool:
        """Whether the two ways differ by more than their intervals."""
        low, high = self.most_probable.interval
        drawn_low, drawn_high = self.drawn.interval
        return bool(high < drawn_low or drawn_high < low)

    def to_json(self) -> dict[str, Any]:
        """The fields of `most_probable`, and those of the other as `drawn`."""
        return {**self.most_probable.to_json(), "drawn": self.drawn.to_json()}

    @staticmethod
    def from_json(fields: Mapping[str, Any]) -> "FinalEvaluation":
        """What `to_json` wrote.

        **Raises:** `LookupError`, `TypeError` or `ValueError` for anything else.
        """
        return FinalEvaluation(
            most_probable=Evaluation.from_json(fields),
            drawn=Evaluation.from_json(fields["drawn"]),
        )


def evaluate_at_end(sampler: Sampler, policy: Policy, counters: Counters) -> FinalEvaluation:
    """Evaluate the policy of a run, with a share of the steps that it has made.

    The number of episodes follows from the counters alone: a run that is replayed is evaluated
    alike.
    """
    _, length = counters.recent_means()
    short = min(SHORT_SHARE * counters.steps, SHORT_STEPS)
    most_steps = int(max(SHARE * counters.steps, short))
    if math.isnan(length):
        episodes = FEWEST_EVALUATED
    else:
        episodes = min(EPISODES, max(FEWEST_EVALUATED, int(most_steps / length)))
    return FinalEvaluation(
        most_probable=Evaluation(*sampler.evaluate(policy, episodes, True, most_steps)),
        drawn=Evaluation(*sampler.evaluate(policy, episodes, False, most_steps)),
    )


def require_fitting(policy: Policy, spec: EnvironmentSpec) -> None:
    """Refuse an environment that asks for another policy than this.

    **Raises:** `LogpiError` that names what does not fit.
    """
    encoder = Encoder(spec.observation_space, np.random.default_rng(0))
    seen = (encoder.layout, spec.masked)
    if seen != (policy.encoder.layout, policy.masked):
        raise _unfit(spec, "observations", spec.observation_space)
    head = action_head(spec.action_space, _box_law(policy.head))
    if jax.tree.structure(head) != jax.tree.structure(policy.head):  # bounds, starts and shapes
        raise _unfit(spec, "actions", spec.action_space)


def _box_law(head: Head) -> BoxLaw:
    """The law of the boxes of a head; "normal" where it has none."""
    parts = head.parts if isinstance(head, ProductHead) else (head,)
    for part in parts:
        if isinstance(part, NormalHead):
            return part.law
    return "normal"


def _unfit(spec: EnvironmentSpec, what: str, space: gym.Space) -> LogpiError:
    found = f"{what} are {space_to_json(space)}"
    return LogpiError(f"the policy does not fit {spec.name}, whose {found}")
