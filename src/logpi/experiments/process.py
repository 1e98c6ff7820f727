"""The process of one run of a sweep: `python -m logpi.experiments.process`.

It reads its task from its input, and stops, saved, when that is closed: by the process that has
started it, or because that is no more.
"""

import os
import pickle
import signal
import sys
import threading

from logpi.experiments.task import Task
from logpi.sampling.host.messages import LENGTH


def main() -> int:
    """Make the run. Exit status: 0, 2 where it failed, 130 where it was stopped."""
    (length,) = LENGTH.unpack(sys.stdin.buffer.read(LENGTH.size))
    task: Task = pickle.loads(sys.stdin.buffer.read(length))
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    try:
        failure = task.perform()
    except KeyboardInterrupt:
        return 130
    if failure is None:
        return 0
    print(failure, file=sys.stderr)
    return 2


def _stop_with_parent() -> None:
    """Ask the run to stop when nobody holds the other end of the input any more."""
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
