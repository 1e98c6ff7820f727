"""The one step of learning, whatever the method: (learner, τ) → (learner, metrics) [D4.3]."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

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
    low, high = learner.steps.astype(float)
    now = options_at(method, jnp.minimum((low + 2.0**32 * high) / float(budget), 1.0))
    learner, metrics = now.update(learner, trajectory)
    metrics["learning_rate"] = jnp.asarray(now.learning_rate)
    return count_batch(learner, trajectory), metrics


def trajectory_shapes(policy: PyTree, observation: PyTree, time: int, has_paid: bool) -> PyTree:
    """The shapes of a trajectory of `time` rows, from the observations of all copies."""

    def example(policy: PyTree) -> Trajectory:
        count = len(observation)
        dtype = jax.dtypes.canonicalize_dtype(observation.dtype)
        seen = jnp.zeros((time, *observation.shape), dtype)
        memory = jnp.asarray(policy.initial_memory(count))
        noise = jnp.zeros((count, policy.head.size))
        action = policy(seen[0], memory).sample(noise)
        number = jnp.zeros((time, count))
        flag = jnp.zeros((time, count), bool)
        return Trajectory(
            observation=seen,
            action=jnp.zeros((time, *action.shape), action.dtype),
            reward=number,
            terminated=flag,
            truncated=flag,
            mask=flag,
            step=jnp.zeros((time, count), jnp.int32),
            memory=memory,
            paid=number if has_paid else None,
        )

    return jax.eval_shape(example, policy)
