"""What this machine offers: cores and memory."""

import math
import os
import sys


def usable_cores() -> int:
    """Cores that this process may run on, which a scheduler or `taskset` may have limited."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine_memory() -> float:
    """Bytes of memory that this machine has; infinite where the system does not say."""
    if hasattr(os, "sysconf"):
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return math.inf


def variables_of_children() -> dict[str, str]:
    """The environment variables of a Python process that finds every module which this one does."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
