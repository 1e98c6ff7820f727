"""A user's own network in the place of the policy's: `FILE.py:NAME`, a function that builds an
Equinox module.
"""

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float, PyTree

from logpi.core.arrays import AnyArray
from logpi.core.errors import LogpiError
from logpi.core.module import Module
from logpi.core.user_files import load_function


class _Fixed:
    """What of a module is no parameter: compared by identity, because it may hold anything."""

    def __init__(self, tree: PyTree):
        self.tree = tree


class UserNetwork(Module):
    """The user's module, which maps the features of one observation to the head's outputs, on
    batches.
    """

    parameters: PyTree
    fixed: _Fixed = eqx.field(static=True)
    features: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, x: Float[AnyArray, "*batch_and_features"]) -> AnyArray:
        """Outputs for features with any leading dimensions; a compiled call where the features are
        NumPy's.
        """
        if isinstance(x, np.ndarray):
            return np.asarray(_compiled(self, x))
        batch = x.shape[: x.ndim - len(self.features)]
        module = eqx.combine(self.parameters, self.fixed.tree)
        return jax.vmap(module)(x.reshape(-1, *self.features)).reshape(*batch, -1)


@jax.jit
def _compiled(network: UserNetwork, x: AnyArray) -> AnyArray:
    """Of a stack of batches one is computed after the other, each as if it were alone."""
    if x.ndim - len(network.features) < 2:
        return network(x)
    return jax.lax.map(network, x)


def make_user_network(
    source: str, features: tuple[int, ...], outputs: int, random: np.random.Generator
) -> UserNetwork:
    """What the function of `source` returns for (shape of the features, number of outputs, key).

    The features are a vector, or for an image `[height, width, channels]` scaled to [0, 1].

    **Raises:** `LogpiError` where the function fails, or its module does not map the one to the
    other.
    """
    build = load_function(source)
    key = jax.random.key(int(random.integers(2**31)))
    expected = f"a module that maps an array of shape {features} to one of shape ({outputs},)"
    try:
        if len(features) == 1:
            module = build(*features, outputs, key)
        else:
            module = build(features, outputs, key)
        shape = jax.eval_shape(module, jax.ShapeDtypeStruct(features, np.float32)).shape
    except Exception as error:
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise LogpiError(f"{source} must give {expected}; it raised {text}") from error
    if shape != (outputs,):
        raise LogpiError(f"{source} must give {expected}; its output has shape {shape}")
    parameters, fixed = eqx.partition(module, eqx.is_inexact_array)
    return UserNetwork(parameters, _Fixed(fixed), features)
