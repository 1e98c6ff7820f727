"""Processes that `jax.distributed` has joined in one run: the first of them writes its folder."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
from jax.experimental import multihost_utils

from logpi.runs.files import PARTIAL


@contextmanager
def folder_of_process(path: Path | None) -> Iterator[Path | None]:
    """The folder in which this process writes: the run's, if it is the first.

    Any other has a copy of what was there before the first wrote, and throws it away in the end.
    """
    if jax.process_count() == 1:
        yield path
        return
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "run"
        # a process waits here for all others, and again until each has its copy
        with multihost_utils.live_devices(jax.devices()):
            if jax.process_index() > 0 and path is not None and path.is_dir():
                shutil.copytree(path, copy, ignore=shutil.ignore_patterns(f"*{PARTIAL}"))
        yield path if jax.process_index() == 0 else copy
