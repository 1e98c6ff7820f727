"""A sweep: the runs of several settings and seeds, each in its own folder."""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from logpi.core.checks import require, require_seed
from logpi.core.errors import LogpiError
from logpi.core.say import say
from logpi.environments.registry import EnvironmentLike
from logpi.experiments.making import (
    Makers,
    evaluation_of,
    folder_of,
    require_trainable,
    settings_of,
)
from logpi.experiments.task import Task
from logpi.methods.method import Method
from logpi.runs.evaluation import FinalEvaluation
from logpi.runs.folder import as_file_name
from logpi.runs.settings import Settings, as_number
from logpi.sampling.seam import Ray

SEEDS = range(10)


@dataclass(frozen=True)
class SweptRun:
    """One run of a sweep: its folder, its settings with their seed, what its policy is worth at the
    end; or why it has failed.
    """

    folder: Path
    settings: Settings
    evaluation: FinalEvaluation | None
    failure: str | None


@dataclass(frozen=True)
class Sweep:
    """The runs of a sweep, by settings and then by seeds, and the folder with their folders."""

    folder: Path
    runs: tuple[SweptRun, ...]


@runtime_checkable
class SweepReporter(Protocol):
    """What a sweep tells."""

    def start(self, folder: Path, count: int) -> None:
        """So many runs are to be made."""
        ...

    def finished(self, run: SweptRun, done: int, count: int) -> None:
        """One more is done, or has failed."""
        ...


class SilentSweepReporter:
    """Says nothing."""

    def start(self, folder: Path, count: int) -> None: ...
    def finished(self, run: SweptRun, done: int, count: int) -> None: ...


class LineSweepReporter:
    """A line for each run."""

    def start(self, folder: Path, count: int) -> None:
        say(f"{count} runs in {folder}")

    def finished(self, run: SweptRun, done: int, count: int) -> None:
        name = run.folder.name
        if run.folder.parent.name != run.folder.parents[1].name:
            name = f"{run.folder.parent.name}/{name}"
        if run.evaluation is None:
            say(f"{done} of {count}: {name} failed: {run.failure}")
        else:
            say(f"{done} of {count}: {name}: return {run.evaluation.most_probable}")


def sweep(
    environment: EnvironmentLike,
    algorithm: Method | None = None,
    *,
    seeds: Iterable[int] = SEEDS,
    settings: Mapping[str, Sequence[object]] | None = None,
    steps: int | float = 100_000,
    out: str | Path | None = None,
    processes: int | None = None,
    on: Ray | None = None,
    reporter: SweepReporter | None = None,
) -> Sweep:
    """Train with every combination of `settings`, each with every seed.

    `settings` are names of settings of a run or options of the algorithm, each with the values
    that it takes, such as `{"learning_rate": [1e-3, 3e-4]}`. So many `processes` of this machine
    make a run each, by default one a processor; with `on=logpi.Ray()` a cluster does. On compiled
    environments the seeds of a setting are one program, unless `processes` are given. Folders are
    `out/NAME=VALUE/seed_N`, by default in `sweeps/ENV_N`. A run that is there already is resumed if
    it is not finished, so a sweep that was stopped goes on when it is called again.

    **Raises:** `LogpiError` for settings, environments and folders that cannot be used, before the
    first run; `KeyboardInterrupt` after Ctrl-C, when the runs under way have been saved.
    """
    base = settings_of(environment, algorithm, steps)
    makers = Makers(processes, on)
    return sweep_as(base, environment, seeds, settings or {}, out, makers, reporter)


def sweep_as(
    base: Settings,
    environment: EnvironmentLike,
    seeds: Iterable[int],
    values: Mapping[str, Sequence[object]],
    out: str | Path | None,
    makers: Makers,
    reporter: SweepReporter | None = None,
) -> Sweep:
    """What `sweep` does, with settings that are together.

    **Raises:** as `sweep`.
    """
    reporter = reporter or SilentSweepReporter()
    chosen = list(seeds)
    require(bool(chosen), "seeds", "at least one", chosen)
    for seed in chosen:
        require_seed(seed)
    variants = list(_variants(base, values))
    for _, settings in variants:
        require_trainable(environment, settings)
    folder = folder_of(out, "sweeps", base)
    tasks = [
        Task(replace(settings, seed=seed), environment, folder / variant / f"seed_{seed}")
        for variant, settings in variants
        for seed in chosen
    ]
    for each, count in Counter(task.folder for task in tasks).items():
        if count > 1:
            raise LogpiError(f"two runs of the sweep are the same run: {each.relative_to(folder)}")
    reporter.start(folder, len(tasks))
    runs: dict[Path, SweptRun] = {}

    def done(task: Task, failure: str | None) -> None:
        runs[task.folder] = _swept(task, failure)
        reporter.finished(runs[task.folder], len(runs), len(tasks))

    makers.make(tasks, done)
    return Sweep(folder, tuple(runs[task.folder] for task in tasks))


def _variants(
    base: Settings, values: Mapping[str, Sequence[object]]
) -> Iterable[tuple[str, Settings]]:
    """Every combination of values: the name of its folder, and its settings.

    **Raises:** `LogpiError` for a setting that does not exist or a value that does not fit.
    """
    for name, options in values.items():
        require(len(options) > 0, name, "at least one value", options)
        if name in ("seed", "environment", "algorithm"):
            raise LogpiError(f"{name} is no setting to sweep over: one sweep has one {name}")
    fixed = base.located(Path.cwd()).to_json()
    varied = [name for name, options in values.items() if len(options) > 1]
    for combination in itertools.product(*values.values()):
        changed = dict(zip(values, combination, strict=True))
        settings = Settings.from_json(fixed | changed, "sweep")
        words = [as_file_name(f"{name}={_as_word(changed[name])}") for name in varied]
        yield ",".join(words), settings


def _as_word(value: Any) -> str:
    """64x64 for (64, 64)."""
    if isinstance(value, list | tuple):
        return "x".join(map(str, value))
    return str(value)


def _swept(task: Task, failure: str | None) -> SweptRun:
    """What has become of a task."""
    evaluation = None
    if failure is None:
        evaluation = evaluation_of(task.folder)
    return SweptRun(task.folder, task.settings, evaluation, failure)


def parse_seeds(text: str) -> list[int]:
    """0..9 or 0,1,5 as seeds.

    **Raises:** `LogpiError`.
    """
    first, dots, last = text.partition("..")
    words = [first, last] if dots else text.split(",")
    if not all(word.strip().isdecimal() for word in words):
        raise LogpiError(f"write seeds as 0..9 or 0,1,5, got {text!r}")
    numbers = [int(word) for word in words]
    if dots:
        return list(range(numbers[0], numbers[1] + 1))
    return numbers


def parse_values(texts: Sequence[str]) -> dict[str, list[Any]]:
    """learning_rate=1e-3,3e-4 as the values of a setting; those that are lists stand in brackets.

    **Raises:** `LogpiError`.
    """
    import yaml

    values: dict[str, list[Any]] = {}
    for text in texts:
        name, equals, listed = text.partition("=")
        name = name.strip().replace("-", "_")
        try:
            found = yaml.safe_load(f"[{listed}]")
        except yaml.YAMLError:
            found = []
        if not equals or not found or name in values:
            raise LogpiError(f"write --set as learning_rate=1e-3,3e-4, got {text!r}")
        values[name] = [as_number(value) for value in found]
    return values
