"""Gauss rules for a Gaussian variable, whole or cut where what is integrated has an edge."""

from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

# The law beyond so many standard deviations is less than rounding.
FARTHEST = 12.0
# Points of the fine rule that the weight of each interval is taken from.
FINE = 400


class Rule(NamedTuple):
    """E[f(x)] ≈ Σ_i weight_i f(node_i)."""

    node: Float[ndarray, " nodes"]
    weight: Float[ndarray, " nodes"]


@cache
def gaussian_rule(edges: tuple[float, ...], nodes: int) -> Rule:
    """The rule for x ~ N(0, 1) with `nodes` in each interval between `edges`, exact where f is a
    polynomial of degree 2 nodes - 1 in each of them.
    """
    inner = [edge for edge in edges if -FARTHEST < edge < FARTHEST]
    limits = [-FARTHEST, *inner, FARTHEST]
    parts = [_rule_of_interval(low, high, nodes) for low, high in pairwise(limits)]
    return Rule(
        np.concatenate([part.node for part in parts]),
        np.concatenate([part.weight for part in parts]),
    )


def _rule_of_interval(low: float, high: float, nodes: int) -> Rule:
    """The eigenvalues of the matrix of the recurrence of the polynomials that are orthogonal under
    the law in this interval (Golub and Welsch 1969); the recurrence by Stieltjes' procedure.
    """
    x, width = _fine_rule()
    x = low + (high - low) * (x + 1) / 2
    law = width * (high - low) / 2 * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    mass = law.sum()
    before = np.zeros_like(x)
    now = np.full_like(x, 1 / np.sqrt(mass))
    diagonal = []
    beside = [0.0]
    for _ in range(nodes):
        diagonal.append(np.sum(law * x * now**2))
        after = (x - diagonal[-1]) * now - beside[-1] * before
        beside.append(np.sqrt(np.sum(law * after**2)))
        before = now
        now = after / beside[-1]
    recurrence = np.diag(diagonal) + np.diag(beside[1:-1], 1) + np.diag(beside[1:-1], -1)
    node, vectors = np.linalg.eigh(recurrence)
    return Rule(node, mass * vectors[0] ** 2)


@cache
def _fine_rule() -> tuple[ndarray, ndarray]:
    """Gauss and Legendre's on [-1, 1]."""
    return np.polynomial.legendre.leggauss(FINE)
