"""Arrays of JAX and of NumPy alike: their types, their precision, and sums over the steps that a
mask marks.
"""

from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

# Trajectories are of JAX arrays in compiled programs, and of NumPy arrays where Python steps the
# environment.
AnyArray: TypeAlias = Array | np.ndarray

Scalar: TypeAlias = Float[Array, ""]

# An option may change while a run goes on; in a compiled program it is then an array.
Number: TypeAlias = float | Scalar


def float_dtype() -> np.dtype:
    """The kind of real number in use: float32, or float64 where JAX's x64 is on."""
    return jax.dtypes.canonicalize_dtype(float)


def beside(flag: Bool[AnyArray, "*steps"], x: AnyArray) -> Bool[AnyArray, "..."]:
    """`flag` with as many axes as `x`, whose leading ones it has."""
    return flag.reshape(*flag.shape, *[1] * (x.ndim - flag.ndim))


def masked_mean(x: Float[AnyArray, "*steps"], mask: Bool[AnyArray, "*steps"]) -> Float[Array, ""]:
    """Mean over the steps that belong to a trajectory; 0 where none does."""
    return jnp.sum(jnp.where(mask, x, 0.0)) / jnp.maximum(jnp.sum(mask), 1)


def masked_share(
    flag: Bool[AnyArray, "*steps"], mask: Bool[AnyArray, "*steps"]
) -> Float[Array, ""]:
    """Share of the steps that belong to a trajectory for which the flag is set; 0 where none
    does.
    """
    return jnp.sum(flag & mask) / jnp.maximum(jnp.sum(mask), 1)


def masked_variance(
    x: Float[AnyArray, "*steps"], mask: Bool[AnyArray, "*steps"]
) -> Float[Array, ""]:
    """Variance over the steps that belong to a trajectory."""
    return masked_mean((x - masked_mean(x, mask)) ** 2, mask)


def explained_variance(
    target: Float[AnyArray, "*steps"],
    predicted: Float[AnyArray, "*steps"],
    mask: Bool[AnyArray, "*steps"],
) -> Float[Array, ""]:
    """1 - Var(target - predicted) / Var(target) over the steps that belong to a trajectory; NaN for
    equal targets.
    """
    spread = masked_variance(target, mask)
    return jnp.where(spread > 0, 1 - masked_variance(target - predicted, mask) / spread, jnp.nan)
