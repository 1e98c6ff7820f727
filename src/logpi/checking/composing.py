"""How a trainer calls a loss: on parts of a batch whose gradients it accumulates, with a state that
it carries from batch to batch, with advantages that it has computed before.

Each is an estimator of the same contract, made of the author's own.
"""

import inspect
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial
from types import BuiltinFunctionType, FunctionType
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from logpi.core.errors import LogpiError
from logpi.core.foreign import describe
from logpi.core.user_files import inner_function, name_of
from logpi.estimators.contract import Estimator, Layout, as_estimator

Accumulation: TypeAlias = Literal["mean", "sum"]
# What a loss calls that which is computed before it.
GIVEN = ("advantages", "advantage")
# What has no axis of episodes.
UNDIVIDED = ("discount", "policy")


class Calling(NamedTuple):
    """How a trainer calls a loss."""

    layout: Layout
    micro_batches: int
    accumulate: Accumulation

    def of(self, loss: Estimator) -> Estimator:
        """The loss of a whole batch."""
        own = as_estimator(loss, self.layout)
        return in_micro_batches(own, self.micro_batches, self.accumulate)


def in_micro_batches(loss: Estimator, count: int, accumulate: Accumulation) -> Estimator:
    """Σ_m loss(part m), or its mean, over `count` parts of neighbouring episodes: what accumulated
    gradients are the gradient of. A part keeps the padding of the whole batch.
    """
    if count == 1:
        return loss

    def accumulated(**inputs: Any) -> Any:
        divided = [name for name in inputs if name not in UNDIVIDED]
        episodes = len(inputs[divided[0]])
        total: Any = 0.0
        parts = part_of_each(episodes, count)
        for part in np.unique(parts):
            members = np.flatnonzero(parts == part)
            rows = slice(members[0], members[-1] + 1)
            own = {name: inputs[name][rows] for name in divided}
            value = loss(**(inputs | own))
            if getattr(value, "shape", ()) != ():
                raise LogpiError(
                    f"{name_of(loss)} returns weights: micro-batches need the loss that is called"
                    " on each of them"
                )
            total = total + value
        if accumulate == "mean":
            return total / len(np.unique(parts))
        return total

    return _as_called(accumulated, loss)


def part_of_each(episodes: int, count: int) -> np.ndarray:
    """The number of the micro-batch of each episode."""
    return np.arange(episodes) * count // episodes


def from_state(estimator: Estimator) -> tuple[Estimator, Estimator]:
    """An object that keeps a state between calls as two estimators: one that goes on, to bring the
    state to where it is after some batches, and one that always starts from there and forgets.

    **Raises:** `LogpiError` for a function, whose state cannot be copied.
    """
    if isinstance(inner_function(estimator), FunctionType | BuiltinFunctionType):
        raise LogpiError(
            f"{name_of(estimator)} is a function: --state needs an object whose __call__ is the"
            " estimator and whose attributes are its state, such as loss = Loss()"
        )
    try:
        current = deepcopy(estimator)
    except Exception as error:
        raise LogpiError(
            f"the state of {name_of(estimator)} cannot be copied: {describe(error)}. Keep what it"
            " computes in its attributes, and locks, files and generators elsewhere"
        ) from error

    def forgetting(**inputs: Any) -> Any:
        return deepcopy(current)(**inputs)

    return current, _as_called(forgetting, estimator)


def _as_called(function: Callable[..., Any], inner: Estimator) -> Estimator:
    """With the parameters of `inner` that are not given yet, and its code for whoever looks at
    it.
    """
    signature = inspect.signature(inner)
    given: Mapping[str, Any] = {}
    if isinstance(inner, partial):
        given = inner.keywords
    free = [each for name, each in signature.parameters.items() if name not in given]
    function.__signature__ = signature.replace(parameters=free)  # type: ignore[attr-defined]
    function.__wrapped__ = inner  # type: ignore[attr-defined]
    return function


def given_name(loss: Estimator) -> str | None:
    """The parameter by which a loss asks for advantages that were computed before; None where it
    does not, or has a default for it.
    """
    try:
        parameters = inspect.signature(loss).parameters
    except (TypeError, ValueError):
        return None
    for name in GIVEN:
        if name in parameters and parameters[name].default is inspect.Parameter.empty:
            return name
    return None
