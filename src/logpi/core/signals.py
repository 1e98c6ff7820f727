"""Which signals ask a program to stop."""

import signal

# Ctrl-C, `kill` and schedulers, a closed terminal, and the warning of a cluster's scheduler.
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
STOP_SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))
