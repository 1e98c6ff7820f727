"""Staying near a reference policy: its distance as part of the reward, so that its gradient is exact."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from logpi.errors import LogpiError
from logpi.policy import Policy
from logpi.trajectory import AnyArray, Number, Trajectory, map_over_time


def regularised_reward(
    reward: Float[AnyArray, "*steps"], log_ratio: Float[Array, "*steps"], coefficient: Number
) -> Float[Array, "*steps"]:
    """r_{t+1} - β log(π(a_t|s_t) / π_ref(a_t|s_t)), not differentiated.

    The expected sum of these is J - β KL(π, π_ref) of whole trajectories. Weights made of them give its exact
    gradient: what is left out, the derivative of log π(a_t|s_t) itself, has expectation 0.
    """
    return jnp.asarray(reward) - coefficient * jax.lax.stop_gradient(log_ratio)


def near_reference(policy: Policy, reference: Policy | None, trajectory: Trajectory, coefficient: Number) -> Trajectory:
    """The trajectory as `regularised_reward` pays it; itself without a reference."""
    if reference is None:
        return trajectory

    def log_ratio(chunk: Trajectory) -> Float[Array, "chunk env"]:
        own, other = (p(chunk.observation).log_prob(chunk.action) for p in (policy, reference))
        return jnp.asarray(own) - jnp.asarray(other)

    reward = regularised_reward(trajectory.reward, map_over_time(log_ratio, trajectory, trajectory.used), coefficient)
    return trajectory._replace(reward=jnp.where(trajectory.mask, reward, 0.0))


def require_same_form(policy: Policy, reference: Policy, source: str) -> None:
    """**Raises:** `LogpiError` where the reference is another kind of policy than the one that is to be trained."""
    if policy.memory is not None:
        raise LogpiError("a policy with a memory cannot have a reference: what that would remember is not kept")
    shapes = lambda policy: list(map(np.shape, jax.tree.leaves(eqx.filter(policy, eqx.is_array))))
    # An own network is known by the shapes of its parameters: its classes are made anew whenever its file is loaded.
    rest = lambda policy: jax.tree.structure((policy.encoder, policy.head, policy.masked))
    kind = lambda policy: (type(policy.network), rest(policy), shapes(policy))
    if kind(policy) != kind(reference):
        raise LogpiError(
            f"the policy of {source} has another form: its environment, --hidden, --network, --actions or"
            " --normalize-observations is another"
        )
