"""Which signals ask a program to stop, and the alarm that ends a step which hangs."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# Ctrl-C, `kill` and schedulers, a closed terminal, and the warning of a cluster's scheduler.
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
STOP_SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))


class TookTooLong(BaseException):
    """A step of an environment has not ended in its time."""


def raise_too_long(number: int, frame: FrameType | None) -> None:
    """A handler of the alarm: the code that runs is left."""
    raise TookTooLong


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Leave the code inside by `TookTooLong` after so many seconds; never where there is no alarm
    that this thread hears.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or not hasattr(signal, "setitimer"):  # Windows
        yield
        return
    before = signal.signal(signal.SIGALRM, raise_too_long)
    set_alarm(seconds)
    try:
        yield
    finally:
        set_alarm(0.0)
        signal.signal(signal.SIGALRM, before or signal.SIG_DFL)


def has_alarm() -> bool:
    """Whether `set_alarm` can end what this thread does: a handler is set, and is run in it."""
    if not hasattr(signal, "setitimer"):  # Windows
        return False
    is_main = threading.current_thread() is threading.main_thread()
    return is_main and callable(signal.getsignal(signal.SIGALRM))


# Seconds that an environment has to close; nothing of it is needed any more.
CLOSING = 5.0


def set_alarm(seconds: float) -> None:
    """The alarm after so many seconds, 0 for never; nothing where there is none (Windows)."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)
