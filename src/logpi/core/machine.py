"""What this machine offers: cores, memory, and what multiplies matrices."""

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


def blas_kernels() -> str:
    """The libraries with which NumPy multiplies matrices here, and for which processor."""
    import threadpoolctl

    libraries = [each for each in threadpoolctl.threadpool_info() if each["user_api"] == "blas"]
    # SciPy brings one of its own, which is loaded with it
    numpys = [each for each in libraries if "numpy" in each["filepath"]]
    names = {
        f"{library['internal_api']} {library['version']} {library.get('architecture', '')}".strip()
        for library in numpys or libraries
    }
    return ", ".join(sorted(names))


def variables_of_children() -> dict[str, str]:
    """The environment variables of a Python process that finds every module which this one does."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
