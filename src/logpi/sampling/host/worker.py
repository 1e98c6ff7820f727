"""Shares in a worker process: `python -m logpi.sampling.host.worker`, spoken to through its pipes.

A worker is a fresh interpreter, so a user's script needs no `__main__` guard. While it plays it
gives a sign of life every second.
"""

import contextlib
import ctypes
import os
import pickle
import signal
import sys
import time
from typing import IO

import jax

from logpi.core.errors import LogpiError
from logpi.core.foreign import describe, exits_raised
from logpi.core.signals import STOP_SIGNALS, raise_too_long
from logpi.sampling.host.kernels import arithmetic_digest
from logpi.sampling.host.messages import LENGTH, write_message
from logpi.sampling.host.place import Request
from logpi.sampling.host.player import Part
from logpi.sampling.host.role import Role
from logpi.sampling.host.stage import Stage
from logpi.sampling.validity import EnvironmentFault

# Seconds between two signs of life.
BEAT = 1.0
_PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>


class _Line:
    """The worker's side of the pipes."""

    def __init__(self, requests: IO[bytes], replies: IO[bytes]):
        self._requests = requests
        self._replies = replies
        self._beat = time.monotonic()

    def receive(self) -> bytes:
        """The next message.

        **Raises:** `EOFError` where there is no one any more who could send it.
        """
        (length,) = LENGTH.unpack(self._read(LENGTH.size))
        return self._read(length)

    def _read(self, size: int) -> bytes:
        data = self._requests.read(size)
        if len(data) != size:
            raise EOFError
        return data

    def send(self, kind: str, value: object = None) -> None:
        """A message and what it carries."""
        write_message(self._replies, pickle.dumps((kind, value)))
        self._beat = time.monotonic()

    def say_alive(self) -> bool:
        """A sign of life, if the last message is a second old; asked as often as a player can stop,
        which a worker never does.
        """
        if time.monotonic() - self._beat > BEAT:
            self.send("alive")
        return False


def _serve(line: _Line) -> None:
    """Play as asked until the pipe closes."""
    role: Role = pickle.loads(line.receive())
    line.send("started", arithmetic_digest(role.shares.size))
    policy = pickle.loads(line.receive())
    structure = jax.tree.structure(policy)
    stage: Stage | None = None
    while True:
        method, leaves, arguments = pickle.loads(line.receive())
        request = Request(method, jax.tree.unflatten(structure, leaves), arguments)
        try:
            if stage is None:
                stage = Stage(role.make_environment(), role.shares, role.seed, line.say_alive)
            answer = request.perform(stage)
        except EnvironmentFault as fault:
            line.send("fault", str(fault))
        except LogpiError as error:
            line.send("refused", str(error))
        except (BrokenPipeError, EOFError):
            raise
        except Exception as error:
            line.send("raised", describe(error))
        else:
            if isinstance(answer, Part):
                answer = answer.used()
            line.send("done", answer)


def _end_with_parent() -> None:
    """On Linux the system kills this process when its parent has died, whatever it is doing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Serve on the pipes that this process was started with; what environments print goes to
    standard error.
    """
    for number in STOP_SIGNALS:  # the parent's to answer
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, raise_too_long)
    _end_with_parent()
    requests = os.dup(sys.stdin.fileno())
    replies = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    os.dup2(os.open(os.devnull, os.O_RDONLY), sys.stdin.fileno())
    with (
        contextlib.suppress(EOFError, BrokenPipeError),  # the parent is gone
        os.fdopen(requests, "rb") as read,
        os.fdopen(replies, "wb", buffering=0) as written,
        exits_raised(),
    ):
        _serve(_Line(read, written))


if __name__ == "__main__":
    main()
