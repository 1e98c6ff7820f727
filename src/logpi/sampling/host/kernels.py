"""The arithmetic of this machine: whether another one acts with the same last bits."""

import hashlib

import numpy as np

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
