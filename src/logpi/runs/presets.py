"""Presets: settings that `logpi tune` has found to be better than the defaults, on seeds that it
had not seen.
"""

from dataclasses import dataclass
from pathlib import Path

from logpi.core.errors import LogpiError
from logpi.methods.method import Method
from logpi.runs.files import read_json
from logpi.runs.folder import as_file_name
from logpi.runs.settings import Settings

# ALGORITHM/ENVIRONMENT.json, each the `best.json` of a search.
FOLDER = Path(__file__).parents[1] / "presets"


@dataclass(frozen=True)
class Preset:
    """Settings for an environment, the mean return over `seeds` fresh seeds that they have come to,
    that of the defaults with the same seeds, and both intervals of 95 %.
    """

    environment: str
    algorithm: Method
    steps: int
    seeds: int
    mean: float
    interval: tuple[float, float]
    defaults_mean: float
    defaults_interval: tuple[float, float]

    def __str__(self) -> str:
        tuned = _as_text(self.mean, self.interval)
        plain = _as_text(self.defaults_mean, self.defaults_interval)
        return f"{tuned} over {self.seeds} seeds, the defaults {plain}"


def preset(environment: str, algorithm: str = "reinforce") -> Preset:
    """The preset for an environment and an algorithm, by their names.

    `logpi.train(found.environment, found.algorithm, steps=found.steps)` trains with it.

    **Raises:** `LogpiError` where there is none.
    """
    path = preset_file(environment, algorithm)
    found = read_json(path)
    settings = Settings.from_json(found["settings"], str(path))
    confirmed = found["confirmed"]
    tuned = confirmed["tuned"]
    plain = confirmed["defaults"]
    return Preset(
        environment=settings.environment,
        algorithm=settings.algorithm,
        steps=settings.steps,
        seeds=len(confirmed["seeds"]),
        mean=tuned["value"],
        interval=(tuned["low"], tuned["high"]),
        defaults_mean=plain["value"],
        defaults_interval=(plain["low"], plain["high"]),
    )


def presets() -> list[Preset]:
    """All that there are."""
    return [preset(*name) for name in preset_names()]


def preset_names() -> list[tuple[str, str]]:
    """Environment and algorithm of every preset."""
    found = [read_json(path)["settings"] for path in FOLDER.glob("*/*.json")]
    return sorted((settings["environment"], settings["algorithm"]) for settings in found)


def preset_file(environment: str, algorithm: str) -> Path:
    """The file of settings of a preset.

    **Raises:** `LogpiError` where there is none, which names those that there are.
    """
    if (environment, algorithm) not in preset_names():
        known = ", ".join(" with ".join(names) for names in preset_names())
        asked = f"{environment} with {algorithm}"
        raise LogpiError(f"there is no preset for {asked}; there are: {known}")
    return FOLDER / algorithm / f"{as_file_name(environment)}.json"


def _as_text(mean: float, interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]"
