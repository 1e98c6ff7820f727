"""What a program tells a person, who may have gone: a closed terminal or a full disk ends no
run.
"""

import os
import sys
from collections.abc import Sequence
from typing import Any


def say(text: str) -> None:
    """A line on standard output, if that can be written."""
    _write(sys.stdout, text)


def say_aside(text: str) -> None:
    """A line on standard error, if that can be written."""
    _write(sys.stderr, text)


def in_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of a table as lines, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def silence(stream: Any) -> None:
    """Let what could not be written, and all that follows, go nowhere: it would fail once more when
    the program ends.
    """
    if stream is None:
        return
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _write(stream: Any, text: str) -> None:
    if stream is None:
        return
    try:
        print(text, file=stream, flush=True)
    except OSError:
        silence(stream)
    except ValueError:  # it is closed
        pass
