"""The arithmetic of this machine: whether another one acts with the same last bits."""

import hashlib

import numpy as np

from logpi.core.errors import LogpiError

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


def require_same_arithmetic(digest: str, rows: int, mixed_hardware: bool) -> None:
    """Refuse a process that computes otherwise than this one, unless hardware may be mixed.

    **Raises:** `LogpiError`.
    """
    own = arithmetic_digest(rows)
    if digest != own and not mixed_hardware:
        raise LogpiError(
            f"a worker computes with other last bits than this process ({digest}, {own}), so that"
            " nobody could repeat the run: use processors of one kind, or set OPENBLAS_CORETYPE and"
            " NPY_DISABLE_CPU_FEATURES alike, or accept it with --mixed-hardware"
        )
