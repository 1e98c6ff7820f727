"""The sampler for an environment of either kind."""

from collections.abc import Callable

from logpi.envs.base import CompiledEnvironment, HostEnvironment
from logpi.rollout import Sampler
from logpi.rollout_compiled import CompiledSampler
from logpi.rollout_host import HostSampler


def make_sampler(
    environment: HostEnvironment | CompiledEnvironment,
    count: int,
    seed: int,
    workers: int | None = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> Sampler:
    """The sampler of `count` copies of an environment; `interrupted` is asked as often as the sampler can stop."""
    if isinstance(environment, CompiledEnvironment):
        return CompiledSampler(environment, count, seed, interrupted)
    return HostSampler(environment, count, seed, workers, interrupted)
