"""Estimators in NumPy or plain Python: losses are differentiated by differences, weights are taken
as they are.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy import ndarray

from logpi.checking.request import Answer, Arrays, FrameworkName, Request, TabularPolicy
from logpi.core.differences import FINE_STEP, FOURTH_ORDER, SECOND_ORDER, STEP, derivative
from logpi.core.user_files import name_of
from logpi.estimators.contract import CRITIC, Estimator, blame, call, shape_of
from logpi.theory.exact import log_softmax


def _as_input(name: str, array: ndarray) -> Any:
    """An array as the author gets it: read only, a number where it has no axis."""
    if name == "policy":
        return TabularPolicy(array, log_softmax, np.exp)
    if array.ndim == 0:
        return array.item()
    view = array.view()
    view.flags.writeable = False
    return view


def _differences(single: bool) -> tuple[float, tuple[float, ...]]:
    """Step and coefficients. Large steps where the loss is in single precision, whose rounding a
    small step would blow up.
    """
    if single:
        return STEP, FOURTH_ORDER
    return FINE_STEP, SECOND_ORDER


class NumpyFramework:
    """Plain NumPy or plain Python. A loss is differentiated by differences, weights are taken as
    they are.
    """

    name: FrameworkName = "numpy"

    def __init__(self, function: Estimator):
        self.function = function

    def inputs(self, request: Request, constant: Arrays, leaves: Arrays) -> dict[str, Any]:
        """What one call gets; nothing in it can be written to."""
        arrays = constant | leaves
        given: dict[str, Any] = {"discount": request.discount}
        for name in request.names:
            if name in arrays:
                given[name] = _as_input(name, arrays[name])
        return {name: given[name] for name in request.names}

    def output(self, request: Request, index: int) -> ndarray:
        """What the function returns for one batch, as an array."""
        output = self._value(request, index)
        shape_of(output, request.shape, name_of(self.function))
        return np.asarray(output)

    def _value(self, request: Request, index: int) -> Any:
        constant = request.take(request.constant, index)
        leaves = request.take(request.leaves, index)
        return call(self.function, self.inputs(request, constant, leaves))

    def values(self, request: Request) -> list[ndarray]:
        """What the function returns for every batch, whatever its shape."""
        return [np.asarray(self._value(request, index)) for index in range(request.count)]

    def evaluate(self, request: Request) -> Answer:
        """Every batch, one after the other."""
        name = name_of(self.function)
        outputs = []
        gradients = []
        losses = []
        single = False
        for index in range(request.count):
            output = self._value(request, index)
            single |= np.asarray(output).dtype == np.float32
            if shape_of(output, request.shape, name) == ():
                losses.append(float(output))
                gradients.append(self._gradient(request, index, single))
            else:
                outputs.append(np.asarray(output))
        answer = Answer.of_batches(outputs, gradients, losses, single)
        step, _ = _differences(single)
        return replace(answer, step=step)

    def _gradient(self, request: Request, index: int, single: bool) -> Arrays:
        """By entries that are the same function of θ together, which takes fewer calls: their
        common derivative stands at the first of them, and is 0 at the others.
        """
        constant = request.take(request.constant, index)
        leaves = request.take(request.leaves, index)
        cells = request.take(request.cells, index)
        given = self.inputs(request, constant, leaves)
        step, coefficients = _differences(single)
        gradients = {}
        # A NumPy author differentiates by hand, and never through the critic.
        with blame(self.function):
            for name in [each for each in leaves if each not in CRITIC]:
                point = np.asarray(leaves[name], np.float64)
                every_entry = np.arange(point.size).reshape(point.shape)
                cell = cells.get(name, every_entry)
                _, first, place = np.unique(cell, return_index=True, return_inverse=True)
                loss = partial(self._loss, given, name, place.reshape(point.shape))
                gradient = np.zeros(point.size)
                gradient[first] = derivative(loss, point.ravel()[first], step, coefficients)
                gradients[name] = gradient.reshape(point.shape)
        return gradients

    def _loss(self, given: Arrays, name: str, place: ndarray, x: ndarray) -> Any:
        """What the function returns with x[place] in the place of one of its inputs."""
        return self.function(**(given | {name: _as_input(name, x[place])}))

    def moves_critic(self, request: Request) -> bool:
        """Never: a NumPy author differentiates by hand, and not through the critic."""
        return False
