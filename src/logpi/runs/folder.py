"""The run folder: config.json, metrics.csv, TensorBoard events, checkpoints/, evaluation.json."""

import contextlib
import itertools
import json
import os
import platform
import re
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from shlex import quote
from typing import Any, TypeVar, cast

from filelock import FileLock, Timeout

from logpi.core.errors import LogpiError
from logpi.runs.checkpoint import Counters, DamagedCheckpoint, load_checkpoint, save_checkpoint
from logpi.runs.files import PARTIAL, read_json, write_whole
from logpi.runs.settings import Settings
from logpi.runs.trust import is_trusted, named_code, signature

Tree = TypeVar("Tree")

FORMAT = 1
CHECKPOINTS_KEPT = 3
WRITER = ".writer.json"
_PACKAGES = ("logpi", "jax", "jaxlib", "equinox", "optax", "numpy", "gymnasium")


@contextmanager
def _file_errors(doing: str) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise LogpiError(
            f"cannot {doing}: {error.strerror or error}: {error.filename or ''}".rstrip(": ")
        ) from error


def _new_folder(parent: Path, base: str) -> Path:
    """`parent/base_N` with the first free N; another run that starts at the same time takes
    another.
    """
    numbers = itertools.count(1)
    with _file_errors(f"create a run folder in {parent}"):
        parent.mkdir(parents=True, exist_ok=True)
        while True:
            path = parent / f"{base}_{next(numbers)}"
            with contextlib.suppress(FileExistsError):
                path.mkdir()
                return path


def _as_file_name(name: str) -> str:
    """The name with nothing in it that a file system may refuse."""
    return re.sub(r"[^\w.-]", "-", name)[:100]


class RunFolder:
    """One run on disk. Every file is written whole or not at all."""

    def __init__(self, path: Path):
        self.path = path

    @staticmethod
    def create(
        path: Path | None, settings: Settings, environment: Mapping[str, object]
    ) -> "RunFolder":
        """A new folder with its configuration; without a path `runs/ENV_N`, N the first free
        number.

        **Raises:** `LogpiError` where the folder exists or cannot be written.
        """
        if path is None:
            path = _new_folder(Path("runs"), _as_file_name(Path(settings.environment).name))
        elif path.exists():
            is_run = (path / "config.json").is_file()
            if is_run:
                hint = f"`logpi resume {quote(str(path))}` continues it"
            else:
                hint = "give another --out"
            raise LogpiError(f"{path} exists already; {hint}")
        folder = RunFolder(path)
        with _file_errors(f"create the run folder {path}"):
            (path / "checkpoints").mkdir(parents=True)
        folder.write_config(settings, environment)
        return folder

    @staticmethod
    def open(path: Path) -> "RunFolder":
        """An existing run.

        **Raises:** `LogpiError` where there is none, or it was written by a newer logpi.
        """
        folder = RunFolder(path)
        if not path.is_dir():
            raise LogpiError(f"{path} is not a folder")
        if not folder._config_path.is_file():
            raise LogpiError(f"{path} is not a run folder: it has no config.json")
        found = folder.config().get("format")
        if not isinstance(found, int) or found > FORMAT:
            raise LogpiError(
                f"{path} has format {found}, this logpi {version('logpi')} reads up to {FORMAT}:"
                " upgrade logpi"
            )
        return folder

    @property
    def _config_path(self) -> Path:
        return self.path / "config.json"

    def config(self) -> dict[str, Any]:
        """config.json: `format`, `settings`, `environment`, `versions`, `command`."""
        config = read_json(self._config_path)
        if isinstance(config, dict):
            return cast(dict[str, Any], config)
        raise LogpiError(f"{self._config_path} does not hold a JSON object")

    def settings(self) -> Settings:
        """The resolved settings of the run."""
        return Settings.from_json(self.config().get("settings", {}), source=str(self._config_path))

    def untrusted_code(self) -> list[str]:
        """What opening the run would import that this user has not agreed to."""
        settings = self.settings()
        if is_trusted(settings, self.config().get("signature")):
            return []
        return named_code(settings)

    def trust(self) -> None:
        """Agree to import what the run names, from now on."""
        self.write_json("config.json", {**self.config(), "signature": signature(self.settings())})

    def require_trusted(self) -> None:
        """Refuse a run that names code of somebody else.

        **Raises:** `LogpiError` that names it.
        """
        code = self.untrusted_code()
        if code:
            raise LogpiError(
                f"{self.path} would import {', '.join(code)}, and was not made by you on this"
                " machine: look at that code, then agree with --trust (in Python trust=True)"
            )

    def write_config(self, settings: Settings, environment: Mapping[str, object]) -> None:
        """The resolved settings, what the environment was, and the versions of everything that
        computes.
        """
        config = {
            "format": FORMAT,
            "settings": settings.to_json(),
            "environment": environment,
            "versions": {
                "python": platform.python_version(),
                **{name: version(name) for name in _PACKAGES},
            },
            "command": sys.argv,
            "signature": signature(settings),
        }
        self.write_json("config.json", config)

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
                lock.acquire(timeout=0)
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

    def _writer(self) -> str:
        """Which process holds the folder."""
        try:
            writer = read_json(self.path / WRITER)
            return f"process {writer['process']} on {writer['machine']}"
        except (LogpiError, LookupError, TypeError):
            return "another process"

    def evaluated(self) -> int | None:
        """The steps after which evaluation.json was made, if there is a readable one."""
        try:
            return read_json(self.path / "evaluation.json")["steps"]
        except (LogpiError, LookupError, TypeError):
            return None

    def write_json(self, name: str, value: object) -> None:
        """A JSON file, replaced as a whole."""
        path = self.path / name
        text = json.dumps(value, indent=2) + "\n"
        with _file_errors(f"write {path}"):
            write_whole(path, lambda file: file.write(text.encode()))

    def checkpoints(self) -> list[Path]:
        """Newest first."""
        names = f"step_{'[0-9]' * 12}.npz"
        return sorted((self.path / "checkpoints").glob(names), reverse=True)

    def saved_steps(self) -> int | None:
        """The steps of the newest checkpoint; None where there is none."""
        newest = next(iter(self.checkpoints()), None)
        if newest is None:
            return None
        return int(newest.stem.removeprefix("step_"))

    def save(self, learner: object, counters: Counters) -> Path:
        """A checkpoint; the oldest beyond `CHECKPOINTS_KEPT` are removed."""
        path = self.path / "checkpoints" / f"step_{counters.steps:012d}.npz"
        with _file_errors(f"write {path}"):
            save_checkpoint(path, learner, counters)
            for old in self.checkpoints()[CHECKPOINTS_KEPT:]:
                old.unlink()
        return path

    def load(self, like: Tree) -> tuple[Tree, Counters, list[str]]:
        """The newest whole checkpoint, and a warning for each damaged one that was passed over.

        **Raises:** `LogpiError` where none is whole.
        """
        warnings: list[str] = []
        for path in self.checkpoints():
            try:
                return *load_checkpoint(path, like), warnings
            except DamagedCheckpoint as error:
                warnings.append(f"checkpoint {path} is damaged ({error}); using the one before it")
        raise LogpiError(
            f"{self.path} has no whole checkpoint" + (f": {warnings[0]}" if warnings else "")
        )
