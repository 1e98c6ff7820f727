"""Shares in a worker process: the side of the process that trains.

It sends parameters once a batch, and gets trajectories back. Messages are pickled, as they are
between any processes of one Python program: both ends are ours, and nobody else can write to the
pipes.
"""

import contextlib
import pickle
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import IO, Any

import cloudpickle
import jax

from logpi.core.machine import variables_of_children
from logpi.core.signals import CLOSING
from logpi.environments.spec import HostEnvironment
from logpi.sampling.host.kernels import require_same_arithmetic
from logpi.sampling.host.messages import LENGTH
from logpi.sampling.host.place import GRACE, LOOK, STARTING, Outcome, PlaceLost, Request
from logpi.sampling.host.role import Role
from logpi.sampling.host.shares import Shares
from logpi.sampling.seam import Interrupted

_MOST_AT_ONCE = 2**20
# A pipe that can be written has room for so many bytes (POSIX's PIPE_BUF).
_LEAST_ROOM = 4096
_READABLE = getattr(select, "POLLIN", 0)
_WRITABLE = getattr(select, "POLLOUT", 0)
# The process that trains and its workers share the cores, and products of a share are too small for
# threads.
_ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "BLIS")}


class WorkerProcess:
    """The parent's side of one worker.

    **Raises:** `LogpiError` for an environment that cannot travel to another process.
    """

    def __init__(
        self,
        environment: HostEnvironment,
        shares: Shares,
        seed: int,
        interrupted: Callable[[], bool],
        mixed_hardware: bool,
    ):
        self.shares = shares
        self._limit = environment.step_limit
        self._interrupted = interrupted
        self._mixed_hardware = mixed_hardware
        self._knows_policy = False
        self._is_started = False
        self._is_busy = False
        self._end: str | None = None  # why it was killed
        role = Role.of(environment, shares, seed).packed()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "logpi.sampling.host.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=variables_of_children() | _ONE_THREAD,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests = self._process.stdin
        self._replies = self._process.stdout
        self._send(role, STARTING)

    def ask(self, request: Request) -> None:
        """The first request brings the policy, the later ones its parameters."""
        self._is_busy = True
        limit = self._limit if self._is_started else STARTING
        policy = request.policy.on_host()
        if not self._knows_policy:
            self._send(cloudpickle.dumps(policy), limit)
            self._knows_policy = True
        leaves = jax.tree.leaves(policy)
        self._send(pickle.dumps((request.method, leaves, request.arguments)), limit)

    def answer(self) -> Any:
        if not self._is_started:
            self._start()
        outcome = self._receive(self._limit)
        self._is_busy = False
        return outcome.result()

    def is_ready(self) -> bool:
        return self._is_started or _is_ready(self._replies, _READABLE, 0.0)

    def close(self) -> None:
        """An idle worker closes its environments; one that plays, hangs, or has not started is
        killed.
        """
        if self._is_busy or not self.is_ready():
            self._process.kill()
        with contextlib.suppress(OSError):
            self._requests.close()
        self._replies.close()
        try:
            self._process.wait(timeout=CLOSING)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _start(self) -> None:
        """Wait for its first message, which says how it computes."""
        arithmetic = self._receive(STARTING).value
        self._is_started = True
        require_same_arithmetic(arithmetic, self.shares.size, self._mixed_hardware)

    def _receive(self, limit: float | None) -> Outcome:
        """What has become of the request, where the last sign of life may be `limit` seconds old.

        **Raises:** `PlaceLost`, `Interrupted`.
        """
        while True:
            (length,) = LENGTH.unpack(self._read(LENGTH.size, limit))
            outcome: Outcome | None = pickle.loads(self._read(length, limit))
            if outcome is not None:
                return outcome

    def _read(self, size: int, limit: float | None) -> bytearray:
        """So many bytes, of which some must come every `limit` seconds."""
        data = bytearray()
        while len(data) < size:
            self._wait(self._replies, _READABLE, limit)
            part = self._replies.read(min(size - len(data), _MOST_AT_ONCE))
            if not part:
                raise PlaceLost(self._end or _how_ended(self._process.wait()))
            data += part
        return data

    def _send(self, message: bytes, limit: float | None) -> None:
        """A message, of which the worker must take some every `limit` seconds. A worker that is
        gone says so when its answer is read.

        **Raises:** `Interrupted`.
        """
        unsent = memoryview(LENGTH.pack(len(message)) + message)
        with contextlib.suppress(OSError):  # a closed pipe has another error on Windows
            while unsent:
                self._wait(self._requests, _WRITABLE, limit)
                unsent = unsent[self._requests.write(unsent[:_LEAST_ROOM]) :]

    def _wait(self, pipe: IO[bytes], event: int, limit: float | None) -> None:
        """Until a pipe is ready; a worker that leaves it as it is for `limit` seconds is killed,
        which ends the pipe.

        **Raises:** `Interrupted`.
        """
        waited_since = time.monotonic()
        while not _is_ready(pipe, event, LOOK):
            if self._interrupted():
                raise Interrupted
            if limit is not None and time.monotonic() - waited_since > limit + GRACE:
                self._process.kill()
                late = f"gave no sign of life for {limit + GRACE:g} s (--step-limit)"
                self._end = f"its worker process {late}, and was killed"
                return


def _is_ready(pipe: IO[bytes], event: int, seconds: float) -> bool:
    """Whether a pipe can be read or written within so many seconds, or has ended; True where none
    can look.
    """
    if not hasattr(select, "poll"):  # Windows
        return True
    poll = select.poll()
    poll.register(pipe, event)
    return bool(poll.poll(1000 * seconds))


def _how_ended(status: int) -> str:
    """What the exit status of a process says."""
    if status >= 0:
        return f"its worker process ended with exit status {status}"
    with contextlib.suppress(ValueError):
        return f"its worker process was ended by {signal.Signals(-status).name}"
    return f"its worker process was ended by signal {-status}"
