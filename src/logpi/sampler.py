"""The sampler for an environment of either kind."""

from collections.abc import Callable

from logpi.envs.base import CompiledEnvironment, HostEnvironment
from logpi.errors import LogpiError
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
    """The sampler of `count` copies of an environment; `interrupted` is asked as often as the sampler can stop.

    **Raises:** `LogpiError` for workers of an environment that is not stepped from Python.
    """
    if workers and (isinstance(environment, CompiledEnvironment) or environment.pool is not None):
        raise LogpiError(f"{environment.spec.name} steps all its copies itself: leave out --workers")
    if isinstance(environment, CompiledEnvironment):
        return CompiledSampler(environment, count, seed, interrupted)
    return HostSampler(environment, count, seed, workers, interrupted)
