"""What a check found, as a page."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from logpi.artifacts.page import chart, grid, heading, paragraph, preformatted, table, write_page
from logpi.checking.credit import Credit
from logpi.checking.picture import draw_matrix
from logpi.checking.report import CheckReport, how_far
from logpi.checking.targets import TARGETS


def write_check(report: CheckReport, name: str, path: Path) -> None:
    """The page of a check of an estimator by this name.

    **Raises:** `LogpiError` where it cannot be written.
    """
    write_page(path, f"{name}: {report.verdict}", _parts(report))


def _parts(report: CheckReport) -> Iterator[str]:
    yield paragraph(f"The target is {report.target}: {TARGETS[report.target]}.")
    yield table(["", "value"], list(_figures(report)))
    others = [name for name in report.matches if name != report.target]
    if others:
        yield heading("It is exact for another target")
        yield table(["target", "gradient of"], [(name, TARGETS[name]) for name in others])
    if report.diagnosis:
        yield heading("The likely cause, most likely first")
        yield table(
            ["cause", "what happens", "what to do"],
            [
                (cause.name, cause.explanation + how_far(cause), cause.remedy)
                for cause in report.diagnosis
            ],
        )
    elif report.verdict != "exact":
        yield paragraph("No known mistake explains it.")
    if report.credit is not None:
        yield heading("Credit: how much the reward at k counts for the action at t")
        yield from _credit(report.credit)
    yield heading("Bias and variance")
    yield grid([_biases(report)])
    for note in report.notes:
        yield paragraph(f"Note: {note}")
    yield heading("As text")
    yield preformatted(str(report))


def _figures(report: CheckReport) -> Iterator[tuple[str, str]]:
    yield "relative bias", f"{report.relative_bias:.2e}"
    if report.bias_range is not None:
        least, largest = report.bias_range
        yield "relative bias on random probes", f"{least:.2e} to {largest:.2e}"
    yield "relative bias after the best scale", f"{report.residual_after_scale:.2e}"
    yield "cosine with the gradient of the target", f"{report.cosine:.6f}"
    if report.scale_name:
        yield "scale", f"{report.scale_name}, here {report.scale:.4g}"
    variance = report.variance
    if variance is not None:
        yield "episodes in a batch", str(variance.episodes)
        yield "variance, trace of the covariance", f"{variance.trace:.4g}"
        if variance.ratio is not None:
            yield "times the variance of the best state baseline", f"{variance.ratio:.3g}"
    yield "framework, layout", f"{report.framework}, {report.layout}"


def _credit(credit: Credit) -> Iterator[str]:
    """The matrix that was found beside the right one."""
    largest = float(np.nanmax(np.abs([credit.matrix, credit.correct])))
    charts: list[str] = []
    for caption, matrix in (("Found", credit.matrix), ("Right", credit.correct)):

        def draw(axes: Any, matrix: Any = matrix) -> None:
            axes.grid(visible=False)
            draw_matrix(axes, matrix, largest)

        charts.append(chart(caption, draw))
    yield grid(charts)
    if credit.residual > 1e-6:
        yield paragraph(
            f"{credit.residual:.1%} of the expected gradient does not come from rewards, or is not"
            " linear in them."
        )


def _biases(report: CheckReport) -> str:
    """The relative bias in every situation that was tried."""

    def draw(axes: Any) -> None:
        names = [name for name, _ in report.probes]
        axes.barh(names, [max(bias, 1e-17) for _, bias in report.probes])
        axes.set(xscale="log", xlim=(1e-17, 10), xlabel="relative bias; 1e-12 is rounding")
        axes.invert_yaxis()
        axes.tick_params(axis="y", labelsize=7)

    return chart("Relative bias by probe", draw)
