"""Files that a user has asked for."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from logpi.core.errors import LogpiError


@contextmanager
def written_at(path: Path) -> Iterator[None]:
    """Where a file cannot be written, one line that names it.

    **Raises:** `LogpiError`.
    """
    try:
        yield
    except OSError as error:
        raise LogpiError(f"cannot write {path}: {error.strerror or error}") from None
