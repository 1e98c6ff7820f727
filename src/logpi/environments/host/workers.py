"""Environments in worker processes: `python -m logpi.environments.host.workers`, spoken to through
its pipes.

A worker is a fresh interpreter that imports no JAX and needs no `__main__` guard in the user's
script. Messages are the bytes of fixed-layout arrays; only the first one and errors are JSON.
Nothing is pickled. The process that trains steps the first share of the copies itself: it would
only wait.
"""

import contextlib
import ctypes
import itertools
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import IO, Any, NoReturn

import gymnasium as gym
import numpy as np
from numpy import ndarray

from logpi.core.errors import LogpiError
from logpi.core.signals import STOP_SIGNALS, raise_too_long
from logpi.environments.host.group import EnvironmentFailure, observation_layout
from logpi.environments.host.local import LocalGroup
from logpi.environments.spec import HostEnvironment

RESET = b"R"
STEP = b"S"
ERROR = b"E"
DONE = b"D"
FIELDS = ("observation", "reward", "terminated", "truncated")
# Seconds for which a process looks for a message before it sleeps: to be woken takes as long as 10
# steps of CartPole.
PATIENCE = 300e-6
# Seconds of stepping that `WorkerGroup.hindered` judges at a time: longer than the update takes to
# compile beside it.
WINDOW = 2.0
# Seconds that a worker has beyond the time limit of a step, to say itself what took too long.
GRACE = 5.0
PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>


def _reply_layout(space: gym.Space) -> np.dtype:
    dtype, shape = observation_layout(space)
    fields: Any = [
        ("observation", dtype, shape),
        ("reward", "f8"),
        ("terminated", "?"),
        ("truncated", "?"),
    ]
    return np.dtype(fields)


def _read(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError
    return data


def _watch(stream: IO[bytes]) -> Callable[[], None]:
    """A function that returns when there is something to read, or its patience ends; at once where
    nothing can look.
    """
    if not hasattr(select, "poll"):  # Windows
        return lambda: None
    poll = select.poll()
    poll.register(stream, select.POLLIN)

    def wait() -> None:
        deadline = time.perf_counter() + PATIENCE
        while not poll.poll(0) and time.perf_counter() < deadline:
            pass

    return wait


def _is_readable(stream: IO[bytes], seconds: float) -> bool:
    """Whether there is something to read within so many seconds; True where nothing can look."""
    if not hasattr(select, "poll"):  # Windows
        return True
    poll = select.poll()
    poll.register(stream, select.POLLIN)
    return bool(poll.poll(1000 * seconds))


class _Worker:
    """The parent's side of one process that steps the copies `first … first + count - 1`."""

    def __init__(self, environment: HostEnvironment, first: int, count: int):
        self.rows = slice(first, first + count)
        self.first = first
        self.count = count
        self._layout = _reply_layout(environment.spec.observation_space)
        command = [sys.executable, "-m", "logpi.environments.host.workers"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self._wait = _watch(self._process.stdout)
        settings = {
            "source": environment.source,
            "max_episode_steps": environment.spec.max_episode_steps,
            "step_limit": environment.step_limit,
        }
        self._limit = environment.step_limit
        self._send(json.dumps({**settings, "count": count}).encode() + b"\n")

    def _send(self, message: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(message)
            self._process.stdin.flush()
        except OSError:
            self._fail()

    def _fail(self) -> NoReturn:
        code = self._process.wait()
        raise EnvironmentFailure(self.first, f"its worker process ended with exit status {code}")

    def reset(self, seeds: ndarray, fresh: ndarray) -> None:
        self._send(RESET + fresh.tobytes() + seeds.tobytes())

    def step(self, actions: ndarray, active: ndarray) -> None:
        self._send(STEP + active.tobytes() + actions.tobytes())

    def receive(self) -> ndarray:
        """One record per copy."""
        assert self._process.stdout is not None
        self._wait()
        if self._limit is not None and not _is_readable(self._process.stdout, self._limit + GRACE):
            self._process.kill()
            late = f"has not answered for {self._limit + GRACE:g} s (--step-limit)"
            raise EnvironmentFailure(self.first, f"its worker process {late}, and was killed")
        try:
            kind = _read(self._process.stdout, 1)
            if kind == ERROR:
                failure = json.loads(self._process.stdout.readline())
                raise EnvironmentFailure(self.first + failure["index"], failure["message"])
            return np.frombuffer(
                _read(self._process.stdout, self.count * self._layout.itemsize), self._layout
            )
        except EOFError:
            self._fail()

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


@dataclass
class _Clock:
    """Seconds of stepping and steps made: of all copies, and of this process's own."""

    seconds: float = 0.0
    steps: int = 0
    own_seconds: float = 0.0
    own_steps: int = 0


class WorkerGroup:
    """The copies of this process, then those of all workers; seed for seed the same episodes as
    `LocalGroup`.
    """

    repeatable = True

    def __init__(self, environment: HostEnvironment, count: int, workers: int):
        if environment.source is None:
            raise LogpiError("worker processes need an environment given by name")
        bounds = [count * i // (workers + 1) for i in range(workers + 2)]
        self._workers = [_Worker(environment, a, b - a) for a, b in itertools.pairwise(bounds[1:])]
        self._own = LocalGroup(environment, bounds[1])
        self._rows = slice(bounds[1])
        self._action_dtype, _ = _action_layout(environment.spec.action_space)
        dtype, shape = observation_layout(environment.spec.observation_space)
        self.observation = np.zeros((count, *shape), dtype)
        self.reward = np.zeros(count)
        self.terminated = np.zeros(count, bool)
        self.truncated = np.zeros(count, bool)
        self._clock = _Clock()
        self._slower = False

    def reset(self, seeds: Sequence[int], rows: Sequence[int]) -> None:
        fresh = self._flags(rows)
        seed_of = np.zeros(len(self.reward), np.uint64)
        seed_of[list(rows)] = seeds
        busy = [worker for worker in self._workers if fresh[worker.rows].any()]
        for worker in busy:
            worker.reset(seed_of[worker.rows], fresh[worker.rows])
        mine = np.flatnonzero(fresh[self._rows]).tolist()
        self._finish(busy, lambda: self._own.reset(seed_of[mine].tolist(), mine))

    def step(self, actions: ndarray, active: Sequence[int]) -> None:
        actions = np.ascontiguousarray(actions, self._action_dtype)
        running = self._flags(active)
        busy = [worker for worker in self._workers if running[worker.rows].any()]
        mine = np.flatnonzero(running[self._rows]).tolist()
        clock = self._clock

        def own() -> None:
            begun = time.perf_counter()
            self._own.step(actions[self._rows], mine)
            clock.own_seconds += time.perf_counter() - begun
            clock.own_steps += len(mine)

        begun = time.perf_counter()
        for worker in busy:
            worker.step(actions[worker.rows], running[worker.rows])
        self._finish(busy, own)
        clock.seconds += time.perf_counter() - begun
        clock.steps += len(active)

    def hindered(self) -> bool:
        """Whether this process alone would have been faster, as when other programs keep the
        workers from their cores.

        Judged by what its own copies took, over two times `WINDOW` seconds of stepping, since one
        may be a moment's pause of the whole machine; False until they have passed.
        """
        clock = self._clock
        before = self._slower
        if clock.seconds < WINDOW or not clock.own_steps:
            return False
        self._clock = _Clock()
        self._slower = clock.seconds > clock.own_seconds / clock.own_steps * clock.steps
        return before and self._slower

    def _flags(self, rows: Sequence[int]) -> ndarray:
        flags = np.zeros(len(self.reward), bool)
        flags[list(rows)] = True
        return flags

    def _finish(self, busy: Sequence[_Worker], own: Callable[[], None]) -> None:
        """Do this process's part, and take what the workers have done; a failure is raised when all
        have answered.
        """
        replies = []
        failures = []
        for answer in (own, *(worker.receive for worker in busy)):
            try:
                replies.append(answer())
            except EnvironmentFailure as failure:
                failures.append(failure)
        if failures:
            raise failures[0]
        for field in FIELDS:
            getattr(self, field)[self._rows] = getattr(self._own, field)
            for worker, reply in zip(busy, replies[1:], strict=True):
                getattr(self, field)[worker.rows] = reply[field]

    def close(self) -> None:
        for worker in self._workers:
            worker.close()
        self._own.close()


def _action_layout(space: gym.Space) -> tuple[np.dtype, tuple[int, ...]]:
    if isinstance(space, gym.spaces.Discrete):
        return np.dtype(np.int32), ()
    if isinstance(space, gym.spaces.Tuple | gym.spaces.Dict):
        return np.dtype(np.float32), (_numbers(space),)
    assert space.shape is not None
    return np.dtype(np.float32 if isinstance(space, gym.spaces.Box) else np.int32), space.shape


def _numbers(space: gym.Space) -> int:
    """Length of a nested action in one row."""
    if isinstance(space, gym.spaces.Tuple | gym.spaces.Dict):
        if isinstance(space, gym.spaces.Dict):
            parts = space.spaces.values()
        else:
            parts = space.spaces
        return sum(map(_numbers, parts))
    return int(np.prod(space.shape or ()))


def _serve(requests: IO[bytes], replies: IO[bytes]) -> None:
    """The other side: step the copies as told until the pipe closes."""
    from logpi.environments.registry import make_host_environment

    settings = json.loads(requests.readline())
    count = settings["count"]
    environment = make_host_environment(settings["source"], settings["max_episode_steps"])
    environment = replace(environment, step_limit=settings["step_limit"])
    group = LocalGroup(environment, count)
    reply = np.zeros(count, _reply_layout(environment.spec.observation_space))
    dtype, shape = _action_layout(environment.spec.action_space)
    wait = _watch(requests)
    while True:
        wait()
        if not (kind := requests.read(1)):
            break
        try:
            active = np.flatnonzero(np.frombuffer(_read(requests, count), bool)).tolist()
            if kind == RESET:
                group.reset(
                    np.frombuffer(_read(requests, 8 * count), np.uint64)[active].tolist(), active
                )
            else:
                size = count * dtype.itemsize * int(np.prod(shape))
                # some environments change the action that they get, in place
                actions = np.frombuffer(bytearray(_read(requests, size)), dtype)
                group.step(actions.reshape(count, *shape), active)
        except EnvironmentFailure as failure:
            message = {"index": failure.index, "message": failure.message}
            replies.write(ERROR + json.dumps(message).encode() + b"\n")
        else:
            for field in FIELDS:
                reply[field] = getattr(group, field)
            replies.write(DONE + reply.tobytes())
        replies.flush()
    group.close()


def _end_with_parent() -> None:
    """On Linux the system kills this process when its parent has died, whatever it is doing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Serve on the pipes that this process was started with; the environment prints to standard
    error.
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
        os.fdopen(replies, "wb") as written,
    ):
        _serve(read, written)


if __name__ == "__main__":
    main()
