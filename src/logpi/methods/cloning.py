"""Behaviour cloning: θ ← θ + α ∇ 1/N Σ_i log π(a_i|s_i; θ) (Pomerleau 1991), where others have
taken the actions: the policy gradient whose weights are all 1.
"""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Int
from numpy import ndarray

from logpi.core.arrays import Scalar, masked_mean
from logpi.core.errors import LogpiError
from logpi.core.trajectory import Trajectory
from logpi.methods.learner import adam_state
from logpi.networks.parameters import Vector, as_vector
from logpi.networks.policy import Policy

LEARNING_RATE = 0.001
# Steps of a minibatch, or episodes for a policy that remembers.
STEPS_AT_ONCE = 256
EPISODES_AT_ONCE = 16
# Passes without a better policy after which there are no more.
PATIENCE = 5


class Clone(NamedTuple):
    """The best policy, the passes that were made, and its mean log-likelihood of a step that it was
    not fitted to.
    """

    policy: Policy
    passes: int
    log_likelihood: float


def log_likelihood(policy: Policy, batch: Trajectory) -> Scalar:
    """1/N Σ_i log π(a_i|s_i; θ), mean over the steps of a batch."""
    distribution = policy.distributions(batch.observation, batch.step, batch.memory)
    return masked_mean(distribution.log_prob(batch.action), batch.mask)


def clone(
    policy: Policy,
    shown: Trajectory,
    held_out: Trajectory,
    passes: int,
    random: np.random.Generator,
) -> Clone:
    """Fit a policy to the actions of `shown`, at most so many passes over it.

    After each pass it is judged by `held_out`, and the best is given.

    **Raises:** `LogpiError` where the likelihood is not finite.
    """
    size = STEPS_AT_ONCE
    if policy.memory.recurrent:
        size = EPISODES_AT_ONCE
    best = Clone(policy, 0, _mean_log_likelihood(policy, held_out, size))
    moments = adam_state(policy)
    done = 0
    while done < passes and done - best.passes < PATIENCE:
        done += 1
        for batch in _minibatches(shown, random.permutation(shown.mask.shape[1]), size):
            policy, moments = _ascend(policy, moments, batch)
        found = _mean_log_likelihood(policy, held_out, size)
        if not np.isfinite(found):
            raise LogpiError(f"pass {done}: the log-likelihood of the demonstrations is {found}")
        if found > best.log_likelihood:
            best = Clone(policy, done, found)
    return best


@jax.jit
def _ascend(
    policy: Policy, moments: optax.OptState, batch: Trajectory
) -> tuple[Policy, optax.OptState]:
    """One step of Adam."""
    parameters, rebuild = as_vector(policy)

    def loss(parameters: Vector) -> Scalar:
        return -log_likelihood(rebuild(parameters), batch)

    direction, moments = optax.scale_by_adam().update(jax.grad(loss)(parameters), moments)
    return rebuild(parameters - LEARNING_RATE * jnp.asarray(direction)), moments


_log_likelihood = jax.jit(log_likelihood)


def _mean_log_likelihood(policy: Policy, trajectory: Trajectory, size: int) -> float:
    """Of all steps, which are looked at in parts."""
    total = 0.0
    for batch in _minibatches(trajectory, np.arange(trajectory.mask.shape[1]), size):
        total += float(_log_likelihood(policy, batch)) * int(batch.mask.sum())
    return total / int(trajectory.mask.sum())


def _minibatches(
    trajectory: Trajectory, order: Int[ndarray, " column"], size: int
) -> Iterator[Trajectory]:
    """The columns in this order, `size` at a time; the last are filled up with no steps."""
    steps = trajectory._replace(memory=None)
    for first in range(0, len(order), size):
        columns = order[first : first + size]
        filled = np.pad(columns, (0, size - len(columns)))
        batch = jax.tree.map(partial(np.take, indices=filled, axis=1), steps)
        batch.mask[:, len(columns) :] = False
        yield batch._replace(memory=trajectory.memory[filled])
