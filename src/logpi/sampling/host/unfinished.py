"""The episodes that a batch of streams leaves unfinished, as the actions that lead there [D4.1].

A Gymnasium environment cannot be saved. Its seed and its actions can, and taking them again leads
to the same state.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from logpi.core.arrays import float_dtype
from logpi.core.trajectory import Trajectory
from logpi.environments.spec import EnvironmentSpec
from logpi.networks.policy import Policy


class Standing(NamedTuple):
    """Where the episodes under way stand, one per copy.

    `ended` is True where the next row begins another episode. `memory` is what the policy
    remembers.
    """

    episode: Int[ndarray, " env"]
    step: Int[ndarray, " env"]
    paid: Float[ndarray, " env"]
    ended: Bool[ndarray, " env"]
    memory: Float[ndarray, "env state"]


class UnfinishedReplay(NamedTuple):
    """Where the episodes under way stand, and the actions taken in them, `[env, step, ...]`."""

    standing: Standing
    action: ndarray

    def of(self, copies: slice) -> "UnfinishedReplay":
        """Those of some copies, as NumPy arrays."""
        return jax.tree.map(lambda x: np.array(np.asarray(x)[copies]), self)

    def after(self, standings: Sequence[Standing], rollout: Trajectory) -> "UnfinishedReplay":
        """The episodes under way after a rollout, of which the copies say where they stand.

        An episode writes its actions over those of the one before it.
        """
        action = np.array(self.action)
        t, copy = np.nonzero(rollout.mask)  # in the order of time
        action[copy, np.asarray(rollout.step)[t, copy]] = np.asarray(rollout.action)[t, copy]
        standing = Standing(*map(np.concatenate, zip(*standings, strict=True)))
        return UnfinishedReplay(standing, action)

    def skipped(self, rows: int) -> "UnfinishedReplay":
        """Every copy at the beginning of an episode that `rows` rows could not have reached."""
        later = np.asarray(self.standing.episode) + rows + 1
        standing = jax.tree.map(np.zeros_like, self.standing)
        return UnfinishedReplay(standing._replace(episode=later), np.asarray(self.action))


def no_episodes(policy: Policy, spec: EnvironmentSpec, count: int) -> UnfinishedReplay:
    """Episode 0 of every copy, before its first action."""
    noise = np.zeros((count, policy.head.size), float_dtype())
    action = jax.eval_shape(lambda p, n: p.head(n).sample(n), policy, noise)
    standing = Standing(
        episode=np.zeros(count, np.int32),
        step=np.zeros(count, np.int32),
        paid=np.zeros(count, float_dtype()),
        ended=np.zeros(count, bool),
        memory=policy.initial_memory(count),
    )
    longest = spec.max_episode_steps
    return UnfinishedReplay(standing, np.zeros((count, longest, *action.shape[1:]), action.dtype))
