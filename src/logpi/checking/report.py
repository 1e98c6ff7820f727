"""What a check found, as data and in words."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from logpi.checking.credit import Credit
from logpi.checking.mistakes.forms import EXACT, Cause
from logpi.checking.request import FrameworkName
from logpi.checking.targets import TARGETS
from logpi.checking.verdict import Judgement
from logpi.estimators.contract import Layout

_WORDS = {
    "exact": "exact: the expected gradient is that of the target",
    "scaled": "scaled: exact but for a constant factor",
    "other-target": "other target: exact for another target than the one asked for",
    "biased": "biased: the expected gradient is not that of the target, nor a multiple of it",
    "zero": "zero: the expected gradient vanishes",
    "reversed": "reversed: the expected gradient points downhill",
}


@dataclass(frozen=True)
class Variance:
    """Trace of the covariance of ĝ for `episodes` episodes, and the least that a state baseline
    could reach.
    """

    trace: float
    least: float | None
    ratio: float | None
    """trace / least; 1 is the best state baseline."""
    episodes: int


@dataclass(frozen=True)
class CheckReport(Judgement):
    """What `logpi.check` found: a judgement, and what explains it.

    Relative figures are those of the probe on which the estimator does worst.
    """

    target: str
    matches: tuple[str, ...]
    """Targets for which the estimator is exact."""
    diagnosis: tuple[Cause, ...]
    variance: Variance | None
    credit: Credit | None
    framework: FrameworkName
    layout: Layout
    notes: tuple[str, ...] = ()
    probes: tuple[tuple[str, float], ...] = field(default=())
    """(situation, relative bias)."""
    bias_range: tuple[float, float] | None = None
    """The least and the largest relative bias on random probes, if they were asked for."""

    def to_json(self) -> dict[str, Any]:
        """Plain data by the names of the attributes."""
        rest = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return rest | {
            "matches": [*self.matches],
            "diagnosis": [cause.to_json() for cause in self.diagnosis],
            "variance": None if self.variance is None else dict(vars(self.variance)),
            "credit": None if self.credit is None else self.credit.to_json(),
            "notes": [*self.notes],
            "probes": dict(self.probes),
        }

    def __str__(self) -> str:
        return as_text(self)


def how_far(cause: Cause) -> str:
    """How well a cause explains what was found, or what it does by itself, in brackets."""
    if cause.distance is None:
        return ""
    if not cause.is_exact:
        return f" (leaves {100 * cause.distance:.2g} %)"
    if cause.alone is not None and cause.alone < EXACT:
        return " (only a factor by itself)"
    if cause.alone is not None:
        return f" ({cause.alone:.2g} by itself)"
    return " (explains it exactly)"


def _causes(causes: Sequence[Cause]) -> list[str]:
    """The causes, and what else explains as much; or that nothing does, and what is nearest."""
    first = [cause for cause in causes if not cause.is_alternative]
    others = [cause for cause in causes if cause.is_alternative]
    if not first:
        return ["no known mistake explains it"]
    if not first[0].is_exact:
        heading = "no known mistake explains it; the nearest one, which leaves a difference, is"
    elif len(first) > 1:
        heading = "likely causes, which explain it together; in brackets the bias of each by itself"
    else:
        heading = "likely cause"
    lines = [heading, *_lines_of(first)]
    if others:
        lines += ["or, which explains it as well", *_lines_of(others)]
    return lines


def _lines_of(causes: Sequence[Cause]) -> list[str]:
    lines = []
    for cause in causes:
        lines.append(f"  {cause.name}: {cause.explanation}{how_far(cause)}")
        lines.append(f"      {cause.remedy}")
    return lines


def as_text(report: CheckReport) -> str:
    """What `logpi check` prints."""
    verdict = _WORDS[report.verdict]
    if report.scale_name:
        verdict += f", k = {report.scale_name}"
    if report.scale_name and report.scale_name != f"{report.scale:.6g}":
        verdict += f" (here {report.scale:.4g})"
    residual = f"after the best scale {report.residual_after_scale:.2e}"
    lines = [
        verdict,
        f"  target         {report.target}: {TARGETS[report.target]}",
        f"  relative bias  {report.relative_bias:.2e}, {residual}, cosine {report.cosine:.4f}",
    ]
    if report.bias_range is not None:
        least, largest = report.bias_range
        lines.append(f"  on random probes {least:.2e} to {largest:.2e}")
    others = [name for name in report.matches if name != report.target]
    if report.verdict == "other-target":
        lines += [f"  it is exact for {name}: {TARGETS[name]}" for name in others[:2]]
    if report.verdict != "exact":
        lines += _causes(report.diagnosis)
    if report.variance is not None:
        lines.append(_variance(report))
    if report.credit is not None:
        lines += _credit(report)
    lines += [f"note: {note}" for note in report.notes]
    lines.append(f"{report.framework}, {report.layout} layout; relative bias by probe")
    lines += [f"  {name:<32} {bias:.2e}" for name, bias in report.probes]
    return "\n".join(lines)


def _variance(report: CheckReport) -> str:
    variance = report.variance
    assert variance is not None
    plural = "s" if variance.episodes > 1 else ""
    episodes = f"{variance.episodes} episode{plural}"
    found = f"variance of {episodes} (trace of the covariance) {variance.trace:.4g}"
    if variance.ratio is None:
        return found
    return f"{found}, {variance.ratio:.3g} times that of the best state baseline"


def _credit(report: CheckReport) -> list[str]:
    credit = report.credit
    assert credit is not None

    def cell(x):
        if np.isnan(x):
            return "     ."
        return f"{x:6.3f}"

    lines = [
        "credit: how much the reward at k (column) counts for the action at t (row);"
        " on the right as it should be"
    ]
    for found, right in zip(credit.matrix, credit.correct, strict=True):
        lines.append("  " + " ".join(map(cell, found)) + "     " + " ".join(map(cell, right)))
    if credit.residual > 1e-6:
        lines.append(
            f"  {credit.residual:.1%} of E[ĝ] does not come from rewards, or is not linear in them"
        )
    return lines
