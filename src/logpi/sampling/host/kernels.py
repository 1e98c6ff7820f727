"""The arithmetic of this machine: whether another one acts with the same last bits."""

import hashlib
import platform
from importlib.metadata import version
from typing import NamedTuple

import numpy as np

from logpi.core.errors import LogpiError
from logpi.core.machine import blas_kernels

# Shapes of layers, around the places where libraries of matrix products change their way.
_LAYERS = ((1, 1), (4, 64), (17, 6), (64, 2), (64, 64), (128, 17), (256, 256), (512, 6))


def arithmetic_digest(rows: int) -> str:
    """The bits of products of `rows` rows, of tanh and of exp: 16 digits in base 16."""
    random = np.random.default_rng(0)
    digest = hashlib.sha256()
    for into, out in _LAYERS:
        x = random.standard_normal((rows, into)).astype(np.float32)
        weight = random.standard_normal((into, out)).astype(np.float32)
        product = x @ weight
        for values in (product, np.tanh(product), np.exp(np.clip(product, -9, 9))):
            digest.update(values.tobytes())
    return digest.hexdigest()[:16]


class Arithmetic(NamedTuple):
    """How a process computes, and where it does."""

    digest: str
    logpi: str
    """The version that plays."""
    machine: str
    """The name of its machine and what multiplies there, for people."""

    @staticmethod
    def here(rows: int) -> "Arithmetic":
        """That of this process, in products of `rows` rows."""
        machine = f"{platform.node()} (NumPy {np.__version__}, {blas_kernels()})"
        return Arithmetic(arithmetic_digest(rows), version("logpi"), machine)


def require_same_arithmetic(other: Arithmetic, rows: int, mixed_hardware: bool) -> None:
    """Refuse a process that plays otherwise than this one; other last bits are accepted where
    hardware may be mixed.

    **Raises:** `LogpiError` that names the machine.
    """
    own = Arithmetic.here(rows)
    if other.logpi != own.logpi:
        raise LogpiError(
            f"the worker on {other.machine} has logpi {other.logpi}, this process {own.logpi}:"
            " install the same version on all machines"
        )
    if other.digest != own.digest and not mixed_hardware:
        raise LogpiError(
            f"the worker on {other.machine} computes with other last bits than this process on"
            f" {own.machine}, so that nobody could repeat the run: use processors of one kind, or"
            " set OPENBLAS_CORETYPE and NPY_DISABLE_CPU_FEATURES alike, or accept it with"
            " --mixed-hardware"
        )
