"""What a check found."""

from dataclasses import dataclass, field
from typing import Any

from logpi.checking.credit import Credit
from logpi.checking.diagnosis import Cause
from logpi.checking.request import FrameworkName
from logpi.checking.verdict import VerdictName
from logpi.contract import Layout


@dataclass(frozen=True)
class Variance:
    """Trace of the covariance of ĝ for `episodes` episodes, and the least that a state baseline could reach."""

    trace: float
    least: float | None
    ratio: float | None
    """trace / least; 1 is the best state baseline."""
    episodes: int


@dataclass(frozen=True)
class CheckReport:
    """What `logpi.check` found. Relative figures are those of the probe on which the estimator does worst."""

    verdict: VerdictName
    scale: float | None
    scale_name: str | None
    relative_bias: float
    residual_after_scale: float
    cosine: float
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
        from logpi.checking.text import as_text

        return as_text(self)
