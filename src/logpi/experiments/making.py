"""Where the runs of an experiment are made."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from logpi.core.checks import is_whole, require, step_count
from logpi.core.machine import usable_cores
from logpi.environments.registry import EnvironmentLike, make_environment
from logpi.environments.spec import CompiledEnvironment
from logpi.experiments.on_ray import run_on_ray
from logpi.experiments.processes import Done, run_in_processes
from logpi.experiments.task import Task
from logpi.experiments.together import MOST_TOGETHER, run_together
from logpi.methods.method import Method
from logpi.methods.reinforce import Reinforce
from logpi.runs.evaluation import FinalEvaluation
from logpi.runs.folder import RunFolder, new_folder
from logpi.runs.settings import Settings
from logpi.sampling.seam import Ray


class Makers:
    """So many processes of this machine, or a cluster of Ray. By default one process a processor,
    but for compiled environments, on which the seeds of a setting are one program.

    **Raises:** `LogpiError` for a number that is none.
    """

    def __init__(self, processes: int | None, on: Ray | None):
        valid = processes is None or (is_whole(processes) and processes >= 1)
        require(valid, "processes", "a whole number >= 1", processes)
        self._processes = processes
        self._on = on

    def make(self, tasks: Sequence[Task], done: Done) -> None:
        """Make the runs of all tasks; `done` hears of each, and why it has failed.

        **Raises:** `LogpiError` where there is no cluster; `KeyboardInterrupt`, after the runs
        under way have been saved.
        """
        if self._on is not None:
            run_on_ray(tasks, self._on, done)
        elif self._processes is None and _is_compiled(tasks[0]):
            for together in _of_one_setting(tasks):
                run_together(together, done)
        else:
            run_in_processes(tasks, self._processes or usable_cores(), done)


def _is_compiled(task: Task) -> bool:
    """Whether the environment of a run, which all runs of an experiment share, is part of its
    program.
    """
    made = make_environment(task.environment, task.settings.environment_options)
    return isinstance(made, CompiledEnvironment)


def _of_one_setting(tasks: Sequence[Task]) -> list[list[Task]]:
    """The runs that differ in nothing but their seeds, at most `MOST_TOGETHER` at a time."""
    groups = [
        list(group)
        for _, group in itertools.groupby(tasks, lambda task: replace(task.settings, seed=0))
    ]
    return [
        group[first : first + MOST_TOGETHER]
        for group in groups
        for first in range(0, len(group), MOST_TOGETHER)
    ]


def settings_of(
    environment: EnvironmentLike, method: Method | None, steps: int | float
) -> Settings:
    """Settings of runs that have one processor each.

    **Raises:** `LogpiError`.
    """
    name = environment
    if not isinstance(name, str):
        name = make_environment(environment).spec.name
    return Settings(name, method or Reinforce(), steps=step_count(steps), workers=0)


def folder_of(out: str | Path | None, kind: str, settings: Settings) -> Path:
    """The folder of an experiment: `out`, or `KIND/ENV_N` with the first free N.

    **Raises:** `LogpiError` where it cannot be made.
    """
    if out is not None:
        return Path(out).absolute()
    return new_folder(Path(kind), settings.environment).absolute()


def require_trainable(environment: EnvironmentLike, settings: Settings) -> None:
    """Refuse an environment that cannot be made, or settings that it cannot be learned with.

    **Raises:** `LogpiError`.
    """
    made = make_environment(environment, settings.environment_options)
    settings.algorithm.require_usable(settings.algorithm.make_learner(made.spec, settings.seed))


def evaluation_of(folder: Path) -> FinalEvaluation | None:
    """What the policy of a finished run is worth; None where there is no such run."""
    if not folder.is_dir():
        return None
    return RunFolder.open(folder).last_evaluation()
