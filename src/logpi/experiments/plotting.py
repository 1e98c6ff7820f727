"""Learning curves as a PNG."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from logpi.core.errors import LogpiError
from logpi.experiments.groups import Group, find_groups
from logpi.runs.evaluation import half_width
from logpi.runs.folder import RunFolder
from logpi.runs.metrics import EVALUATED, RETURN, STEPS, read_metrics

POINTS = 200
# Of a table: arrays of one length. Those of different runs differ in it.
Columns: TypeAlias = dict[str, ndarray]


def plot(folders: Sequence[str | Path], out: str | Path | None = None) -> Path:
    """Mean return against environment steps: of the recent episodes of training as a line, of the
    evaluations on the way as points; the path of the picture.

    Each folder is a run, or holds several: their mean is then drawn, with its 95 % interval over
    the seeds. The folder of a sweep gives a curve for each setting. Without `out`:
    `learning_curve.png` in the folder of a single run, or `learning_curves.png` here.

    **Raises:** `LogpiError` where a folder holds no run or a run has no metrics yet.
    """
    if not folders:
        raise LogpiError("plot needs at least one run folder")
    groups = find_groups([str(folder) for folder in folders])
    from matplotlib.figure import Figure  # not needed by those who draw nothing

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    draw_curves(axes, read_curves(groups), RETURN)
    draw_thresholds(axes, groups)
    runs = [run for group in groups for run in group.runs]
    names = sorted({name for group in groups for name in group.environments})
    axes.set(
        title=", ".join(names),
        xlabel="environment steps",
        ylabel="return of the last 100 episodes; evaluated (points)",
    )
    axes.grid(alpha=0.3)
    axes.legend()
    path = _picture_path(runs, out)
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise LogpiError(f"cannot write {path}: {error}") from None
    return path


class Curves(NamedTuple):
    """What the runs of a group have measured."""

    label: str
    tables: list[Columns]

    def column(self, tag: str) -> list[ndarray]:
        """A metric of each run; NaN where it has no such metric."""
        return [table.get(tag, np.full_like(table[STEPS], np.nan)) for table in self.tables]


def read_curves(groups: Sequence[Group]) -> list[Curves]:
    """The metrics of all runs.

    **Raises:** `LogpiError` where a run has none yet.
    """
    found: list[Curves] = []
    for group in groups:
        tables = [_table(run) for run in group.runs]
        label = group.name if len(tables) == 1 else f"{group.name}, {len(tables)} runs"
        found.append(Curves(label, tables))
    return found


def draw_curves(axes: Any, curves: Sequence[Curves], tag: str) -> None:
    """A metric of each group against environment steps: a run as it is, several by their mean.
    Beside the returns of training stand those of the evaluations on the way.
    """
    for each in curves:
        _draw(axes, each, tag)


def draw_thresholds(axes: Any, groups: Sequence[Group]) -> None:
    """A line at each return that an environment calls solved."""
    thresholds = [run.threshold() for group in groups for run in group.runs]
    for threshold in {each for each in thresholds if each is not None}:
        axes.axhline(threshold, color="gray", linestyle=":", label=f"solved: {threshold:g}")


def _draw(axes: Any, curves: Curves, tag: str) -> None:
    """The curve of one group."""
    made = [table[STEPS] for table in curves.tables]
    steps, values = _on_common_steps(made, curves.column(tag))
    (line,) = axes.plot(steps, values.mean(axis=0), label=curves.label)
    _draw_interval(axes, steps, values, line.get_color())
    if tag == RETURN:
        _draw_evaluations(axes, curves, line.get_color())


def _draw_evaluations(axes: Any, curves: Curves, color: Any) -> None:
    """The evaluations on the way as points: as many as the run with the fewest has, over the steps
    within which every run of the group was evaluated.
    """
    evaluated = curves.column(EVALUATED[0])
    has_one = [~np.isnan(values) for values in evaluated]
    if not all(rows.any() for rows in has_one):
        return
    made = [table[STEPS][rows] for table, rows in zip(curves.tables, has_one, strict=True)]
    found = [values[rows] for values, rows in zip(evaluated, has_one, strict=True)]
    steps, returns = _on_common_steps(made, found, min(map(len, made)))
    marker = {"marker": "o", "markersize": 4, "linestyle": "--", "linewidth": 0.8}
    axes.plot(steps, returns.mean(axis=0), color=color, alpha=0.7, **marker)


def _draw_interval(
    axes: Any, steps: Float[ndarray, " step"], returns: Float[ndarray, "run step"], color: Any
) -> None:
    """The 95 % interval of the mean over several runs, Student's t."""
    if len(returns) < 2:
        return
    half = half_width(returns.T)
    middle = returns.mean(axis=0)
    axes.fill_between(steps, middle - half, middle + half, color=color, alpha=0.2, linewidth=0)


def _table(run: RunFolder) -> Columns:
    """The columns of a run's metrics.

    **Raises:** `LogpiError` where there are none yet.
    """
    rows = read_metrics(run.path / "metrics.csv")
    if not rows or STEPS not in rows[0]:
        raise LogpiError(f"{run.path} has no metrics yet")
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _on_common_steps(
    made: Sequence[ndarray], values: Sequence[ndarray], points: int = POINTS
) -> tuple[Float[ndarray, " step"], Float[ndarray, "run step"]]:
    """Values of every run at steps that all of them have `made`, if there are such; those of a
    single run as they are.
    """
    if len(made) == 1:
        return made[0], values[0][None]
    first = max(steps[0] for steps in made)
    last = min(steps[-1] for steps in made)
    steps = np.linspace(first, last, points)
    if first > last:
        steps = steps[:0]
    columns = zip(made, values, strict=True)
    return steps, np.array([np.interp(steps, own, column) for own, column in columns])


def _picture_path(runs: Sequence[RunFolder], out: str | Path | None) -> Path:
    """Where the picture goes: `out` may be a file, with or without its ending, or a folder."""
    default = Path("learning_curves.png")
    if len(runs) == 1:
        default = runs[0].path / "learning_curve.png"
    if out is None:
        return default
    path = Path(out)
    if path.is_dir():
        return path / default.name
    return path if path.suffix else path.with_suffix(".png")
