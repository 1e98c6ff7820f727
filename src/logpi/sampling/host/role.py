"""What a process needs to know to play some shares of a run."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import gymnasium as gym

from logpi.core.foreign import pack
from logpi.environments.options import EnvironmentOptions
from logpi.environments.registry import make_host_environment
from logpi.environments.spec import EnvironmentSpec, HostEnvironment
from logpi.sampling.host.shares import Shares


@dataclass(frozen=True)
class Role:
    """Which shares of which environment, which is made anew from its name or its factory."""

    source: str | Callable[..., gym.Env]
    options: EnvironmentOptions
    spec: EnvironmentSpec
    step_limit: float | None
    shares: Shares
    seed: int

    @staticmethod
    def of(environment: HostEnvironment, shares: Shares, seed: int) -> "Role":
        """To play these shares of an environment."""
        assert environment.source is not None
        return Role(
            source=environment.source,
            options=environment.options,
            spec=environment.spec,
            step_limit=environment.step_limit,
            shares=shares,
            seed=seed,
        )

    def packed(self) -> bytes:
        """As bytes that `pickle.loads` reads in another process; a factory with what it refers to.

        **Raises:** `LogpiError` where it refers to what cannot travel.
        """
        remedy = "give an environment by name, or leave out --workers and --rollouts"
        return pack(self, self.spec.name, remedy)

    def make_environment(self) -> HostEnvironment:
        """The environment, in the process that plays it."""
        options = replace(self.options, max_episode_steps=self.spec.max_episode_steps)
        made = make_host_environment(self.source, options)
        return replace(made, spec=self.spec, step_limit=self.step_limit)
