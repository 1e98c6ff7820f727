"""The episodes of an evaluation with all their steps."""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float
from numpy import ndarray

from logpi.core.programs import keep_programs
from logpi.core.trajectory import Trajectory
from logpi.environments.host.local import make_group
from logpi.environments.spec import CompiledEnvironment, HostEnvironment
from logpi.networks.policy import Policy
from logpi.sampling.compiled.sampler import EVALUATED_AT_ONCE, evaluated_episodes
from logpi.sampling.host.episodes import HostEpisodes, Played
from logpi.sampling.host.shares import Shares
from logpi.sampling.seam import SHARE_SIZE

# Copies of a Gymnasium environment that play side by side.
COPIES = 4 * SHARE_SIZE


class Recorded(NamedTuple):
    """One episode: what was seen from the `origin` of the environment, which actions were sampled,
    what was paid.
    """

    observation: ndarray
    action: ndarray
    reward: Float[ndarray, " step"]
    is_terminated: bool


def record_episodes(
    environment: HostEnvironment | CompiledEnvironment,
    policy: Policy,
    episodes: int,
    deterministic: bool,
    seed: int,
) -> Iterator[Recorded]:
    """The first `episodes` that an evaluation with this seed plays.

    **Raises:** `LogpiError` where the environment fails.
    """
    if isinstance(environment, CompiledEnvironment):
        return _compiled(environment, policy, episodes, deterministic, seed)
    return _on_host(environment, policy, episodes, deterministic, seed)


def _compiled(
    environment: CompiledEnvironment, policy: Policy, episodes: int, deterministic: bool, seed: int
) -> Iterator[Recorded]:
    keep_programs()
    play = jax.jit(partial(evaluated_episodes, environment))
    drawn = np.bool_(not deterministic)
    for first in range(0, episodes, EVALUATED_AT_ONCE):
        batch = np.int32(first // EVALUATED_AT_ONCE)
        played = jax.tree.map(np.asarray, play(policy, np.uint32(seed), batch, drawn))
        lengths = played.mask.sum(axis=0)
        for column in range(min(EVALUATED_AT_ONCE, episodes - first)):
            yield _episode(played, column, int(lengths[column]))


def _on_host(
    environment: HostEnvironment, policy: Policy, episodes: int, deterministic: bool, seed: int
) -> Iterator[Recorded]:
    count = min(COPIES, episodes)
    group = make_group(environment, count)
    size = SHARE_SIZE
    if environment.pool is not None:  # it steps its copies together
        size = count
    shares = Shares(range(count), size)
    host = HostEpisodes(environment.spec, group, shares, seed, interrupted=lambda: False)
    try:
        for first in range(0, episodes, count):
            numbers = range(first, min(first + count, episodes))
            played = host.evaluated(policy, numbers, deterministic)
            for column in range(len(numbers)):
                yield _episode(played, column, int(played.lengths[column]))
    finally:
        group.close()


def _episode(played: Played | Trajectory, column: int, length: int) -> Recorded:
    """The steps of one column."""
    return Recorded(
        observation=np.asarray(played.observation)[:length, column],
        action=np.asarray(played.action)[:length, column],
        reward=np.asarray(played.reward)[:length, column],
        is_terminated=bool(played.terminated[length - 1, column]),
    )
