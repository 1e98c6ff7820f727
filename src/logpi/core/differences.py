"""Derivatives of a function that is only called, as exact as float64 allows."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

# Central differences: f'(x) = Σ_j c_j (f(x + j h) - f(x - j h)) / h. What they leave out is
# h^8 f^(9) / 630 in eighth order, h^4 f^(5) / 30 in fourth and h^2 f^(3) / 6 in second.
EIGHTH_ORDER = (4 / 5, -1 / 5, 4 / 105, -1 / 280)
FOURTH_ORDER = (2 / 3, -1 / 12)
SECOND_ORDER = (1 / 2,)
# What eighth order leaves out and the rounding ε / h are both near 1e-14 here.
STEP = 2.0**-5
# For functions that are called often, or have kinks: of second order both are near 1e-11, at two
# calls an entry, and there is seldom a kink within 2e-5 of a point.
FINE_STEP = 2.0**-16


def derivative(
    function: Callable[[ndarray], Any],
    x: Float[ndarray, "*shape"],
    step: float = STEP,
    coefficients: tuple[float, ...] = EIGHTH_ORDER,
) -> ndarray:
    """∂f/∂x of shape [*f(x).shape, *x.shape]; two calls a coefficient and entry of x.

    Exact to rounding where f is linear.
    """
    columns = []
    for index in np.ndindex(*x.shape):
        shift = np.zeros_like(x)
        shift[index] = step
        total: Any = 0.0
        for j, coefficient in enumerate(coefficients, start=1):
            difference = np.asarray(function(x + j * shift)) - np.asarray(function(x - j * shift))
            total = total + coefficient * difference
        columns.append(total / step)
    stacked = np.stack(columns, axis=-1)
    return stacked.reshape((*stacked.shape[:-1], *x.shape))
