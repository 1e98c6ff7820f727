"""What the last bits of a run depend on, beside its settings."""

import platform
from importlib.metadata import version

from logpi.core.machine import blas_kernels, usable_cores

_PACKAGES = ("logpi", "jax", "jaxlib", "equinox", "optax", "numpy", "gymnasium")


def describe_machine() -> dict[str, object]:
    """Versions, cores, the accelerator, and the kernels with which NumPy multiplies matrices.

    A run that is resumed where one of these is another may differ in the last bits of its
    parameters from one that was never stopped.
    """
    import jax

    return {
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
        "processor": platform.machine(),
        "cores": usable_cores(),
        "blas": blas_kernels(),
        "device": jax.devices()[0].device_kind,
    }
