"""Code that is not ours may raise anything, and end the process; only Ctrl-C goes through it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import cloudpickle

from logpi.core.errors import LogpiError


def describe(error: BaseException) -> str:
    """An exception in one line: its kind and its message, of which 300 characters are shown."""
    try:
        text = str(error)
    except Exception:
        text = "its message cannot be made"
    kind = type(error).__name__
    if text:
        return f"{kind}: {one_line(text)}"
    return kind


def pack(thing: object, name: str, remedy: str) -> bytes:
    """A thing as bytes that `pickle.loads` reads in another process, with what it refers to.

    **Raises:** `LogpiError` where that cannot travel; `name` says what it is, `remedy` what helps.
    """
    try:
        return cloudpickle.dumps(thing)
    except Exception as error:
        what = f"{name} cannot be sent to another process: {describe(error)}"
        raise LogpiError(f"{what}; {remedy}") from error


def one_line(text: str) -> str:
    """The first 300 characters of a text, without its line breaks."""
    return " ".join(text[:300].split())


@contextmanager
def faults_ignored() -> Iterator[None]:
    """Go on behind it, whatever is raised: nothing of it is needed."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException:
        pass


@contextmanager
def exits_raised() -> Iterator[None]:
    """`os._exit`, with which code ends its process at once, raises `SystemExit` instead.

    Processes that are forked meanwhile end as they would.
    """
    end = os._exit
    process = os.getpid()

    def refuse(status: int) -> NoReturn:
        if os.getpid() != process:
            end(status)
        raise SystemExit(f"os._exit({status})")

    os._exit = refuse
    try:
        yield
    finally:
        os._exit = end
