"""Training with a user's own estimator: the function that `logpi check` checks, in JAX."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from logpi.core.arrays import AnyArray, Number
from logpi.core.errors import LogpiError
from logpi.core.trajectory import Trajectory
from logpi.core.user_files import load_function
from logpi.estimators.contract import (
    Estimator,
    as_estimator,
    call,
    requested_names,
    shape_of,
)
from logpi.estimators.score_function import score_function_surrogate
from logpi.networks.distributions import Distribution
from logpi.networks.parameters import Vector, as_vector
from logpi.networks.policy import Policy

# What a training batch of whole episodes does not have.
MISSING = {
    "next_value": "the final observations of a batch are not kept",
    "last_value": "the final observations of a batch are not kept",
    "group": "there are no prompts",
}


class UserEstimator(NamedTuple):
    """The user's function, and the names that it asks for."""

    function: Estimator
    names: tuple[str, ...]


def load_estimator(
    source: str, has_value: bool, has_reference: bool, has_memory: bool
) -> UserEstimator:
    """The function of `FILE.py:NAME`.

    **Raises:** `LogpiError` where it asks for what training cannot give.
    """
    function = as_estimator(load_function(source))
    names = requested_names(function)
    for name in names:
        if name in MISSING:
            reason = f"which training does not have: {MISSING[name]}"
            raise LogpiError(f"{source} asks for {name!r}, {reason}")
        if name == "value" and not has_value:
            raise LogpiError(f"{source} asks for 'value': train with --baseline value")
        if name == "reference_log_prob" and not has_reference:
            raise LogpiError(f"{source} asks for 'reference_log_prob': train with --reference RUN")
        if name == "policy" and has_memory:
            reason = "which with a memory is no function of one observation"
            raise LogpiError(f"{source} asks for 'policy', {reason}")
    return UserEstimator(function, names)


class _Scores:
    """π as a contract's `policy`: functions of [episodes, time] arrays."""

    def __init__(self, policy: Policy):
        self._policy = policy

    def log_prob(self, observation: AnyArray, action: AnyArray) -> Array:
        return jnp.asarray(self._policy(observation).log_prob(action))

    def logits(self, observation: AnyArray) -> Array:
        return jnp.asarray(self._policy(observation).logits)  # type: ignore[union-attr]

    def entropy(self, observation: AnyArray) -> Array:
        return jnp.asarray(self._policy(observation).entropy())


def user_gradient(
    source: str,
    discount: Number,
    policy: Policy,
    reference: Policy | None,
    trajectory: Trajectory,
    value: Float[Array, "time env"] | None,
) -> tuple[Vector, dict[str, Float[Array, ""]]]:
    """Minus the gradient of the user's loss, with the surrogate and summed entropy.

    Where the function returns weights, 1/N Σ_i Σ_t weight ∇ log π.

    **Raises:** `LogpiError` where the function fails, returns something else, or cannot be traced
    by JAX.
    """
    recurrent = policy.memory.recurrent
    estimator = load_estimator(source, value is not None, reference is not None, recurrent)
    constant = _constant_inputs(discount, reference, trajectory, value)
    mask = constant["mask"]
    parameters, rebuild = as_vector(policy)

    def objective(parameters: Vector) -> tuple[Float[Array, ""], dict[str, Array]]:
        policy = rebuild(parameters)
        law = policy.distributions(trajectory.observation, trajectory.step, trajectory.memory)
        law = jax.tree.map(_episodes_first, law)
        inputs = constant | _policy_inputs(policy, law, constant["action"])
        if "logits" in estimator.names and inputs["logits"] is None:
            reason = "which the policy of this action space does not have"
            raise LogpiError(f"{source} asks for 'logits', {reason}")
        output = call(estimator.function, {name: inputs[name] for name in estimator.names})
        log_prob = inputs["log_prob"]
        if shape_of(output, log_prob.shape, source) == ():
            gain = -jnp.asarray(output)
        else:
            gain = score_function_surrogate(log_prob.T, jnp.asarray(output).T, mask.T)
        entropy = jnp.sum(jnp.where(mask, inputs["entropy"], 0.0))
        return gain, {"surrogate": gain, "entropy": jax.lax.stop_gradient(entropy)}

    return jax.grad(objective, has_aux=True)(parameters)


def _constant_inputs(
    discount: Number,
    reference: Policy | None,
    trajectory: Trajectory,
    value: Float[Array, "time env"] | None,
) -> dict[str, Any]:
    """What an estimator may ask for and θ does not move, as [episodes, time] arrays."""
    given: dict[str, Any] = {
        "observation": _episodes_first(trajectory.observation),
        "action": _episodes_first(trajectory.action),
        "reward": _episodes_first(trajectory.reward),
        "terminated": _episodes_first(trajectory.terminated),
        "truncated": _episodes_first(trajectory.truncated),
        "mask": _episodes_first(trajectory.mask),
        "step": _episodes_first(trajectory.step),
        "discount": discount,
    }
    given["done"] = given["terminated"] | given["truncated"]
    given["length"] = jnp.sum(given["mask"], axis=1)
    if value is not None:
        given["value"] = jax.lax.stop_gradient(_episodes_first(value))
    if reference is not None:
        law = reference(given["observation"])
        given["reference_log_prob"] = law.log_prob(given["action"])
    return given


def _policy_inputs(policy: Policy, law: Distribution, action: Array) -> dict[str, Any]:
    """What an estimator may ask for and θ moves."""
    log_prob = law.log_prob(action)
    return {
        "log_prob": log_prob,
        "old_log_prob": jax.lax.stop_gradient(log_prob),
        "sampling_log_prob": jax.lax.stop_gradient(log_prob),
        "entropy": law.entropy(),
        "logits": getattr(law, "logits", None),
        "policy": _Scores(policy),
    }


def _episodes_first(x: AnyArray) -> Array:
    """[time, env, …] → [episodes, time, …]."""
    return jnp.swapaxes(jnp.asarray(x), 0, 1)
