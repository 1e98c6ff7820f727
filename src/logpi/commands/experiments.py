"""`logpi sweep`, `tune`, `compare`, `plot` and `runs`."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tyro

from logpi.commands.training import Training


@dataclass
class Experiment(Training):
    """What `sweep` and `tune` have in common."""

    processes: int | None = None
    """Runs side by side on this machine, each in a process; by default one a processor; the
    seeds of a compiled environment learn in one program."""
    on: Literal["local", "ray"] = "local"
    """Where the runs are made: on this machine, or on a cluster of Ray that sees the same files."""

    def settings(self) -> Any:
        """The settings of each run. By default it plays in one process: the other processors have
        runs of their own.
        """
        settings = super().settings()
        if settings.workers is None:
            return replace(settings, workers=0)
        return settings

    def makers(self) -> Any:
        """What makes the runs."""
        from logpi.experiments.making import Makers
        from logpi.sampling.seam import Ray

        if self.on == "ray":
            return Makers(self.processes, Ray(self.ray_address))
        return Makers(self.processes, None)


@dataclass
class Sweep(Experiment):
    """Train with many seeds and settings, a run folder each, side by side on all processors.

    ENVIRONMENT and the options of the algorithm are those of `logpi train`. A sweep that was
    stopped goes on when the same command is given again, with its --out. Exit status: 0, 2 where a
    run has failed.
    """

    seeds: str = "0..9"
    """Seeds: 0..9, or 0,1,5."""
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """NAME=VALUE,VALUE: train with each of these values of a setting; may be given several
    times, and every combination is then trained."""
    out: Path | None = None
    """The folder of the run folders; by default sweeps/ENVIRONMENT_N."""

    def run(self) -> int:
        from logpi.experiments.sweep import LineSweepReporter, parse_seeds, parse_values, sweep_as

        makers = self.makers()
        swept = sweep_as(
            self.settings(),
            self.environment,
            parse_seeds(self.seeds),
            parse_values(self.set),
            self.out,
            makers,
            LineSweepReporter(),
        )
        failed = [run for run in swept.runs if run.failure is not None]
        return 2 if failed else 0


@dataclass
class Tune(Experiment):
    """Search for better settings, and run the best again on fresh seeds beside the defaults.

    ENVIRONMENT and the options of the algorithm are those of `logpi train`. A trial has several
    seeds and is worth the lower end of the interval of their mean. A search that was stopped goes
    on when the same command is given again, with its --out.
    """

    trials: int = 50
    """Settings that are tried."""
    space: Path | None = None
    """A YAML file of settings, such as learning_rate: {low: 1e-4, high: 1e-2} and epochs: [4, 10];
    by default what the algorithm names."""
    confirm: int = 10
    """Fresh seeds on which the best three and the defaults are run in the end."""
    search_seed: int = 0
    """Seed of what the search proposes."""
    out: Path | None = None
    """The folder of the search; by default tunings/ENVIRONMENT_N."""

    def run(self) -> None:
        from logpi.experiments.tuning import LineTuningReporter, read_space, tune_as

        makers = self.makers()
        space = None
        if self.space is not None:
            space = read_space(self.space)
        found = tune_as(
            self.settings(),
            self.environment,
            space,
            self.trials,
            self.confirm,
            self.search_seed,
            self.out,
            makers,
            LineTuningReporter(),
        )
        print(found)


@dataclass
class Compare:
    """Which of several methods is better, and whether that is more than chance.

    Each of GROUPS is a folder with runs of several seeds, or a pattern such as 'runs/Cart*'; the
    folder of a sweep alone gives a group for each of its settings. Every group is compared with the
    first.
    """

    groups: tyro.conf.Positional[tuple[str, ...]]
    json: bool = False
    """Print scores, estimates, profiles and differences as JSON."""

    def run(self) -> None:
        from logpi.experiments.comparison import compare

        found = compare(*self.groups)
        print(json.dumps(found.to_json()) if self.json else found)


@dataclass
class Plot:
    """Learning curves as a PNG: of runs, or the mean over the seeds of a sweep, with its
    interval.
    """

    run_folders: tyro.conf.Positional[tuple[Path, ...]]
    out: Path | None = None
    """The picture; by default in the run folder, or learning_curves.png here for several."""

    def run(self) -> None:
        from logpi.experiments.plotting import plot

        print(plot(self.run_folders, self.out))


@dataclass
class Runs:
    """The runs in a folder: how far they are, what they are worth, and who writes them."""

    folder: tyro.conf.Positional[Path] = Path("runs")
    json: bool = False
    """Print them as JSON."""

    def run(self) -> None:
        from logpi.experiments.listing import as_table, list_runs

        states = list_runs(self.folder)
        if self.json:
            print(json.dumps([state.to_json() for state in states]))
        else:
            print(as_table(states))
