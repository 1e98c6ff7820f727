"""Learning curves as a PNG."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

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
    draw_curves(axes, groups, RETURN)
    draw_thresholds(axes, groups)
    runs = [run for group in groups for run in group.runs]
    names = sorted({name for group in groups for name in group.environments})
    axes.set(
        title=", ".join(names),
        xlabel="environment steps",
        ylabel="return, mean of the last 100 episodes",
    )
    axes.grid(alpha=0.3)
    axes.legend()
    path = _picture_path(runs, out)
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise LogpiError(f"cannot write {path}: {error}") from None
    return path


def draw_curves(axes: Any, groups: Sequence[Group], tag: str) -> None:
    """A metric of each group against environment steps: a run as it is, several by their mean.
    Beside the returns of training stand those of the evaluations on the way.

    **Raises:** `LogpiError` where a run has no metrics yet.
    """
    for group in groups:
        _draw(axes, group, tag)


def draw_thresholds(axes: Any, groups: Sequence[Group]) -> None:
    """A line at each return that an environment calls solved."""
    thresholds = [run.threshold() for group in groups for run in group.runs]
    for threshold in {each for each in thresholds if each is not None}:
        axes.axhline(threshold, color="gray", linestyle=":", label=f"solved: {threshold:g}")


def _draw(axes: Any, group: Group, tag: str) -> None:
    """The curve of one group."""
    tables = [_table(run, tag) for run in group.runs]
    label = group.name if len(tables) == 1 else f"{group.name}, {len(tables)} runs"
    steps, values = _on_common_steps(tables, tag)
    (line,) = axes.plot(steps, values.mean(axis=0), label=label)
    _draw_interval(axes, steps, values, line.get_color())
    evaluated = [_evaluations(table) for table in tables]
    if tag == RETURN and all(len(each[STEPS]) for each in evaluated):
        steps, returns = _on_common_steps(evaluated, EVALUATED[0])
        marker = {"marker": "o", "markersize": 3, "linestyle": "--", "linewidth": 0.8}
        axes.plot(steps, returns.mean(axis=0), color=line.get_color(), alpha=0.7, **marker)


def _draw_interval(
    axes: Any, steps: Float[ndarray, " step"], returns: Float[ndarray, "run step"], color: Any
) -> None:
    """The 95 % interval of the mean over several runs, Student's t."""
    if len(returns) < 2:
        return
    half = half_width(returns.T)
    middle = returns.mean(axis=0)
    axes.fill_between(steps, middle - half, middle + half, color=color, alpha=0.2, linewidth=0)


def _table(run: RunFolder, tag: str) -> Columns:
    """The columns of a run's metrics that are drawn for one of them.

    **Raises:** `LogpiError` where there are none yet.
    """
    rows = read_metrics(run.path / "metrics.csv")
    if not rows:
        raise LogpiError(f"{run.path} has no metrics yet")
    return {
        name: np.array([row.get(name, np.nan) for row in rows])
        for name in (STEPS, tag, EVALUATED[0])
    }


def _evaluations(table: Columns) -> dict[str, Float[ndarray, " evaluation"]]:
    """The rows that have an evaluation."""
    has_one = ~np.isnan(table[EVALUATED[0]])
    return {name: column[has_one] for name, column in table.items()}


def _on_common_steps(
    tables: Sequence[Columns], name: str
) -> tuple[Float[ndarray, " step"], Float[ndarray, "run step"]]:
    """A column of every table at steps that all of them have reached; a single one as it is."""
    if len(tables) == 1:
        return tables[0][STEPS], tables[0][name][None]
    first = max(table[STEPS][0] for table in tables)
    last = min(table[STEPS][-1] for table in tables)
    steps = np.linspace(first, last, POINTS)
    return steps, np.array([np.interp(steps, table[STEPS], table[name]) for table in tables])


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
