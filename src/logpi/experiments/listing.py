"""`logpi runs`: what lies in a folder of runs, as a table."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from logpi.core.errors import LogpiError
from logpi.core.say import in_columns
from logpi.experiments.groups import find_runs
from logpi.methods.registry import name_of_method
from logpi.runs.evaluation import Evaluation
from logpi.runs.folder import RunFolder


@dataclass(frozen=True)
class RunState:
    """One run: how far it is, what it is worth, and what is being done with it."""

    folder: Path
    environment: str
    algorithm: str
    seed: int
    steps: int
    budget: int
    evaluation: Evaluation | None
    state: str

    @staticmethod
    def of(run: RunFolder) -> "RunState":
        """What the files of a run say."""
        settings = run.settings
        found = run.last_evaluation()
        writer = run.writer()
        if writer is not None:
            state = f"running, {writer}"
        elif found is not None and not run.saved_steps():
            state = "imitated"
        elif found is not None:
            state = "finished"
        else:
            state = "stopped"
        return RunState(
            folder=run.path,
            environment=settings.environment,
            algorithm=name_of_method(settings.algorithm),
            seed=settings.seed,
            steps=run.saved_steps() or 0,
            budget=settings.steps,
            evaluation=None if found is None else found.most_probable,
            state=state,
        )

    def to_json(self) -> Mapping[str, object]:
        """The fields by name; of the evaluation `mean` and `interval`."""
        evaluation = None
        if self.evaluation is not None:
            whole = self.evaluation.to_json()
            evaluation = {"mean": whole["mean"], "interval": whole["interval"]}
        return {**vars(self), "folder": str(self.folder), "evaluation": evaluation}


def list_runs(folder: str | Path = "runs") -> list[RunState]:
    """The state of every run in a folder, at any depth.

    **Raises:** `LogpiError` where there is none.
    """
    states: list[RunState] = []
    for run in find_runs([folder]):
        try:
            states.append(RunState.of(run))
        except LogpiError as error:
            raise LogpiError(f"{run.path}: {error}") from None
    return states


def as_table(states: Iterable[RunState]) -> str:
    """One line a run."""
    rows = [("run", "environment", "algorithm", "seed", "steps", "return", "state")]
    here = Path.cwd()
    for each in states:
        name = each.folder
        if name.is_relative_to(here):
            name = name.relative_to(here)
        rows.append(
            (
                str(name),
                each.environment,
                each.algorithm,
                str(each.seed),
                f"{each.steps:,} of {each.budget:,}",
                "" if each.evaluation is None else str(each.evaluation),
                each.state,
            )
        )
    return "\n".join(in_columns(rows))
