"""The one step of learning, whatever the method: (learner, τ) → (learner, metrics) [D4.3]."""

import math

import jax.numpy as jnp

from logpi.core.options import options_at
from logpi.core.trajectory import Trajectory
from logpi.methods.learner import Learner, Metrics, count_batch
from logpi.methods.method import Method


def update(
    method: Method, learner: Learner, trajectory: Trajectory, budget: int | float = math.inf
) -> tuple[Learner, Metrics]:
    """One update with the options of this moment; `budget` is the number of steps over which they
    change.
    """
    now = options_at(method, jnp.minimum(learner.steps / budget, 1.0))
    learner, metrics = now.update(learner, trajectory)
    metrics["learning_rate"] = jnp.asarray(now.learning_rate)
    return count_batch(learner, trajectory), metrics
