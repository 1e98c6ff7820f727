"""Runs on disk, as groups that differ in their seeds alone."""

import glob
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from logpi.core.errors import LogpiError
from logpi.runs.folder import RunFolder


@dataclass(frozen=True)
class Group:
    """Runs that are compared as one, by their seeds."""

    name: str
    runs: tuple[RunFolder, ...]

    @property
    def environments(self) -> list[str]:
        """What its runs learn, each named once."""
        return sorted({run.settings.environment for run in self.runs})


def find_runs(patterns: Iterable[str | Path]) -> list[RunFolder]:
    """The runs in folders, at any depth, and in those that a pattern such as `runs/Cart*` names.

    **Raises:** `LogpiError` where there is none, or a folder is missing.
    """
    found: dict[Path, RunFolder] = {}
    for pattern in patterns:
        paths = [Path(name) for name in sorted(glob.glob(str(pattern)))] or [Path(pattern)]
        for path in paths:
            for folder in _run_folders(path):
                found[folder.absolute()] = RunFolder.open(folder)
    return list(found.values())


def find_groups(patterns: Sequence[str | Path]) -> list[Group]:
    """A group for each pattern. A single folder whose runs lie in folders of its own, as a sweep
    leaves them, gives one for each of these.

    **Raises:** `LogpiError` where a pattern names no run.
    """
    if len(patterns) > 1:
        return [Group(str(pattern), tuple(find_runs([pattern]))) for pattern in patterns]
    by_parent: dict[Path, list[RunFolder]] = {}
    for run in find_runs(patterns):
        by_parent.setdefault(run.path.parent, []).append(run)
    if len(by_parent) == 1:
        return [Group(str(patterns[0]), tuple(runs)) for runs in by_parent.values()]
    return [Group(parent.name, tuple(runs)) for parent, runs in by_parent.items()]


def _run_folders(path: Path) -> list[Path]:
    """The folder itself, if it is a run, or the runs in it."""
    if not path.is_dir():
        raise LogpiError(f"{path} is not a folder")
    if (path / "config.json").is_file():
        return [path]
    inside = sorted(config.parent for config in path.rglob("config.json"))
    if not inside:
        raise LogpiError(f"{path} holds no run")
    return sorted(inside, key=_words_and_numbers)


def _words_and_numbers(path: Path) -> list[str | int]:
    """Orders seed_2 before seed_10."""
    parts = re.split(r"(\d+)", str(path))
    return [int(part) if part.isdigit() else part for part in parts]
