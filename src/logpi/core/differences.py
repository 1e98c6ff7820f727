"""Derivatives of a function that is only called, as exact as float64 allows."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

# Central differences: f'(x) = Σ_j c_j (f(x + j h) - f(x - j h)) / h, of eighth order with a
# remainder of h^8 f^(9) / 630, of fourth order with one of h^4 f^(5) / 30.
EIGHTH_ORDER = (4 / 5, -1 / 5, 4 / 105, -1 / 280)
FOURTH_ORDER = (2 / 3, -1 / 12)
# The remainder of eighth order and the rounding ε / h are both near 1e-14 here.
STEP = 2.0**-5
# For functions that are called often, or have kinks and jumps: of fourth order the remainder and
# the rounding are near 1e-12, and within 1/256 of a point there is seldom a kink.
FINE_STEP = 2.0**-9


def derivative(
    function: Callable[[ndarray], Any],
    x: Float[ndarray, "*shape"],
    step: float = STEP,
    coefficients: tuple[float, ...] = EIGHTH_ORDER,
) -> ndarray:
    """∂f/∂x of shape [*f(x).shape, *x.shape]; two calls a coefficient and entry of x, and only two
    where f is flat, as a loss is in padding. Exact to rounding where f is linear.
    """

    def difference(shift: ndarray | np.float64) -> Any:
        return np.asarray(function(x + shift)) - np.asarray(function(x - shift))

    columns = []
    for index in np.ndindex(*x.shape):
        shift = np.zeros_like(x)
        shift[index] = step
        total = coefficients[0] * difference(shift)
        if np.any(total):
            for j, c in enumerate(coefficients[1:], start=2):
                total = total + c * difference(j * shift)
        columns.append(total / step)
    stacked = np.stack(columns, axis=-1)
    return stacked.reshape((*stacked.shape[:-1], *x.shape))
