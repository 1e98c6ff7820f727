"""Training with a user's own estimator: the function that `logpi check` checks, in JAX."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from logpi.algorithm import Algorithm, Reinforce
from logpi.contract import Estimator, call, shape_of, wanted
from logpi.errors import LogpiError
from logpi.estimator import score_function_surrogate
from logpi.files import load_function
from logpi.policy import Policy, Vector, as_vector
from logpi.trajectory import AnyArray, Trajectory

# What a training batch of whole episodes does not have.
MISSING = {
    "next_value": "the final observations of a batch are not kept",
    "last_value": "the final observations of a batch are not kept",
    "group": "there are no prompts",
}


def require_usable(config: Algorithm) -> None:
    """**Raises:** `LogpiError` where an algorithm has an own estimator that training cannot serve."""
    if isinstance(config, Reinforce) and config.estimator is not None:
        has_value, has_reference = config.baseline == "value", config.reference is not None
        own_estimator(config.estimator, has_value, has_reference, config.memory != "none")


def own_estimator(
    source: str, has_value: bool, has_reference: bool, has_memory: bool
) -> tuple[Estimator, tuple[str, ...]]:
    """The function of `FILE.py:NAME`, and what it asks for.

    **Raises:** `LogpiError` where training cannot give that.
    """
    estimator = load_function(source)
    names = wanted(estimator)
    for name in names:
        if name in MISSING:
            raise LogpiError(f"{source} asks for {name!r}, which training does not have: {MISSING[name]}")
        if name == "value" and not has_value:
            raise LogpiError(f"{source} asks for 'value': train with --baseline value")
        if name == "reference_log_prob" and not has_reference:
            raise LogpiError(f"{source} asks for 'reference_log_prob': train with --reference RUN")
        if name == "policy" and has_memory:
            raise LogpiError(f"{source} asks for 'policy', which with a memory is no function of one observation")
    return estimator, names


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


def _turned(x: AnyArray) -> Array:
    """[time, env, …] → [episodes, time, …]."""
    return jnp.swapaxes(jnp.asarray(x), 0, 1)


def _given(
    discount: float, reference: Policy | None, trajectory: Trajectory, value: Float[Array, "time env"] | None
) -> dict[str, Any]:
    """What an estimator may ask for and θ does not move, as [episodes, time] arrays."""
    names = ("observation", "action", "reward", "terminated", "truncated", "mask", "step")
    given: dict[str, Any] = {name: _turned(getattr(trajectory, name)) for name in names}
    given |= {
        "done": given["terminated"] | given["truncated"],
        "length": jnp.sum(given["mask"], axis=1),
        "value": None if value is None else jax.lax.stop_gradient(_turned(value)),
        "discount": discount,
    }
    if reference is not None:
        given["reference_log_prob"] = reference(given["observation"]).log_prob(given["action"])
    return given


def own_gradient(
    source: str,
    discount: float,
    policy: Policy,
    reference: Policy | None,
    trajectory: Trajectory,
    value: Float[Array, "time env"] | None,
) -> tuple[Vector, dict[str, Float[Array, ""]]]:
    """Minus the gradient of the user's loss, or Σ weight ∇ log π, mean over episodes, if it returns weights.

    **Raises:** `LogpiError` where the function fails, returns something else, or cannot be traced by JAX.
    """
    estimator, names = own_estimator(source, value is not None, reference is not None, policy.memory is not None)
    constant = _given(discount, reference, trajectory, value)
    parameters, with_parameters = as_vector(policy)

    def objective(parameters: Vector) -> tuple[Float[Array, ""], dict[str, Array]]:
        policy = with_parameters(parameters)
        blank = policy.blank(trajectory.mask.shape[1])
        distribution = jax.tree.map(_turned, policy.along(trajectory.observation, trajectory.step, blank))
        log_prob, entropy = distribution.log_prob(constant["action"]), distribution.entropy()
        given = constant | {
            "log_prob": log_prob,
            "old_log_prob": jax.lax.stop_gradient(log_prob),
            "entropy": entropy,
            "logits": getattr(distribution, "logits", None),
            "policy": _Scores(policy),
        }
        if "logits" in names and given["logits"] is None:
            raise LogpiError(f"{source} asks for 'logits', which the policy of this action space does not have")
        output = call(estimator, {name: given[name] for name in names})
        if shape_of(output, log_prob.shape, source) == ():
            gain = -jnp.asarray(output)
        else:
            mask = constant["mask"]
            gain = score_function_surrogate(log_prob.T, jnp.asarray(output).T, mask.T)
        mean_entropy = jnp.sum(jnp.where(constant["mask"], entropy, 0.0))
        return gain, {"surrogate": gain, "entropy": jax.lax.stop_gradient(mean_entropy)}

    return jax.grad(objective, has_aux=True)(parameters)
