"""logpi: policy gradients done exactly and fast.

The public names are imported when they are first used, so that `import logpi` costs nothing. No
module has the name of a public function: importing it would put the module in the function's place.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from logpi.artifacts.exporting import Export as Export, export as export
    from logpi.artifacts.filming import record_video as record_video
    from logpi.artifacts.run_page import report as report
    from logpi.checking.checker import check as check
    from logpi.checking.report import CheckReport as CheckReport
    from logpi.core.errors import LogpiError as LogpiError
    from logpi.core.options import Between as Between, OneOf as OneOf
    from logpi.environments.spec import (
        CompiledEnvironment as CompiledEnvironment,
        EnvironmentSpec as EnvironmentSpec,
    )
    from logpi.experiments.comparison import Comparison as Comparison, compare as compare
    from logpi.experiments.listing import list_runs as list_runs
    from logpi.experiments.plotting import plot as plot
    from logpi.experiments.sweep import Sweep as Sweep, SweptRun as SweptRun, sweep as sweep
    from logpi.experiments.tuning import Tuning as Tuning, tune as tune
    from logpi.methods.a2c import A2C as A2C
    from logpi.methods.natural import NPG as NPG
    from logpi.methods.ppo import PPO as PPO
    from logpi.methods.ppo_penalty import PPOPenalty as PPOPenalty
    from logpi.methods.reinforce import Reinforce as Reinforce
    from logpi.methods.trust_region import TRPO as TRPO
    from logpi.networks.policy import Policy as Policy
    from logpi.runs.callbacks import Callback as Callback, Progress as Progress
    from logpi.runs.demonstrations import (
        Demonstrations as Demonstrations,
        record as record,
    )
    from logpi.runs.evaluation import Evaluation as Evaluation
    from logpi.runs.imitation import Imitation as Imitation, imitate as imitate
    from logpi.runs.loop import Run as Run
    from logpi.runs.metrics import Tracker as Tracker, WandbTracker as WandbTracker
    from logpi.runs.presets import Preset as Preset, preset as preset, presets as presets
    from logpi.runs.trained import evaluate as evaluate, load as load
    from logpi.runs.training import resume as resume, train as train
    from logpi.sampling.seam import Ray as Ray
    from logpi.theory.exact import (
        exact_gradient as exact_gradient,
        exact_objective as exact_objective,
        exact_values as exact_values,
        optimal_objective as optimal_objective,
    )
    from logpi.theory.mdp import FiniteMDP as FiniteMDP

_MODULES = {
    "Export": "artifacts.exporting",
    "export": "artifacts.exporting",
    "record_video": "artifacts.filming",
    "report": "artifacts.run_page",
    "CheckReport": "checking.report",
    "check": "checking.checker",
    "Comparison": "experiments.comparison",
    "compare": "experiments.comparison",
    "list_runs": "experiments.listing",
    "Sweep": "experiments.sweep",
    "Tuning": "experiments.tuning",
    "tune": "experiments.tuning",
    "Between": "core.options",
    "OneOf": "core.options",
    "CompiledEnvironment": "environments.spec",
    "EnvironmentSpec": "environments.spec",
    "SweptRun": "experiments.sweep",
    "A2C": "methods.a2c",
    "NPG": "methods.natural",
    "PPO": "methods.ppo",
    "PPOPenalty": "methods.ppo_penalty",
    "Reinforce": "methods.reinforce",
    "TRPO": "methods.trust_region",
    "Policy": "networks.policy",
    "LogpiError": "core.errors",
    "Callback": "runs.callbacks",
    "Progress": "runs.callbacks",
    "Tracker": "runs.metrics",
    "WandbTracker": "runs.metrics",
    "Demonstrations": "runs.demonstrations",
    "record": "runs.demonstrations",
    "Evaluation": "runs.evaluation",
    "Imitation": "runs.imitation",
    "imitate": "runs.imitation",
    "evaluate": "runs.trained",
    "FiniteMDP": "theory.mdp",
    "exact_gradient": "theory.exact",
    "exact_objective": "theory.exact",
    "exact_values": "theory.exact",
    "optimal_objective": "theory.exact",
    "plot": "experiments.plotting",
    "Preset": "runs.presets",
    "preset": "runs.presets",
    "presets": "runs.presets",
    "Ray": "sampling.seam",
    "Run": "runs.loop",
    "load": "runs.trained",
    "resume": "runs.training",
    "sweep": "experiments.sweep",
    "train": "runs.training",
}

__version__: str

__all__ = [*_MODULES, "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]


if not TYPE_CHECKING:  # or a type checker would take any name for a public one

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            from importlib.metadata import version  # takes longer than everything else here

            return version("logpi")
        if name not in _MODULES:
            raise AttributeError(f"module 'logpi' has no attribute {name!r}")
        return getattr(import_module(f"logpi.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
