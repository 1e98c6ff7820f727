"""logpi: policy gradients done exactly and fast.

The public names are imported when they are first used, so that `import logpi` costs nothing. No module has the name of
a public function: importing it would put the module in the function's place.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from logpi.algorithm import A2C as A2C, NPG as NPG, PPO as PPO, TRPO as TRPO, Reinforce as Reinforce
    from logpi.checking.checker import check as check
    from logpi.checking.report import CheckReport as CheckReport
    from logpi.errors import LogpiError as LogpiError
    from logpi.evaluation import Evaluation as Evaluation, evaluate as evaluate
    from logpi.mdp import FiniteMDP as FiniteMDP
    from logpi.objective import (
        exact_gradient as exact_gradient,
        exact_objective as exact_objective,
        exact_values as exact_values,
        optimal_objective as optimal_objective,
    )
    from logpi.plotting import plot as plot
    from logpi.training import Run as Run, load as load, resume as resume, train as train

_MODULES = {
    "CheckReport": "checking.report",
    "check": "checking.checker",
    "A2C": "algorithm",
    "NPG": "algorithm",
    "PPO": "algorithm",
    "Reinforce": "algorithm",
    "TRPO": "algorithm",
    "LogpiError": "errors",
    "Evaluation": "evaluation",
    "evaluate": "evaluation",
    "FiniteMDP": "mdp",
    "exact_gradient": "objective",
    "exact_objective": "objective",
    "exact_values": "objective",
    "optimal_objective": "objective",
    "plot": "plotting",
    "Run": "training",
    "load": "training",
    "resume": "training",
    "train": "training",
}

__all__ = [*_MODULES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'logpi' has no attribute {name!r}")
    return getattr(import_module(f"logpi.{_MODULES[name]}"), name)
