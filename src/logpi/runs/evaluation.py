"""How good a policy is: the mean return of fresh episodes, with an interval."""

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import jax
import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from logpi.core.checks import is_whole, require, require_seed
from logpi.core.errors import LogpiError
from logpi.environments.registry import EnvironmentLike, make_environment
from logpi.environments.spec import EnvironmentSpec, space_to_json
from logpi.networks.encoder import Encoder
from logpi.networks.heads import Head, NormalHead, ProductHead, action_head
from logpi.networks.policy import Policy
from logpi.sampling.choose import make_sampler
from logpi.sampling.seam import Sampler

# Episodes that run side by side.
COPIES = 16


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
        from scipy.special import stdtrit

        count = len(self.returns)
        if count < 2:
            return -np.inf, np.inf
        half = float(stdtrit(count - 1, 0.975)) * float(self.returns.std(ddof=1)) / np.sqrt(count)
        return self.mean - half, self.mean + half

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

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.mean:.1f} [{low:.1f}, {high:.1f}]"


def evaluate(
    policy: Policy,
    environment: EnvironmentLike,
    episodes: int = 100,
    *,
    deterministic: bool = True,
    seed: int = 0,
    max_episode_steps: int | None = None,
) -> Evaluation:
    """Run fresh episodes, taking the most probable action, or one drawn from the policy if not
    `deterministic`.

    The episodes of a seed are the same at every call, and never those of a training run.

    **Raises:** `LogpiError` where the environment's spaces are not those of the policy.
    """
    require(is_whole(episodes) and episodes >= 1, "episodes", "a whole number >= 1", episodes)
    require_seed(seed)
    made = make_environment(environment, max_episode_steps)
    require_fitting(policy, made.spec)
    sampler = make_sampler(made, min(COPIES, episodes), seed)
    try:
        return evaluate_with(sampler, policy, episodes, deterministic)
    finally:
        sampler.close()


def evaluate_with(
    sampler: Sampler, policy: Policy, episodes: int, deterministic: bool = True
) -> Evaluation:
    """Play episodes in the environments of a sampler, with the most probable actions by default."""
    return Evaluation(*sampler.evaluate(policy, episodes, deterministic))


def require_fitting(policy: Policy, spec: EnvironmentSpec) -> None:
    """Refuse an environment that asks for another policy than this.

    **Raises:** `LogpiError` that names what does not fit.
    """
    encoder = Encoder(spec.observation_space, np.random.default_rng(0))
    seen = (encoder.layout, spec.masked)
    if seen != (policy.encoder.layout, policy.masked):
        raise _unfit(spec, "observations", spec.observation_space)
    head = action_head(spec.action_space, _squashes(policy.head))
    if jax.tree.structure(head) != jax.tree.structure(policy.head):  # bounds, starts and shapes
        raise _unfit(spec, "actions", spec.action_space)


def _squashes(head: Head) -> bool:
    """Whether a head, or a part of it, squashes its actions by tanh."""
    parts = head.parts if isinstance(head, ProductHead) else (head,)
    return any(isinstance(part, NormalHead) and part.squash for part in parts)


def _unfit(spec: EnvironmentSpec, what: str, space: gym.Space) -> LogpiError:
    found = f"{what} are {space_to_json(space)}"
    return LogpiError(f"the policy does not fit {spec.name}, whose {found}")
