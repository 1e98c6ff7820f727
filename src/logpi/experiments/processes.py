"""Runs side by side on this machine, each in a process of its own.

A process has one run and ends with it: what an environment does to it concerns no other run. One
that is killed is replaced, and its run resumed.
"""

import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from logpi.core.machine import variables_of_children
from logpi.experiments.task import Task
from logpi.sampling.host.messages import write_message

# A process that is killed so often ends its run.
MOST_KILLED = 3
Done = Callable[[Task, str | None], None]


def run_in_processes(tasks: Sequence[Task], count: int, done: Done) -> None:
    """Make the runs of all tasks, `count` at a time; `done` hears of each, and why it has failed.

    **Raises:** `KeyboardInterrupt`, after the runs under way have been saved.
    """
    packed = [task.packed() for task in tasks]
    processes = _Processes()
    with ThreadPoolExecutor(count) as pool:
        futures = {
            pool.submit(processes.make, each): task
            for each, task in zip(packed, tasks, strict=True)
        }
        try:
            for future in as_completed(futures):
                done(futures[future], future.result())
        except BaseException:
            for future in futures:
                future.cancel()
            processes.stop()
            raise


class _Processes:
    """The processes that are under way."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._is_stopped = False

    def make(self, packed: bytes) -> str | None:
        """Make one run in a new process, or in another where that is killed; why it has failed."""
        ended_by = ""
        for _ in range(MOST_KILLED):
            process = self._start()
            if process is None:
                return "stopped"
            said = _outcome(process, packed)
            with self._lock:
                self._running.discard(process)
            if process.returncode == 0:
                return None
            if process.returncode > 0:
                return said
            ended_by = signal.Signals(-process.returncode).name
        return f"its process was ended by {ended_by}, {MOST_KILLED} times"

    def stop(self) -> None:
        """Have all processes save their runs and end."""
        with self._lock:
            self._is_stopped = True
            for process in self._running:
                _close_input(process)

    def _start(self) -> "subprocess.Popen[bytes] | None":
        """A new process; None where all are to end."""
        with self._lock:
            if self._is_stopped:
                return None
            process = subprocess.Popen(
                [sys.executable, "-m", "logpi.experiments.process"],
                env=variables_of_children(),
                stdin=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
            )
            self._running.add(process)
            return process


def _outcome(process: subprocess.Popen[bytes], packed: bytes) -> str:
    """The last line that a process writes, once it has made the run of a task."""
    assert process.stdin is not None
    assert process.stderr is not None
    with contextlib.suppress(OSError):
        write_message(process.stdin, packed)
    lines = process.stderr.read().decode(errors="replace").strip().splitlines()
    process.stderr.close()
    process.wait()
    _close_input(process)
    if lines:
        return lines[-1]
    return f"its process ended with exit status {process.returncode}"


def _close_input(process: subprocess.Popen[bytes]) -> None:
    """A process whose input is closed stops its run."""
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.close()
