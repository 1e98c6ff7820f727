"""The credit matrix as a picture."""

from pathlib import Path

import numpy as np

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
        axes.imshow(matrix, cmap="RdBu", vmin=-largest, vmax=largest)
        axes.set(title=title, xlabel="reward at k", ylabel="action at t")
        axes.set_xticks(range(len(matrix)))
        axes.set_yticks(range(len(matrix)))
        for (t, k), value in np.ndenumerate(matrix):
            if not np.isnan(value):
                axes.text(
                    k,
                    t,
                    f"{value:.3f}",
                    ha="center",
                    va="center",
                    color="white" if abs(value) > 0.6 * largest else "black",
                )
    figure.suptitle(f"{report.verdict}: how much the reward at k counts for the action at t")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise LogpiError(f"{path} cannot be written: {error}") from None
