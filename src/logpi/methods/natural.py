"""NPG: the natural gradient F⁻¹ĝ, which gains most for what it costs in KL (Kakade 2002).

F(θ) = E[∇ log π ∇ log πᵀ] is the second derivative of KL(π_θ, π_θ') at θ' = θ. KL depends on θ'
through the numbers z(θ') of the law alone, its logits or means and deviations, and its derivative
by them is 0 there. So F = Jᵀ H J with J = ∂z/∂θ and H = ∂²KL/∂z²: three products, and F is never
formed (Schulman et al. 2015, appendix C).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, final, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from logpi.core.arrays import Number, Scalar
from logpi.core.options import COUNT, NOT_NEGATIVE, POSITIVE, Between, OneOf, Options, option
from logpi.core.randomness import Stream, numpy_generator
from logpi.core.trajectory import Trajectory
from logpi.environments.spec import EnvironmentSpec
from logpi.methods.descent import Descent, adam_step, along_minibatches
from logpi.methods.learner import Learner, Metrics, adam_state, make_learner
from logpi.methods.rollouts import (
    RolloutMethod,
    RolloutOptions,
    Rows,
    Steps,
    epoch_keys,
    gains_on,
    laws,
    make_critic,
    make_rollout_policy,
    mean_kl_of_laws,
    prepare,
    require_divisor,
    rollout_metrics,
    squared_error,
)
from logpi.networks.distributions import Distribution
from logpi.networks.options import NetworkOptions
from logpi.networks.parameters import Vector, as_vector
from logpi.networks.policy import Policy

# v ↦ A v.
MatrixProduct = Callable[[PyTree], PyTree]
# The law that parameters give, and how far one law is from another.
Law = Callable[[PyTree], PyTree]
Divergence = Callable[[PyTree, PyTree], Scalar]


@dataclass(frozen=True, kw_only=True)
class NaturalOptions(Options):
    """Options of the methods that take one step along the natural gradient."""

    learning_rate: Number = option(0.001, POSITIVE, Between(3e-4, 3e-3))
    """Adam's step size for the critic."""
    kl_limit: Number = option(0.01, POSITIVE, Between(3e-3, 0.1))
    """Mean KL(old, new) of an update, to second order."""
    conjugate_gradient_steps: int = option(10, COUNT)
    """Products with the Fisher matrix with which F x = ĝ is solved."""
    damping: Number = option(0.1, NOT_NEGATIVE)
    """Added to the diagonal of the Fisher matrix."""
    value_epochs: int = option(10, COUNT)
    """The critic's passes over a rollout."""
    value_minibatches: int = option(16, COUNT)
    """Parts into which each pass divides it. With a memory each part is as many whole streams."""


@runtime_checkable
class NaturalMethod(RolloutMethod, Protocol):
    """What the functions below need of a method."""

    @property
    def learning_rate(self) -> Number: ...
    @property
    def max_gradient_norm(self) -> Number: ...
    @property
    def kl_limit(self) -> Number: ...
    @property
    def conjugate_gradient_steps(self) -> int: ...
    @property
    def damping(self) -> Number: ...
    @property
    def value_epochs(self) -> int: ...
    @property
    def value_minibatches(self) -> int: ...


@final
@dataclass(frozen=True, kw_only=True)
class NPG(RolloutOptions, NaturalOptions, NetworkOptions):
    """Natural policy gradient (Kakade 2002): θ ← θ + β F⁻¹ĝ, F the Fisher matrix, β such that
    KL = `kl_limit`.

    **Raises:** `LogpiError` for a value out of its range.
    """

    target: ClassVar[str] = "conventional-continuing"

    rollout_steps: int = option(128, COUNT, OneOf((64, 128, 256, 512)))
    """Steps of each copy between two updates. An episode may go on in the next rollout."""

    def _require_consistent(self) -> None:
        super()._require_consistent()
        require_divisor(self, "value_minibatches")

    def make_learner(self, spec: EnvironmentSpec, seed: int) -> Learner:
        return make_natural_learner(self, spec, seed)

    def surrogate(self, log_prob: Steps, old_log_prob: Steps, advantage: Steps) -> Steps:
        return importance_surrogate(log_prob - old_log_prob, advantage)

    def update(self, learner: Learner, trajectory: Trajectory) -> tuple[Learner, Metrics]:
        learner, rows = prepare(self, learner, trajectory)
        ascent = natural_ascent(self, learner, rows)
        return finish_update(self, learner, trajectory, rows, ascent, jnp.ones(()))


def importance_surrogate(log_ratio: Steps, advantage: Steps) -> Steps:
    """ρ A, ρ = π(a|s) / π_old(a|s): its gradient is A ∇ log π where π is still π_old [D1.3]."""
    return jnp.exp(log_ratio) * advantage


def make_natural_learner(options: NetworkOptions, spec: EnvironmentSpec, seed: int) -> Learner:
    """A learner whose critic alone has the moments of Adam."""
    random = numpy_generator(seed, Stream.INITIALISATION)
    policy = make_rollout_policy(options, spec, random)
    value = make_critic(options, policy, spec, random)
    return make_learner(options, policy, value, ((), adam_state(value)), seed)


class Ascent(NamedTuple):
    """Where the policy stands, the step that F⁻¹ĝ proposes, and what the step is judged by."""

    old: Vector
    step: Vector
    rebuild: Callable[[Vector], Policy]
    objective: Callable[[Vector], Scalar]
    kl: Callable[[Vector], Scalar]
    before: Scalar
    gradient: Vector


def natural_ascent(method: NaturalMethod, learner: Learner, rows: Rows) -> Ascent:
    """β F⁻¹ĝ with KL = `kl_limit`."""
    old, rebuild = as_vector(learner.policy)
    old_law = laws(learner.policy, rows)

    def law(parameters: Vector) -> Distribution:
        return laws(rebuild(parameters), rows)

    def divergence(old: Distribution, new: Distribution) -> Scalar:
        return mean_kl_of_laws(old, new, rows)

    def objective(parameters: Vector) -> Scalar:
        return -gains_on(method, law(parameters), rows).loss

    def kl(parameters: Vector) -> Scalar:
        return divergence(old_law, law(parameters))

    before, gradient = jax.value_and_grad(objective)(old)
    natural = scale_by_natural_gradient(
        method.kl_limit, method.conjugate_gradient_steps, method.damping
    )
    step, _ = natural.update(gradient, optax.EmptyState(), old, law=law, divergence=divergence)
    return Ascent(old, jnp.asarray(step), rebuild, objective, kl, before, gradient)


def finish_update(
    method: NaturalMethod,
    learner: Learner,
    trajectory: Trajectory,
    rows: Rows,
    ascent: Ascent,
    scale: Scalar,
) -> tuple[Learner, Metrics]:
    """Take `scale` times the step, then fit the critic."""
    policy = ascent.rebuild(ascent.old + scale * ascent.step)
    learner, metrics = fit_critic(method, learner._replace(policy=policy), rows)
    metrics |= {
        "surrogate": ascent.before,
        "gradient_norm": jnp.linalg.norm(ascent.gradient),
        "step_scale": scale,
    }
    return learner, metrics | rollout_metrics(policy, trajectory, rows)


def fit_critic(method: NaturalMethod, learner: Learner, rows: Rows) -> tuple[Learner, Metrics]:
    """Adam on the critic's squared error, along minibatches of the rollout."""
    parameters, rebuild = as_vector(learner.critic)

    def loss(parameters: Vector, rows: Rows) -> tuple[Scalar, Metrics]:
        error = squared_error(rebuild(parameters), rows)
        return error, {"value_loss": error}

    start = Descent(parameters, learner.value_optimizer)
    step = adam_step(method.learning_rate, method.max_gradient_norm, loss)
    keys = epoch_keys(learner, method.value_epochs)
    state, history = along_minibatches(step, start, rows, keys, method.value_minibatches)
    learner = learner._replace(value=rebuild(state.parameters), value_optimizer=state.moments)
    return learner, {"value_loss": jnp.mean(history["value_loss"])}


def fisher_vector_product(
    law: Law, divergence: Divergence, parameters: PyTree, damping: Number
) -> MatrixProduct:
    """v ↦ (Jᵀ H J + damping I) v at `parameters`, for the `law` that they give, in arrays of real
    numbers, and the mean KL as the `divergence` from the old law to a new one.

    J v is what v pulls back through u ↦ Jᵀ u: convolutions have no forward mode.
    """
    old, pull_back = jax.vjp(law, parameters)
    _, push = jax.vjp(pull_back, old)

    def slope(new: PyTree) -> PyTree:
        return jax.grad(divergence, argnums=1)(old, new)

    def product(vector: PyTree) -> PyTree:
        (moved,) = push((vector,))
        _, curved = jax.jvp(slope, (old,), (moved,))
        (pulled,) = pull_back(curved)
        return jax.tree.map(lambda f, v: f + damping * v, pulled, vector)

    return product


def _dot(a: PyTree, b: PyTree) -> Scalar:
    return jnp.asarray(optax.tree.vdot(a, b))


def _quotient(a: Number, b: Scalar) -> Scalar:
    """a / b, and 0 where b is not positive."""
    positive = b > 0
    return jnp.where(positive, a / jnp.where(positive, b, 1.0), 0.0)


class _Solution(NamedTuple):
    """x, what is left of b - A x, the direction of the next step, and the residual's square."""

    x: PyTree
    residual: PyTree
    direction: PyTree
    size: Scalar


def conjugate_gradient(product: MatrixProduct, target: PyTree, steps: int) -> PyTree:
    """x with A x ≈ target after `steps` steps from 0, A positive definite.

    Once x is exact, the rest of the steps change nothing.
    """

    def step(_: Any, now: _Solution) -> _Solution:
        moved = product(now.direction)
        length = _quotient(now.size, _dot(now.direction, moved))
        x = jax.tree.map(lambda x, d: x + length * d, now.x, now.direction)
        residual = jax.tree.map(lambda r, m: r - length * m, now.residual, moved)
        size = _dot(residual, residual)
        share = _quotient(size, now.size)
        direction = jax.tree.map(lambda r, d: r + share * d, residual, now.direction)
        return _Solution(x, residual, direction, size)

    zero = jax.tree.map(jnp.zeros_like, target)
    start = _Solution(zero, target, target, _dot(target, target))
    return jax.lax.fori_loop(0, steps, step, start).x


def scale_by_natural_gradient(
    kl_limit: Number, steps: int, damping: Number
) -> optax.GradientTransformationExtraArgs:
    """x = F⁻¹ĝ, scaled so that KL = ½ xᵀ(F + damping I) x is `kl_limit`.

    An Optax transformation for any estimator: `update(gradient, state, parameters, law=...,
    divergence=...)`, with these as in `fisher_vector_product`. A zero gradient stays zero.
    """

    def init(_: Any) -> optax.EmptyState:
        return optax.EmptyState()

    def update(
        updates: Any,
        state: Any,
        params: Any = None,
        *,
        law: Law,
        divergence: Divergence,
        **_: Any,
    ) -> Any:
        product = fisher_vector_product(law, divergence, params, damping)
        x = conjugate_gradient(product, updates, steps)
        cost = 0.5 * _dot(x, product(x))
        scale = jnp.sqrt(_quotient(kl_limit, cost))
        return jax.tree.map(lambda leaf: scale * leaf, x), state

    return optax.GradientTransformationExtraArgs(init, update)  # type: ignore[arg-type]
