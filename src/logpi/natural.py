"""The natural gradient F⁻¹ĝ: the direction that gains most for the change of the distribution that it costs.

F(θ) = E[∇ log π ∇ log πᵀ] is the second derivative of KL(π_θ, π_θ') at θ' = θ, so that F v is a derivative of a
derivative and F is never formed (Kakade 2002; Schulman et al. 2015, appendix C).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from logpi.trajectory import Number, Scalar

Product = Callable[[PyTree], PyTree]


def fisher_vector_product(kl: Callable[[PyTree], Scalar], parameters: PyTree, damping: Number) -> Product:
    """v ↦ (F + damping I) v, `kl(parameters')` being the mean KL of the old policy to that of parameters'."""

    def product(vector: PyTree) -> PyTree:
        curved = jax.jvp(jax.grad(kl), (parameters,), (vector,))[1]
        return jax.tree.map(lambda f, v: f + damping * v, curved, vector)

    return product


def _dot(a: PyTree, b: PyTree) -> Scalar:
    return jnp.asarray(optax.tree.vdot(a, b))


def conjugate_gradient(product: Product, target: PyTree, steps: int) -> PyTree:
    """x with A x ≈ target after `steps` steps from 0, A positive definite; fewer where it is found exactly."""

    def step(_: Any, state: tuple[PyTree, PyTree, PyTree, Scalar]) -> tuple[PyTree, PyTree, PyTree, Scalar]:
        x, residual, direction, size = state
        moved = product(direction)
        curvature = _dot(direction, moved)
        length = jnp.where(curvature > 0, size / jnp.where(curvature > 0, curvature, 1.0), 0.0)
        x = jax.tree.map(lambda x, d: x + length * d, x, direction)
        residual = jax.tree.map(lambda r, m: r - length * m, residual, moved)
        smaller = _dot(residual, residual)
        share = jnp.where(size > 0, smaller / jnp.where(size > 0, size, 1.0), 0.0)
        return x, residual, jax.tree.map(lambda r, d: r + share * d, residual, direction), smaller

    start = (jax.tree.map(jnp.zeros_like, target), target, target, _dot(target, target))
    return jax.lax.fori_loop(0, steps, step, start)[0]


def scale_by_natural_gradient(kl_limit: Number, steps: int, damping: Number) -> optax.GradientTransformationExtraArgs:
    """x = F⁻¹ĝ, scaled so that KL = ½ xᵀ(F + damping I) x is `kl_limit`: an Optax transformation for any estimator.

    `update(gradient, state, parameters, kl=...)`, with `kl` as in `fisher_vector_product`. A zero gradient stays zero.
    """

    def update(updates: Any, state: Any, params: Any = None, *, kl: Callable[[PyTree], Scalar], **_: Any) -> Any:
        product = fisher_vector_product(kl, params, damping)
        x = conjugate_gradient(product, updates, steps)
        cost = 0.5 * _dot(x, product(x))
        scale = jnp.where(cost > 0, jnp.sqrt(kl_limit / jnp.where(cost > 0, cost, 1.0)), 0.0)
        return jax.tree.map(lambda leaf: scale * leaf, x), state

    return optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)  # type: ignore[arg-type]
