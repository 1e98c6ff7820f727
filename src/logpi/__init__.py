"""logpi: policy gradients done exactly and fast.

The public names are imported when they are first used, so that `import logpi` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from logpi.config import Reinforce as Reinforce
    from logpi.errors import LogpiError as LogpiError
    from logpi.evaluate import Evaluation as Evaluation, evaluate as evaluate
    from logpi.mdp import FiniteMDP as FiniteMDP
    from logpi.objective import (
        exact_gradient as exact_gradient,
        exact_objective as exact_objective,
        exact_values as exact_values,
        optimal_objective as optimal_objective,
    )
    from logpi.plot import plot as plot
    from logpi.train import Run as Run, load as load, resume as resume, train as train

_MODULES = {
    "Reinforce": "config",
    "LogpiError": "errors",
    "Evaluation": "evaluate",
    "evaluate": "evaluate",
    "FiniteMDP": "mdp",
    "exact_gradient": "objective",
    "exact_objective": "objective",
    "exact_values": "objective",
    "optimal_objective": "objective",
    "plot": "plot",
    "Run": "train",
    "load": "train",
    "resume": "train",
    "train": "train",
}

__all__ = [*_MODULES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'logpi' has no attribute {name!r}")
    return getattr(import_module(f"logpi.{_MODULES[name]}"), name)
