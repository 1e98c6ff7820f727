"""The run folder: config.json, metrics.csv, TensorBoard events, checkpoints/, evaluation.json,
README.md.
"""

import contextlib
import itertools
import json
import os
import platform
import re
import stat
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from shlex import quote
from typing import Any, TypeVar, cast

from filelock import FileLock, Timeout

from logpi.core.checks import is_real
from logpi.core.errors import LogpiError
from logpi.runs.checkpoint import Counters, DamagedCheckpoint, load_checkpoint, save_checkpoint
from logpi.runs.evaluation import Evaluation, FinalEvaluation
from logpi.runs.files import PARTIAL, read_json, write_whole
from logpi.runs.machine import describe_machine
from logpi.runs.settings import Settings
from logpi.runs.trust import is_trusted, named_code, signature

Tree = TypeVar("Tree")

FORMAT = 1
CHECKPOINTS_KEPT = 3
WRITER = ".writer.json"
# Seconds for which somebody may hold a folder who only looks whether it is being written.
LOOKING = 0.5
EVALUATION = "evaluation.json"
BEST = "best.npz"
BEST_EVALUATION = "best.json"


@contextmanager
def _file_errors(doing: str) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise LogpiError(
            f"cannot {doing}: {error.strerror or error}: {error.filename or ''}".rstrip(": ")
        ) from error


def new_folder(parent: Path, environment: str) -> Path:
    """`parent/ENV_N` with the first free N; another run that starts at the same time takes
    another.
    """
    base = as_file_name(Path(environment).name)
    numbers = itertools.count(1)
    with _file_errors(f"create a run folder in {parent}"):
        parent.mkdir(parents=True, exist_ok=True)
        while True:
            path = parent / f"{base}_{next(numbers)}"
            with contextlib.suppress(FileExistsError):
                path.mkdir()
                return path


def _is_blank(path: Path) -> bool:
    """Whether a folder holds what a run makes before its configuration, or less."""
    if not path.is_dir() or path.is_symlink():
        return False
    inside = [found for found in path.rglob("*") if not found.name.endswith(PARTIAL)]
    return inside in ([], [path / "checkpoints"])


def as_file_name(name: str) -> str:
    """The name with nothing in it that a file system may refuse."""
    return re.sub(r"[^\w.=+-]", "-", name)[:100]


class RunFolder:
    """One run on disk. Every file is written whole or not at all.

    `config` is what config.json holds: `format`, `settings`, `environment`, the `directory` from
    which its files are named, `sessions` with the machine of each process that computed the run,
    and the `signature` of who trusts it.
    """

    def __init__(self, path: Path, config: dict[str, Any]):
        self.path = path
        self.config: dict[str, Any] = config

    @staticmethod
    def create(
        path: Path | None, settings: Settings, environment: Mapping[str, object]
    ) -> "RunFolder":
        """A new folder with its configuration; without a path `runs/ENV_N`, N the first free
        number. One that a run has left before it had its configuration is taken.

        **Raises:** `LogpiError` where the folder exists or cannot be written.
        """
        if path is None:
            path = new_folder(Path("runs"), settings.environment)
        elif path.exists() and not _is_blank(path):
            is_run = (path / "config.json").is_file()
            if is_run:
                hint = f"`logpi resume {quote(str(path))}` continues it"
            else:
                hint = "give another --out"
            raise LogpiError(f"{path} exists already; {hint}")
        path = path.absolute()
        with _file_errors(f"create the run folder {path}"):
            (path / "checkpoints").mkdir(parents=True, exist_ok=True)
        config = {
            "format": FORMAT,
            "settings": settings.to_json(),
            "environment": environment,
            "directory": os.getcwd(),
        }
        folder = RunFolder(path, config)
        folder.begin_session(0, {})
        return folder

    @staticmethod
    def open(path: Path) -> "RunFolder":
        """An existing run.

        **Raises:** `LogpiError` where there is none, or it was written by a newer logpi.
        """
        config_path = path / "config.json"
        with _file_errors(f"open {path}"):
            if not path.is_dir():
                raise LogpiError(f"{path} is not a folder")
            if not config_path.is_file():
                raise LogpiError(f"{path} is not a run folder: it has no config.json")
        config = read_json(config_path)
        if not isinstance(config, dict):
            raise LogpiError(f"{config_path} does not hold a JSON object")
        config = cast(dict[str, Any], config)
        found = config.get("format")
        if not isinstance(found, int) or found > FORMAT:
            raise LogpiError(
                f"{path} has format {str(found)[:20]}, this logpi {version('logpi')} reads up to"
                f" {FORMAT}: upgrade logpi"
            )
        return RunFolder(path.absolute(), config)

    @property
    def settings(self) -> Settings:
        """The resolved settings of the run; files that they name are found from any directory."""
        source = str(self.path / "config.json")
        settings = Settings.from_json(self.config.get("settings", {}), source)
        directory = self.config.get("directory")
        if isinstance(directory, str):
            return settings.located(Path(directory))
        return settings

    def begin_session(self, steps: int, changed: Mapping[str, object]) -> list[str]:
        """Record that this process goes on with the run from `steps`, with settings `changed`.

        Returns what is another than in the session before, on which the last bits of a run depend.
        """
        sessions = self.sessions
        machine = describe_machine()
        before: Mapping[str, object] = sessions[-1] if sessions else machine
        differences = [
            f"{name} was {before.get(name)}, is {value}"
            for name, value in machine.items()
            if before.get(name) != value
        ]
        session = {"steps": steps, "command": sys.argv, **machine}
        self.config = {
            **self.config,
            "settings": {**self.config["settings"], **changed},
            "sessions": [*sessions, session],
        }
        self.trust()
        return differences

    @property
    def sessions(self) -> list[Mapping[str, object]]:
        """What each process was that computed a part of the run, in their order."""
        found = self.config.get("sessions")
        if isinstance(found, list):
            return [each for each in cast(list[Any], found) if isinstance(each, dict)]
        return []

    def trust(self) -> None:
        """Agree to import what the run names, from now on."""
        self.config = {**self.config, "signature": signature(self.settings)}
        self.write_json("config.json", self.config)

    def foreign_code(self) -> str | None:
        """A sentence on what opening the run would import that this user has not agreed to, if
        there is any.
        """
        settings = self.settings
        if is_trusted(settings, self.config.get("signature")):
            return None
        code = ", ".join(named_code(settings))
        return f"{self.path} would import {code}, and was not made by you on this machine"

    def require_trusted(self) -> None:
        """Refuse a run that names code of somebody else.

        **Raises:** `LogpiError` that names it.
        """
        found = self.foreign_code()
        if found is not None:
            remedy = "look at that code, then agree with --trust (in Python trust=True)"
            raise LogpiError(f"{found}: {remedy}")

    @contextmanager
    def only_writer(self) -> Generator[None]:
        """Keep every other process from writing here; what holds the folder ends with this process.

        What a writer that was killed has left half written is removed.

        **Raises:** `LogpiError` that names the process that writes here, and for a folder that
        would have files written elsewhere.
        """
        checkpoints = self.path / "checkpoints"
        with _file_errors(f"write in {self.path}"):
            if checkpoints.is_symlink():
                raise LogpiError(f"{checkpoints} is a link: files would be written elsewhere")
            checkpoints.mkdir(exist_ok=True)
            lock = FileLock(self.path / ".lock")
            try:
                lock.acquire(timeout=LOOKING)
            except Timeout:
                raise LogpiError(f"{self.path} is being written by {self._writer()}") from None
        try:
            for partial in [*self.path.glob(f"*{PARTIAL}"), *checkpoints.glob(f"*{PARTIAL}")]:
                partial.unlink(missing_ok=True)
            writer = {"process": os.getpid(), "machine": platform.node()}
            self.write_json(WRITER, writer)
            yield
        finally:
            lock.release()

    @staticmethod
    def wait_for_writer(path: Path, seconds: float) -> None:
        """Wait so long, at most, for a process that still writes in a folder to come to its end."""
        lock = path / ".lock"
        if lock.exists():
            with contextlib.suppress(OSError, Timeout), FileLock(lock, timeout=seconds):
                pass

    def writer(self) -> str | None:
        """Which process writes here now, if one does."""
        if not (self.path / ".lock").exists():
            return None
        try:
            with FileLock(self.path / ".lock", timeout=0):
                return None
        except Timeout:
            return self._writer()
        except OSError:  # a folder that this user may only read
            return None

    def _writer(self) -> str:
        """Which process holds the folder."""
        try:
            writer = read_json(self.path / WRITER)
            return f"process {writer['process']} on {writer['machine']}"
        except (LogpiError, LookupError, TypeError):
            return "another process"

    def evaluation(self, steps: int) -> FinalEvaluation | None:
        """The evaluation of the run after so many steps, if there is a whole one."""
        try:
            fields = read_json(self.path / EVALUATION)
            if fields["steps"] == steps:
                return FinalEvaluation.from_json(fields)
        except (LogpiError, LookupError, TypeError, ValueError, OverflowError):
            pass
        return None

    def last_evaluation(self) -> FinalEvaluation | None:
        """The evaluation of the run as it is saved, if it is finished."""
        return self.evaluation(self.saved_steps() or 0)

    def save_evaluation(
        self, steps: int, evaluation: FinalEvaluation, threshold: float | None
    ) -> None:
        """What the policy is worth after so many steps; `threshold` is the return that the
        environment calls solved.
        """
        fields = {"steps": steps, "threshold": threshold, **evaluation.to_json()}
        self.write_json(EVALUATION, fields)

    def threshold(self) -> float | None:
        """The return that the environment calls solved, if a finished run has been told one."""
        try:
            found = read_json(self.path / EVALUATION)["threshold"]
        except (LogpiError, LookupError, TypeError):
            return None
        return float(found) if is_real(found) else None

    def write_json(self, name: str, value: object) -> None:
        """A JSON file, replaced as a whole."""
        self.write_text(name, json.dumps(value, indent=2) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """A file of text, replaced as a whole."""
        path = self.path / name
        with _file_errors(f"write {path}"):
            write_whole(path, lambda file: file.write(text.encode()))

    def checkpoints(self) -> list[Path]:
        """Newest first."""
        named = (self.path / "checkpoints").glob("step_*.npz")
        numbered = [path for path in named if re.fullmatch(r"step_\d{12,16}", path.stem)]
        return sorted(numbered, key=_steps_of, reverse=True)

    def largest_checkpoint(self) -> int:
        """Bytes of the largest checkpoint that is a file of its own.

        **Raises:** `LogpiError` where there is none.
        """
        found = [os.lstat(path) for path in self.checkpoints()]
        sizes = [each.st_size for each in found if stat.S_ISREG(each.st_mode)]
        if not sizes:
            raise LogpiError(f"{self.path} has no whole checkpoint")
        return max(sizes)

    def saved_steps(self) -> int | None:
        """The steps of the newest checkpoint; None where there is none."""
        newest = next(iter(self.checkpoints()), None)
        if newest is None:
            return None
        return _steps_of(newest)

    def save(self, learner: object, counters: Counters) -> Path:
        """A checkpoint; the oldest beyond `CHECKPOINTS_KEPT` are removed."""
        path = self.path / "checkpoints" / f"step_{counters.steps:012d}.npz"
        with _file_errors(f"write {path}"):
            save_checkpoint(path, learner, counters)
            for old in self.checkpoints()[CHECKPOINTS_KEPT:]:
                old.unlink()
        return path

    def save_best(self, learner: object, counters: Counters, evaluation: Evaluation) -> None:
        """The learner whose policy is the best so far, and what it is worth."""
        path = self.path / BEST
        with _file_errors(f"write {path}"):
            save_checkpoint(path, learner, counters)
        self.write_json(BEST_EVALUATION, {"steps": counters.steps, **evaluation.to_json()})

    def load_best(self, like: Tree) -> Tree:
        """The learner that `save_best` has saved last.

        **Raises:** `LogpiError` where there is none, or it is damaged.
        """
        path = self.path / BEST
        if not path.exists():
            raise LogpiError(f"{self.path} has not been evaluated yet: it has no {BEST}")
        try:
            return load_checkpoint(path, like)[0]
        except DamagedCheckpoint as error:
            raise LogpiError(f"{path} is damaged ({error})") from None

    def load(self, like: Tree) -> tuple[Tree, Counters, list[str]]:
        """The newest whole checkpoint, and a warning for each damaged one that was passed over.

        **Raises:** `LogpiError` where none is whole.
        """
        warnings: list[str] = []
        for path in self.checkpoints():
            try:
                learner, counters = load_checkpoint(path, like)
                if counters.steps != _steps_of(path):
                    raise DamagedCheckpoint(f"it was made after {counters.steps:,} steps")
                return learner, counters, warnings
            except DamagedCheckpoint as error:
                warnings.append(f"checkpoint {path} is damaged ({error}); using the one before it")
        raise LogpiError(
            f"{self.path} has no whole checkpoint" + (f": {warnings[0]}" if warnings else "")
        )


def _steps_of(checkpoint: Path) -> int:
    """The steps that stand in the name of a checkpoint."""
    return int(checkpoint.stem.removeprefix("step_"))
