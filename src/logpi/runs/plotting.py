"""Learning curves as a PNG."""

from collections.abc import Sequence
from pathlib import Path

from logpi.core.errors import LogpiError
from logpi.runs.folder import RunFolder
from logpi.runs.metrics import RETURN, STEPS, read_metrics


def plot(folders: Sequence[str | Path], out: str | Path | None = None) -> Path:
    """Mean return of the recent episodes against environment steps, one curve a run; the path of
    the picture.

    Without `out`: `learning_curve.png` in the folder of a single run, or `learning_curves.png` here
    for several.

    **Raises:** `LogpiError` where a folder is no run or has no metrics yet.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    runs = [RunFolder.open(Path(folder)) for folder in folders]
    if not runs:
        raise LogpiError("plot needs at least one run folder")
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for run in runs:
        rows = read_metrics(run.path / "metrics.csv")
        if not rows:
            raise LogpiError(f"{run.path} has no metrics yet")
        axes.plot([r[STEPS] for r in rows], [r[RETURN] for r in rows], label=str(run.path))
    names = sorted({run.settings.environment for run in runs})
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
    finally:
        pyplot.close(figure)
    return path


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
