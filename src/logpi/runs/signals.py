"""Signals that ask a run to stop, which it obeys between two steps."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from logpi.core.signals import STOP_SIGNALS, TookTooLong, set_alarm

# Seconds after which a step that does not end is left by force.
PATIENCE = 10.0


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """A function that says whether a signal has come, for the run to ask between two steps.

    Where nobody asks for `PATIENCE` seconds, a step hangs: the signal then raises
    `KeyboardInterrupt` in it. A second signal does what it does outside of a run.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop.is_set
        return

    def ask(number: int, frame: FrameType | None) -> None:
        stop.set()
        _restore(number, before[number])
        set_alarm(PATIENCE)

    def leave(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        raise TookTooLong

    def has_come() -> bool:
        if stop.is_set():
            set_alarm(0.0)
        return stop.is_set()

    before = {number: signal.signal(number, ask) for number in STOP_SIGNALS}
    if hasattr(signal, "SIGALRM"):
        before[signal.SIGALRM] = signal.signal(signal.SIGALRM, leave)
    try:
        yield has_come
    finally:
        set_alarm(0.0)
        for number, handler in before.items():
            _restore(number, handler)


def _restore(number: int, handler: object) -> None:
    """The handler of before; the system's own where Python did not set it."""
    signal.signal(number, handler or signal.SIG_DFL)  # type: ignore[arg-type]
