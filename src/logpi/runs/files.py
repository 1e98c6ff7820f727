"""Files of a run folder: written whole or not at all, and read only where they are plain files of a
size that makes sense.
"""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from logpi.core.errors import LogpiError

# What is written beside a file before it takes its place.
PARTIAL = ".partial"
# Bytes; a configuration has a few thousand, a row of metrics a few hundred.
LARGEST_JSON = 10_000_000
LARGEST_TABLE = 100_000_000


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file so that a reader finds either the whole of it or what was there before.

    A link in its place is replaced, not followed.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}{PARTIAL}")
    temporary.unlink(missing_ok=True)
    try:
        with open(temporary, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def require_plain_file(path: Path, largest: int) -> None:
    """Refuse what is no file, or is too large to be what it should be.

    **Raises:** `OSError`, `ValueError`.
    """
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("it is not a plain file")
    if found.st_size > largest:
        raise ValueError(f"it has {found.st_size:,} bytes, more than {largest:,}")


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    **Raises:** `LogpiError` where it cannot be read, or is no JSON.
    """
    try:
        require_plain_file(path, LARGEST_JSON)
        return json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise LogpiError(f"{path} cannot be read: {str(error)[:200]}") from None
