"""Staying near a reference policy: its distance is part of the reward, so that its gradient is
exact.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from logpi.core.arrays import AnyArray, Number
from logpi.core.errors import LogpiError
from logpi.core.trajectory import Trajectory, map_over_time
from logpi.networks.policy import Policy


def regularised_reward(
    reward: Float[AnyArray, "*steps"], log_ratio: Float[Array, "*steps"], coefficient: Number
) -> Float[Array, "*steps"]:
    """r_{t+1} - β log(π(a_t|s_t) / π_ref(a_t|s_t)), not differentiated.

    The expected sum of these is J - β KL(π, π_ref) of whole trajectories. Weights made of them give
    its exact gradient: what is left out, the derivative of log π(a_t|s_t) itself, has expectation
    0.
    """
    return jnp.asarray(reward) - coefficient * jax.lax.stop_gradient(log_ratio)


def near_reference(
    policy: Policy, reference: Policy | None, trajectory: Trajectory, coefficient: Number
) -> Trajectory:
    """The trajectory as `regularised_reward` pays it; itself without a reference."""
    if reference is None:
        return trajectory

    def log_ratio(chunk: tuple[AnyArray, AnyArray]) -> Float[Array, "chunk env"]:
        observation, action = chunk
        own = policy(observation).log_prob(action)
        other = reference(observation).log_prob(action)
        return jnp.asarray(own) - jnp.asarray(other)

    taken = (trajectory.observation, trajectory.action)
    distance = map_over_time(log_ratio, taken, trajectory.used)
    reward = regularised_reward(trajectory.reward, distance, coefficient)
    return trajectory._replace(reward=jnp.where(trajectory.mask, reward, 0.0))


def require_same_form(policy: Policy, reference: Policy, source: str) -> None:
    """Refuse a reference that is another kind of policy than the one that is to be trained.

    **Raises:** `LogpiError`.
    """
    if policy.memory.recurrent:
        raise LogpiError(
            "a policy with a memory cannot have a reference: what that would remember is not kept"
        )
    if _form(policy) != _form(reference):
        raise LogpiError(
            f"the policy of {source} has another form: its environment, --hidden, --network,"
            " --actions or --normalize-observations is another"
        )


def _form(policy: Policy) -> Any:
    """A user's network is known by the shapes of its parameters: its classes are made anew whenever
    its file is loaded.
    """
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(eqx.filter(policy, eqx.is_array))]
    rest = jax.tree.structure((policy.encoder, policy.head, policy.masked))
    return type(policy.network), rest, shapes
