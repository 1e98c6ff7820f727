"""The sampler for an environment of either kind."""

from collections.abc import Callable

from logpi.core.errors import LogpiError
from logpi.core.programs import keep_programs
from logpi.environments.spec import CompiledEnvironment, HostEnvironment
from logpi.sampling.compiled.sampler import CompiledSampler
from logpi.sampling.host.sampler import HostSampler
from logpi.sampling.seam import LOCAL_ROLLOUTS, STOP_AT_FAULTS, Faults, Rollouts, Sampler


def make_sampler(
    environment: HostEnvironment | CompiledEnvironment,
    count: int,
    seed: int,
    rollouts: Rollouts = LOCAL_ROLLOUTS,
    interrupted: Callable[[], bool] = lambda: False,
    faults: Faults = STOP_AT_FAULTS,
) -> Sampler:
    """The sampler of `count` copies of an environment; `interrupted` is asked as often as the
    sampler can stop.

    **Raises:** `LogpiError` for workers of an environment that steps all its copies itself.
    """
    elsewhere = rollouts.workers or rollouts.ray is not None
    if elsewhere and (isinstance(environment, CompiledEnvironment) or environment.pool is not None):
        raise LogpiError(
            f"{environment.spec.name} steps all its copies itself: leave out --workers and"
            " --rollouts"
        )
    keep_programs()
    if isinstance(environment, CompiledEnvironment):
        return CompiledSampler(environment, count, seed, interrupted, rollouts.devices or 1)
    if rollouts.devices is not None:
        raise LogpiError(
            f"{environment.spec.name} is stepped from Python, on no device: leave out --devices"
        )
    return HostSampler(environment, count, seed, rollouts, interrupted, faults)
