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

from logpi.core.foreign import exits_raised
from logpi.core.signals import STOP_SIGNALS, raise_too_long
from logpi.sampling.host.kernels import Arithmetic
from logpi.sampling.host.messages import LENGTH, write_message
from logpi.sampling.host.place import Outcome, Worker
from logpi.sampling.host.role import Role

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

    def send(self, outcome: Outcome | None) -> None:
        """What has become of a request; None says that there will be something."""
        write_message(self._replies, pickle.dumps(outcome))
        self._beat = time.monotonic()

    def say_alive(self) -> bool:
        """A sign of life, if the last message is a second old; asked as often as a player can stop,
        which a worker never does.
        """
        if time.monotonic() - self._beat > BEAT:
            self.send(None)
        return False


def _serve(line: _Line) -> None:
    """Play as asked until the pipe closes."""
    role: Role = pickle.loads(line.receive())
    line.send(Outcome("done", Arithmetic.here(role.shares.size)))
    worker = Worker(role, line.say_alive)
    worker.meet(pickle.loads(line.receive()))
    try:
        while True:
            line.send(worker.perform(*pickle.loads(line.receive())))
    finally:
        worker.close()


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
