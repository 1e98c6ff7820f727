"""The credit matrix as a picture."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from logpi.checking.report import CheckReport
from logpi.core.errors import LogpiError


def plot_credit(report: CheckReport, path: Path) -> None:
    """C[t, k] as found, beside the right one.

    **Raises:** `LogpiError` where the check has no credit matrix, or the file cannot be written.
    """
    from matplotlib.figure import Figure

    credit = report.credit
    if credit is None:
        raise LogpiError(
            "there is no credit matrix to draw: it needs `reward`, finite gradients, and no"
            " rollout or sampler"
        )
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    largest = float(np.nanmax(np.abs([credit.matrix, credit.correct])))
    for axes, (title, matrix) in zip(
        figure.subplots(1, 2),
        {"found": credit.matrix, "right": credit.correct}.items(),
        strict=True,
    ):
        axes.set(title=title)
        draw_matrix(axes, matrix, largest)
    figure.suptitle(f"{report.verdict}: how much the reward at k counts for the action at t")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise LogpiError(f"{path} cannot be written: {error}") from None


def draw_matrix(axes: Any, matrix: Float[ndarray, "time time"], largest: float) -> None:
    """C[t, k] with its numbers; colours reach to ±`largest`."""
    axes.imshow(matrix, cmap="RdBu", vmin=-largest, vmax=largest)
    axes.set(xlabel="reward at k", ylabel="action at t")
    axes.set_xticks(range(len(matrix)))
    axes.set_yticks(range(len(matrix)))
    for (t, k), value in np.ndenumerate(matrix):
        if np.isnan(value):
            continue
        if abs(value) > 0.6 * largest:
            ink = "white"
        else:
            ink = "black"
        axes.text(k, t, f"{value:.3f}", ha="center", va="center", color=ink)
