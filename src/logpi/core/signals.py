"""Which signals ask a program to stop, and the alarm that ends a step which hangs."""

import signal
import threading
from types import FrameType

# Ctrl-C, `kill` and schedulers, a closed terminal, and the warning of a cluster's scheduler.
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
STOP_SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))


class TookTooLong(BaseException):
    """A step of an environment has not ended in its time."""


def raise_too_long(number: int, frame: FrameType | None) -> None:
    """A handler of the alarm: the code that runs is left."""
    raise TookTooLong


def has_alarm() -> bool:
    """Whether `set_alarm` can end what this thread does: a handler is set, and is run in it."""
    if not hasattr(signal, "setitimer"):  # Windows
        return False
    is_main = threading.current_thread() is threading.main_thread()
    return is_main and callable(signal.getsignal(signal.SIGALRM))


def set_alarm(seconds: float) -> None:
    """The alarm after so many seconds, 0 for never; nothing where there is none (Windows)."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)
