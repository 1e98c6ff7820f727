"""Adam along the minibatches of a rollout: for one loss of policy and critic, or for the critic
alone.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Key, PRNGKeyArray

from logpi.core.arrays import Number, Scalar
from logpi.core.errors import LogpiError
from logpi.core.options import NOT_NEGATIVE, Options, option
from logpi.core.randomness import Stream, numpy_generator, random_order
from logpi.environments.spec import EnvironmentSpec
from logpi.methods.learner import Learner, Metrics, adam_state, make_learner
from logpi.methods.rollouts import (
    RolloutMethod,
    Rows,
    gains_on,
    laws,
    make_critic,
    make_rollout_policy,
    squared_error,
)
from logpi.networks.critic import ValueFunction, make_value_on_trunk
from logpi.networks.options import NetworkOptions
from logpi.networks.parameters import Vector, as_vector
from logpi.networks.policy import Policy

# Adam's ε beside the root of the second moment, as in most libraries of these methods.
EPSILON = 1e-5


class Descent(NamedTuple):
    """Parameters, and the moments of Adam."""

    parameters: Vector
    moments: optax.OptState


Step: TypeAlias = Callable[[Descent, Rows], tuple[Descent, Metrics]]
History: TypeAlias = dict[str, Float[Array, "*steps"]]


def adam_step(
    learning_rate: Number,
    max_gradient_norm: Number,
    loss: Callable[[Vector, Rows], tuple[Scalar, Metrics]],
) -> Step:
    """One step of Adam down `loss`, with the gradient shortened to `max_gradient_norm`."""
    shorten = optax.clip_by_global_norm(max_gradient_norm)  # type: ignore[arg-type]
    adam = optax.scale_by_adam(eps=EPSILON)

    def step(state: Descent, rows: Rows) -> tuple[Descent, Metrics]:
        parameters, moments = state
        slope = jax.value_and_grad(loss, has_aux=True)
        (_, metrics), gradient = slope(parameters, rows)
        shortened, _ = shorten.update(gradient, optax.EmptyState())
        direction, moments = adam.update(shortened, moments)
        parameters = parameters - learning_rate * jnp.asarray(direction)
        norm = jnp.linalg.norm(gradient)
        return Descent(parameters, moments), metrics | {"gradient_norm": norm}

    return step


def along_minibatches(
    step: Step,
    state: Descent,
    rows: Rows,
    keys: Key[Array, " epochs"],
    minibatches: int,
    stop: Callable[[Vector], Bool[Array, ""]] | None = None,
) -> tuple[Descent, History]:
    """`step` along the columns, divided into minibatches in a new order for each of `keys`.

    An epoch before which `stop` holds is skipped, and has NaN for its metrics.
    """
    columns = rows.mask.shape[1]
    parts = math.gcd(minibatches, columns)

    def run(state: Descent, key: PRNGKeyArray) -> tuple[Descent, History]:
        order = random_order(key, columns).reshape(parts, -1)
        divided = jax.tree.map(lambda x: jnp.moveaxis(x[:, order], 1, 0), rows)
        return jax.lax.scan(step, state, divided)

    def skip(state: Descent, key: PRNGKeyArray) -> tuple[Descent, History]:
        metrics = jax.eval_shape(run, state, key)[1]
        return state, jax.tree.map(lambda x: jnp.full(x.shape, jnp.nan, x.dtype), metrics)

    def epoch(state: Descent, key: PRNGKeyArray) -> tuple[Descent, History]:
        if stop is None:
            return run(state, key)
        return jax.lax.cond(stop(state.parameters), skip, run, state, key)

    return jax.lax.scan(epoch, state, keys)


@dataclass(frozen=True, kw_only=True)
class JointOptions(Options):
    """Options of methods whose policy and critic descend one loss."""

    value_coefficient: Number = option(0.5, NOT_NEGATIVE)
    """Weight of the critic's squared error beside the policy's surrogate."""
    shared_trunk: bool = option(False)
    """Policy and critic have all layers but their last in common. So they have for an image, unless
    `hidden` is given. The policy must have no memory and no network of the user's."""


@runtime_checkable
class JointMethod(RolloutMethod, Protocol):
    """What the functions below need of a method whose policy and critic descend one loss."""

    @property
    def value_coefficient(self) -> Number: ...


def require_trunk(options: NetworkOptions, shared_trunk: bool) -> None:
    """Refuse a shared trunk for a policy that has other layers than its hidden ones.

    **Raises:** `LogpiError`.
    """
    if shared_trunk and not _is_plain(options):
        raise LogpiError("shared_trunk cannot be combined with a memory or your own network")


def _is_plain(options: NetworkOptions) -> bool:
    """Whether a policy has no other layers than its hidden ones."""
    return options.memory == "none" and options.network is None


def make_joint_learner(
    options: NetworkOptions, shared_trunk: bool, spec: EnvironmentSpec, seed: int
) -> Learner:
    """A learner whose policy and critic share the moments of Adam, and their layers if asked for.

    The usual network for an image has one trunk (Mnih et al. 2016, Schulman et al. 2017).
    """
    random = numpy_generator(seed, Stream.INITIALISATION)
    policy = make_rollout_policy(options, spec, random)
    is_usual_for_images = options.hidden is None and policy.encoder.is_image and _is_plain(options)
    if shared_trunk or is_usual_for_images:
        value = make_value_on_trunk(policy, random)
    else:
        value = make_critic(options, policy, spec, random)
    optimizers = (adam_state((policy, value)), ())
    return make_learner(options, policy, value, optimizers, seed)


class JointLoss(NamedTuple):
    """The loss of policy and critic as a function of one vector, and that vector."""

    parameters: Vector
    rebuild: Callable[[Vector], tuple[Policy, ValueFunction]]
    loss: Callable[[Vector, Rows], tuple[Scalar, Metrics]]


def joint_loss(
    method: JointMethod, learner: Learner, value_clip: Number | None = None
) -> JointLoss:
    """-(surrogate + bonus) + c · the critic's squared error, c being `value_coefficient`.

    Layers in common are applied once, so that the backward pass too goes through them once.
    """
    assert learner.value is not None
    parameters, rebuild = as_vector((learner.policy, learner.value))

    def loss(parameters: Vector, rows: Rows) -> tuple[Scalar, Metrics]:
        policy, value = rebuild(parameters)
        if value.encoder is None:
            hidden = policy.hidden(rows.observation)
            value = value.from_hidden(hidden)
            law = policy.from_hidden(hidden, rows.observation)
        else:
            law = laws(policy, rows)
        gained = gains_on(method, law, rows)
        error = squared_error(value, rows, value_clip)
        metrics = {"surrogate": gained.surrogate, "value_loss": error}
        return gained.loss + method.value_coefficient * error, metrics

    return JointLoss(parameters, rebuild, loss)


def with_descent(learner: Learner, joint: JointLoss, state: Descent) -> Learner:
    """The learner after a descent of the joint loss."""
    policy, value = joint.rebuild(state.parameters)
    return learner._replace(policy=policy, value=value, policy_optimizer=state.moments)
