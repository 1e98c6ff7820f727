"""What of a policy or a critic is trained, as one vector; and what is a statistic."""

from collections.abc import Callable
from typing import TypeAlias, TypeVar

import equinox as eqx
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from logpi.networks.critic import Units
from logpi.networks.encoder import Standardiser

Tree = TypeVar("Tree")
Vector: TypeAlias = Float[Array, " parameters"]


def split_statistics(tree: Tree) -> tuple[Tree, Tree]:
    """(what is trained, what is a statistic of what was seen); `eqx.combine` joins them."""

    def is_statistic(x: object) -> bool:
        return isinstance(x, Standardiser | Units)

    return eqx.partition(tree, lambda x: not is_statistic(x), is_leaf=is_statistic)


def as_vector(tree: Tree) -> tuple[Vector, Callable[[Vector], Tree]]:
    """All that is trained in one vector, and the way from such a vector back to the tree.

    An optimiser of one vector is a handful of kernels, that of a tree a handful for each of its
    leaves.
    """
    trained, statistics = split_statistics(tree)
    vector, unravel = ravel_pytree(trained)

    def rebuild(vector: Vector) -> Tree:
        return eqx.combine(unravel(vector), statistics)

    return vector, rebuild
