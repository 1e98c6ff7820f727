"""A search for better settings, in which luck chooses nothing.

A trial has several seeds, and is worth the lower end of the 95 % interval of their mean. The best
few are run again on fresh seeds, beside the defaults on the same seeds.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from logpi.core.checks import is_whole, require
from logpi.core.errors import LogpiError
from logpi.core.options import Between, OneOf, Search, searched
from logpi.core.say import say
from logpi.environments.registry import EnvironmentLike
from logpi.experiments.comparison import Comparison, compare_groups
from logpi.experiments.groups import Group, find_runs
from logpi.experiments.making import (
    Makers,
    evaluation_of,
    folder_of,
    require_trainable,
    settings_of,
)
from logpi.experiments.task import Task
from logpi.methods.method import Method
from logpi.runs.evaluation import mean_interval
from logpi.runs.settings import Settings, as_number, read_settings
from logpi.sampling.seam import Ray

# Seeds of a trial: the first, and those of one that was not worse in all of them.
FIRST_SEEDS = range(2)
MORE_SEEDS = range(2, 5)
# Seeds of the confirmation begin here: no trial has seen them.
FRESH = 1000
FINALISTS = 3
BEST = "best.json"
DEFAULTS = "defaults"


@dataclass(frozen=True)
class Trial:
    """Settings that were tried: the return of each seed, and how it ended."""

    number: int
    settings: Mapping[str, Any]
    returns: tuple[float, ...]
    is_given_up: bool

    @property
    def worth(self) -> float:
        """The lower end of the 95 % interval of the mean over its seeds."""
        return mean_interval(np.array(self.returns))[0]


@dataclass(frozen=True)
class Tuning:
    """The best settings on fresh seeds, beside the defaults; `comparison` has the intervals."""

    folder: Path
    trials: tuple[Trial, ...]
    best: Mapping[str, Any]
    is_better: bool
    comparison: Comparison

    def __str__(self) -> str:
        chosen = ", ".join(f"{name} {_shown(value)}" for name, value in self.best.items())
        if self.is_better:
            verdict = f"better than the defaults on fresh seeds: {chosen}\n{self.folder / BEST}"
        else:
            verdict = f"no better than the defaults on fresh seeds; the best found: {chosen}"
        return f"{self.comparison}\n\n{verdict}"


@runtime_checkable
class TuningReporter(Protocol):
    """What a search tells."""

    def start(self, folder: Path, space: Mapping[str, Search], trials: int) -> None:
        """What is tried, and how often."""
        ...

    def tried(self, trial: Trial, best: float) -> None:
        """A trial is done; `best` is the worth of the best so far."""
        ...

    def confirming(self, runs: int) -> None:
        """The best are run again on fresh seeds."""
        ...


class SilentTuningReporter:
    """Says nothing."""

    def start(self, folder: Path, space: Mapping[str, Search], trials: int) -> None: ...
    def tried(self, trial: Trial, best: float) -> None: ...
    def confirming(self, runs: int) -> None: ...


class LineTuningReporter:
    """A line for each trial."""

    def start(self, folder: Path, space: Mapping[str, Search], trials: int) -> None:
        say(f"{trials} trials of {', '.join(space)}, in {folder}")

    def tried(self, trial: Trial, best: float) -> None:
        values = ", ".join(f"{name} {_shown(value)}" for name, value in trial.settings.items())
        if not trial.returns:
            end = "failed"
        elif trial.is_given_up:
            end = f"{np.mean(trial.returns):.1f} after {len(trial.returns)} seeds, given up"
        else:
            end = f"{np.mean(trial.returns):.1f}, at least {trial.worth:.1f}"
            if trial.worth >= best:
                end += ", the best so far"
        say(f"trial {trial.number}: {end}: {values}")

    def confirming(self, runs: int) -> None:
        say(f"the best on fresh seeds, beside the defaults: {runs} runs")


def tune(
    environment: EnvironmentLike,
    algorithm: Method | None = None,
    *,
    space: Mapping[str, Search] | None = None,
    trials: int = 50,
    confirm: int = 10,
    steps: int | float = 100_000,
    seed: int = 0,
    out: str | Path | None = None,
    processes: int | None = None,
    on: Ray | None = None,
    reporter: TuningReporter | None = None,
) -> Tuning:
    """Search for settings that are better than those of `algorithm` (`pip install 'logpi[tune]'`).

    `space` has a `logpi.Between` or a `logpi.OneOf` for each setting that is tried; by default
    those of the algorithm. Optuna's TPE proposes from `seed`. A trial that is worse than the best
    so far in each of its first two seeds is given up; the others get three more. The best three
    and `algorithm` as it is are then run on `confirm` fresh seeds. Everything is in `out`, by
    default `tunings/ENV_N`: a search that was stopped goes on when it is called again with it.

    **Raises:** `LogpiError` for what cannot be searched; `KeyboardInterrupt` after Ctrl-C.
    """
    base = settings_of(environment, algorithm, steps)
    makers = Makers(processes, on)
    return tune_as(base, environment, space, trials, confirm, seed, out, makers, reporter)


def tune_as(
    base: Settings,
    environment: EnvironmentLike,
    space: Mapping[str, Search] | None,
    trials: int,
    confirm: int,
    seed: int,
    out: str | Path | None,
    makers: Makers,
    reporter: TuningReporter | None = None,
) -> Tuning:
    """What `tune` does, with settings that are together.

    **Raises:** as `tune`.
    """
    for what, count in (("trials", trials), ("confirm", confirm)):
        require(is_whole(count) and count >= 1, what, "a whole number >= 1", count)
    reporter = reporter or SilentTuningReporter()
    if space is None:
        space = searched(type(base.algorithm))
    for name, tried in space.items():
        for value in _corners(tried):
            _with(base, {name: value})
    require_trainable(environment, base)
    folder = folder_of(out, "tunings", base)
    reporter.start(folder, space, trials)
    search = _Search(base.located(Path.cwd()), environment, space, seed, folder, makers)
    found = search.go_on(trials, reporter)
    return _confirmed(search, found, confirm, reporter)


class _Search:
    """Trials by Optuna's ask and tell; its journal and the runs' folders hold all that is known."""

    def __init__(
        self,
        base: Settings,
        environment: EnvironmentLike,
        space: Mapping[str, Search],
        seed: int,
        out: Path,
        makers: Makers,
    ):
        try:
            self._optuna: Any = import_module("optuna")
            journal: Any = import_module("optuna.storages.journal")
        except ImportError:
            raise LogpiError("a search needs a package: pip install 'logpi[tune]'") from None
        self._optuna.logging.set_verbosity(self._optuna.logging.WARNING)
        self.base = base
        self.out = out
        self._environment = environment
        self._space = space
        self._seed = seed
        self._makers = makers
        out.mkdir(parents=True, exist_ok=True)
        file = journal.JournalFileBackend(str(out / "journal.log"))
        self._study: Any = self._optuna.create_study(
            storage=self._optuna.storages.JournalStorage(file),
            study_name="logpi",
            direction="maximize",
            load_if_exists=True,
        )
        self._require_same_search()

    def go_on(self, trials: int, reporter: TuningReporter) -> list[Trial]:
        """The trials that are there, and as many more as are missing."""
        found: list[Trial] = []
        states = self._optuna.trial.TrialState
        while len(found) < trials:
            known = self._study.get_trials(deepcopy=False)
            number = len(found)
            if number < len(known) and known[number].state != states.RUNNING:
                found.append(self._known(known[number]))
                continue
            if number < len(known):  # it was under way when the search was stopped
                settings = known[number].params
            else:
                settings = self._ask(number)
            trial = self._try(number, self._decoded(settings), found)
            self._tell(trial)
            found.append(trial)
            finished = [each.worth for each in found if not each.is_given_up]
            reporter.tried(trial, max(finished, default=-np.inf))
        return found

    def run(
        self, name: str, settings: Mapping[str, Any], seeds: Sequence[int]
    ) -> tuple[float, ...] | None:
        """Returns of some settings with these seeds; None where a run has failed."""
        chosen = _with(self.base, settings)
        tasks = [
            Task(replace(chosen, seed=seed), self._environment, self._folder(name, seed))
            for seed in seeds
        ]
        failures: list[str] = []

        def done(task: Task, failure: str | None) -> None:
            if failure is not None:
                failures.append(failure)

        self._makers.make(tasks, done)
        if failures:
            return None
        evaluations = [evaluation_of(task.folder) for task in tasks]
        return tuple(each.most_probable.mean for each in evaluations if each is not None)

    def _try(self, number: int, settings: Mapping[str, Any], before: Sequence[Trial]) -> Trial:
        """Try some settings, beside the best of the trials before."""
        name = f"trial_{number}"
        first = self.run(name, settings, FIRST_SEEDS)
        if first is None:
            return Trial(number, settings, (), True)
        finished = [trial for trial in before if not trial.is_given_up]
        best = max(finished, key=lambda trial: trial.worth, default=None)
        if best is not None and np.all(np.array(first) < best.returns[: len(first)]):
            return Trial(number, settings, first, True)
        more = self.run(name, settings, MORE_SEEDS)
        if more is None:
            return Trial(number, settings, (), True)
        return Trial(number, settings, first + more, False)

    def _ask(self, number: int) -> Mapping[str, Any]:
        """What Optuna proposes for a trial: a function of the trials before, and of its number."""
        self._study.sampler = self._optuna.samplers.TPESampler(seed=self._seed + number)
        trial = self._study.ask()
        for name, tried in self._space.items():
            match tried:
                case Between(int() as low, int() as high):
                    trial.suggest_int(name, low, high, log=True)
                case Between(low, high):
                    trial.suggest_float(name, low, high, log=True)
                case OneOf(values):
                    trial.suggest_categorical(name, [json.dumps(value) for value in values])
        return trial.params

    def _decoded(self, proposed: Mapping[str, Any]) -> dict[str, Any]:
        """Values that Optuna has as text, as they are."""
        return {
            name: json.loads(value) if isinstance(self._space[name], OneOf) else value
            for name, value in proposed.items()
        }

    def _tell(self, trial: Trial) -> None:
        """Write the end of a trial into the journal."""
        if trial.is_given_up:
            self._study.tell(trial.number, state=self._optuna.trial.TrialState.PRUNED)
        else:
            self._study.tell(trial.number, trial.worth)

    def _known(self, frozen: Any) -> Trial:
        """A trial of the journal; what it has returned is in the folders of its runs."""
        returns = []
        for seed in (*FIRST_SEEDS, *MORE_SEEDS):
            evaluation = evaluation_of(self._folder(f"trial_{frozen.number}", seed))
            if evaluation is not None:
                returns.append(evaluation.most_probable.mean)
        is_given_up = frozen.state != self._optuna.trial.TrialState.COMPLETE
        return Trial(frozen.number, self._decoded(frozen.params), tuple(returns), is_given_up)

    def _folder(self, name: str, seed: int) -> Path:
        """Where the run of some settings with a seed lies."""
        return self.out / name / f"seed_{seed}"

    def _require_same_search(self) -> None:
        """Refuse a folder that holds the search of something else.

        **Raises:** `LogpiError`.
        """
        space = {name: [type(tried).__name__, vars(tried)] for name, tried in self._space.items()}
        settings = self.base.to_json()
        described = json.loads(
            json.dumps({"settings": settings, "space": space, "seed": self._seed})
        )
        known = self._study.user_attrs.get("search")
        if known is None:
            self._study.set_user_attr("search", described)
        elif known != described:
            raise LogpiError(f"{self.out} holds another search: give another --out")


def _confirmed(
    search: _Search, trials: Sequence[Trial], confirm: int, reporter: TuningReporter
) -> Tuning:
    """The best trials on fresh seeds, beside the defaults.

    **Raises:** `LogpiError` where there is no trial to confirm.
    """
    finished = [trial for trial in trials if not trial.is_given_up]
    if not finished:
        raise LogpiError(f"no trial has come to its end: look into the runs in {search.out}")
    finalists = sorted(finished, key=lambda trial: trial.worth, reverse=True)[:FINALISTS]
    seeds = range(FRESH, FRESH + confirm)
    reporter.confirming(confirm * (1 + len(finalists)))
    settings: dict[str, Mapping[str, Any]] = {DEFAULTS: {}}
    settings |= {f"trial_{trial.number}": trial.settings for trial in finalists}
    means: dict[str, float] = {}
    for name, chosen in settings.items():
        returns = search.run(f"confirmed/{name}", chosen, seeds)
        if returns is None:
            raise LogpiError(f"a run of {search.out / 'confirmed' / name} has failed")
        means[name] = float(np.mean(returns))
    groups = [Group(name, tuple(find_runs([search.out / "confirmed" / name]))) for name in settings]
    comparison = compare_groups(groups)
    (differences,) = comparison.differences.values()
    best, difference = max(
        zip(list(settings)[1:], differences, strict=True), key=lambda pair: means[pair[0]]
    )
    is_better = difference.is_real and means[best] > means[DEFAULTS]
    chosen = replace(_with(search.base, settings[best]), workers=None)  # alone it may have them
    found = {
        "settings": chosen.to_json(),
        "confirmed": {
            "seeds": list(seeds),
            "is_better": bool(is_better),
            "tuned": _worth_of(comparison, best),
            "defaults": _worth_of(comparison, DEFAULTS),
        },
    }
    (search.out / BEST).write_text(json.dumps(found, indent=2) + "\n")
    return Tuning(search.out, tuple(trials), settings[best], is_better, comparison)


def _worth_of(comparison: Comparison, name: str) -> dict[str, float]:
    """The mean over the fresh seeds, and its interval."""
    (summaries,) = comparison.summaries.values()
    (summary,) = (each for each in summaries if each.scores.name == name)
    return summary.mean._asdict()


def _with(base: Settings, changed: Mapping[str, Any]) -> Settings:
    """The settings with some of them changed.

    **Raises:** `LogpiError` for one that does not exist or does not fit.
    """
    return Settings.from_json(base.to_json() | dict(changed), "space")


def _corners(tried: Search) -> tuple[Any, ...]:
    """Values that show whether a setting may be searched as it is asked."""
    if isinstance(tried, OneOf):
        return tried.values
    return (tried.low, tried.high)


def _shown(value: Any) -> str:
    """A value with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def read_space(path: Path) -> dict[str, Search]:
    """A space as a YAML or JSON file has it: `learning_rate: {low: 1e-4, high: 1e-2}`, and
    `epochs: [4, 10, 20]`.

    **Raises:** `LogpiError` that names the setting.
    """
    space: dict[str, Search] = {}
    for name, tried in read_settings(path).items():
        match tried:
            case list() if tried:
                space[name] = OneOf(tuple(as_number(value) for value in tried))
            case {"low": low, "high": high, **rest} if not rest:
                ends = [as_number(low), as_number(high)]
                valid = all(isinstance(end, int | float) for end in ends) and 0 < ends[0] < ends[1]
                require(valid, f"{path}: {name}", "low and high, 0 < low < high", tried)
                space[name] = Between(*ends)
            case _:
                expected = "a list of values, or low and high"
                require(False, f"{path}: {name}", expected, tried)
    return space
