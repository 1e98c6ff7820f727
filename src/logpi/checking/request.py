"""What a framework is asked, and what it answers: ∂loss/∂(what depends on θ), for every batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy import ndarray

FrameworkName: TypeAlias = Literal["numpy", "torch", "jax"]
Arrays: TypeAlias = dict[str, ndarray]
# A second derivative that is larger than this is none of rounding.
LINKED = 1e-9


@dataclass(frozen=True)
class Request:
    """Batches to evaluate: arrays with a leading axis [batch], the table of logits without it."""

    names: tuple[str, ...]
    constant: Arrays
    leaves: Arrays
    discount: float
    shape: tuple[int, ...]
    """Of `log_prob` in one batch."""
    count: int
    """Number of batches."""
    cells: Arrays = field(default_factory=dict)
    """Of the leaves that a policy gives: numbers [batch, …], equal where two entries are the same
    function of θ, such as log π of the same action in the same state."""

    def some(self, indices: Sequence[int]) -> "Request":
        """These batches."""
        picked = np.asarray(indices)
        constant = self.take(self.constant, picked)
        leaves = self.take(self.leaves, picked)
        cells = self.take(self.cells, picked)
        return replace(self, constant=constant, leaves=leaves, cells=cells, count=len(picked))

    def take(self, arrays: Arrays, index: int | ndarray) -> Arrays:
        """The arrays of one batch, or of several."""
        return {name: array if name == "policy" else array[index] for name, array in arrays.items()}


@dataclass(frozen=True)
class Answer:
    """∂loss/∂leaf of every batch, [batch, …]; or `weights` [batch, …] of ∇ log π, if those were
    returned.
    """

    cotangents: Arrays
    weights: ndarray | None = None
    loss: ndarray | None = None
    """[batch] values of the loss, if that was returned."""
    single_precision: bool = False
    step: float = 1.0
    """Between the losses whose differences `cotangents` are, if they are."""

    @staticmethod
    def of_batches(
        weights: list[ndarray], gradients: list[Arrays], losses: list[float], single: bool
    ) -> "Answer":
        """From what each batch gave: weights, or a loss and its gradient."""
        if weights:
            return Answer({}, np.stack(weights).astype(np.float64), single_precision=single)
        stacked = {
            name: np.stack([gradient[name] for gradient in gradients]) for name in gradients[0]
        }
        return Answer(stacked, loss=np.array(losses), single_precision=single)

    @property
    def rounding(self) -> ndarray:
        """[batch] Errors that are left in `cotangents`: those of the loss, over the step."""
        if self.loss is None:
            return np.zeros(len(self.finite_batches))
        precision = np.float32 if self.single_precision else np.float64
        return np.finfo(precision).eps * np.abs(self.loss) / self.step

    @property
    def finite(self) -> bool:
        """Whether every number of the answer is finite."""
        return bool(self.finite_batches.all())

    @property
    def finite_batches(self) -> ndarray:
        """[batch] Whether every number of a batch's answer is finite."""
        parts = [
            part
            for part in (*self.cotangents.values(), self.weights, self.loss)
            if part is not None
        ]
        return np.all(
            [np.isfinite(part).reshape(len(part), -1).all(axis=1) for part in parts], axis=0
        )


class TabularPolicy:
    """π(a|o) = softmax(table[o])_a in the estimator's framework; differentiable."""

    def __init__(self, table: Any, log_softmax: Callable[[Any], Any], exp: Callable[[Any], Any]):
        self._table = table
        self._log = log_softmax(table)
        self._exp = exp

    def logits(self, observation: Any) -> Any:
        """[…, actions]."""
        return self._table[observation]

    def log_prob(self, observation: Any, action: Any) -> Any:
        """log π(action|observation), of the shape of `action`."""
        return self._log[observation, action]

    def entropy(self, observation: Any) -> Any:
        """-Σ_a π log π."""
        return -(self._exp(self._log) * self._log).sum(-1)[observation]


@runtime_checkable
class Framework(Protocol):
    """An estimator in its own framework."""

    name: FrameworkName

    def output(self, request: Request, index: int) -> ndarray:
        """What the function returns for one batch, as an array."""
        ...

    def values(self, request: Request) -> list[ndarray]:
        """What the function returns for every batch, whatever its shape; not differentiated."""
        ...

    def evaluate(self, request: Request) -> Answer:
        """Every batch of the request.

        **Raises:** `LogpiError` for a function that fails, or returns neither a loss nor weights.
        """
        ...

    def moves_critic(self, request: Request) -> bool:
        """Whether what moves the policy also moves the critic: ∂²loss/∂value ∂log_prob is not 0 in
        some batch.
        """
        ...
