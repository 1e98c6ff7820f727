"""Checkpoints: one `.npz` file with every array of the learner under its own name, and the counters
beside it.

Readable with `numpy.load(path)`; nothing is pickled, and loading one runs no code from it.
"""

import json
import math
import os
import zipfile
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

Tree = TypeVar("Tree")

_COUNTERS = "counters"


@dataclass
class Counters:
    """How far a run has come. `recent` holds [mean return, mean length, episodes] of the latest
    batches.
    """

    steps: int = 0
    episodes: int = 0
    updates: int = 0
    seconds: float = 0.0
    recent: list[list[float]] = field(default_factory=list)

    def recent_means(self) -> tuple[float, float]:
        """Mean return and mean length of the recent episodes; NaN before any has ended."""
        count = sum(episodes for *_, episodes in self.recent)
        if not count:
            return math.nan, math.nan
        total = [sum(row[i] * row[2] for row in self.recent) for i in (0, 1)]
        return total[0] / count, total[1] / count


class DamagedCheckpoint(Exception):
    """The file is truncated, altered, or of another learner; the message says which."""


def save_checkpoint(path: Path, learner: object, counters: Counters) -> None:
    """Write all at once: a reader finds either the whole file or none."""
    arrays = {name: np.asarray(_plain(leaf)) for name, leaf in _named_leaves(learner)}
    arrays[_COUNTERS] = np.frombuffer(json.dumps(asdict(counters)).encode(), np.uint8)
    temporary = path.with_suffix(".partial")
    try:
        with open(temporary, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def load_checkpoint(path: Path, like: Tree) -> tuple[Tree, Counters]:
    """The learner, in the structure of `like`, and its counters.

    **Raises:** `DamagedCheckpoint`.
    """
    arrays = _read(path)
    leaves = []
    for name, leaf in _named_leaves(like):
        if name not in arrays:
            raise DamagedCheckpoint(f"it lacks {name}")
        found = arrays[name]
        expected = _plain(leaf)
        if found.shape != expected.shape or found.dtype != expected.dtype:
            raise DamagedCheckpoint(
                f"{name} is {found.dtype}{found.shape}, expected {expected.dtype}{expected.shape}"
            )
        leaves.append(_as_leaf(found, leaf))
    counters = Counters(**json.loads(arrays[_COUNTERS].tobytes()))
    return jax.tree.unflatten(jax.tree.structure(like), leaves), counters


def _as_leaf(found: np.ndarray, like: PyTree) -> PyTree:
    """An array on the device; a random key where `like` is one."""
    put = jax.device_put(found)
    if _is_key(like):
        return jax.random.wrap_key_data(put, impl=jax.random.key_impl(like))
    return put


# What reading a damaged file may raise; the checksums are compared while the arrays are read.
_DAMAGES = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
)


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
        json.loads(found[_COUNTERS].tobytes())
        return found
    except _DAMAGES as error:
        raise DamagedCheckpoint(f"{type(error).__name__}: {error}") from error


def _is_key(leaf: PyTree) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _plain(leaf: PyTree) -> PyTree:
    """The numbers of a random key, which environments keep in their state; anything else as it
    is.
    """
    if _is_key(leaf):
        return jax.random.key_data(leaf)
    return leaf


def _named_leaves(tree: PyTree) -> list[tuple[str, PyTree]]:
    return [
        (jax.tree_util.keystr(path).lstrip("."), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]
