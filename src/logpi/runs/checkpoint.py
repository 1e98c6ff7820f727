"""Checkpoints: one `.npz` file with every array of the learner under its own name, and the counters
beside it.

Readable with `numpy.load(path)`; nothing is pickled, and loading one runs no code from it.
"""

import json
import math
import struct
import tokenize
import zipfile
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from logpi.core.arrays import AnyArray
from logpi.core.checks import is_real, is_whole
from logpi.core.foreign import describe
from logpi.runs.files import require_plain_file, write_whole

Tree = TypeVar("Tree")

_COUNTERS = "counters"
# Bytes of a checkpoint that are no array's: names, headers, counters.
MOST_BESIDE_ARRAYS = 10_000_000


@dataclass
class Counters:
    """How far a run has come. `recent` holds [mean return, mean length, episodes] of the latest
    batches, `faults` counts those of environments after which it went on, `lost` the workers that
    others have replaced. `row_at` is the step of the last row of metrics, `row_sums` holds [sum,
    count] of each metric since then. `evaluated_at` is the step of the last evaluation on the way,
    `evaluated_steps` what all of them took, `best` the lower end of the interval and the step of
    the best of them, `has_reached` whether the run has reached the return at which it stops.
    """

    steps: int = 0
    episodes: int = 0
    updates: int = 0
    seconds: float = 0.0
    recent: list[list[float]] = field(default_factory=list)
    faults: int = 0
    lost: int = 0
    row_at: int = 0
    row_sums: dict[str, list[float]] = field(default_factory=dict)
    evaluated_at: int = 0
    evaluated_steps: int = 0
    best: list[float] = field(default_factory=list)
    has_reached: bool = False

    def recent_means(self) -> tuple[float, float]:
        """Mean return and mean length of the recent episodes; NaN before any has ended."""
        count = sum(episodes for *_, episodes in self.recent)
        if not count:
            return math.nan, math.nan
        returns = sum(mean * episodes for mean, _, episodes in self.recent)
        lengths = sum(mean * episodes for _, mean, episodes in self.recent)
        return returns / count, lengths / count


class DamagedCheckpoint(Exception):
    """The file is truncated, altered, or of another learner; the message says which."""


def save_checkpoint(path: Path, learner: object, counters: Counters) -> None:
    """Write all at once: a reader finds either the whole file or none."""
    arrays = {name: np.asarray(_plain(leaf)) for name, leaf in named_leaves(learner)}
    arrays[_COUNTERS] = np.frombuffer(json.dumps(asdict(counters)).encode(), np.uint8)
    write_whole(path, lambda file: np.savez(file, allow_pickle=False, **arrays))


def load_checkpoint(path: Path, like: Tree) -> tuple[Tree, Counters]:
    """The learner, in the structure of `like`, and its counters.

    Nothing is read but what `like` has, in its size.

    **Raises:** `DamagedCheckpoint`.
    """
    expected = {name: _plain(leaf) for name, leaf in named_leaves(like)}
    size = sum(leaf.nbytes for leaf in expected.values())
    try:
        require_plain_file(path, 2 * size + MOST_BESIDE_ARRAYS)
        with zipfile.ZipFile(path) as archive:
            arrays = {name: _read_array(archive, name, leaf) for name, leaf in expected.items()}
            counters = _read_counters(archive)
    except _DAMAGES as error:
        raise DamagedCheckpoint(describe(error)) from error
    leaves = [_as_leaf(arrays[name], leaf) for name, leaf in named_leaves(like)]
    return jax.tree.unflatten(jax.tree.structure(like), leaves), counters


# What reading a damaged file may raise; the checksums are compared while the arrays are read.
_DAMAGES = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    ArithmeticError,
    MemoryError,
    RuntimeError,  # NotImplementedError, RecursionError, an encrypted archive
    SyntaxError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def _read_array(archive: zipfile.ZipFile, name: str, expected: AnyArray) -> np.ndarray:
    """One array, if it has the shape and the kind that are expected.

    **Raises:** `DamagedCheckpoint`, and whatever the readers of such files raise.
    """
    member = f"{name}.npy"
    if member not in archive.NameToInfo:
        raise DamagedCheckpoint(f"it lacks {name}")
    if archive.NameToInfo[member].compress_type != zipfile.ZIP_STORED:
        raise DamagedCheckpoint(f"{name} is compressed, which no checkpoint is")
    with archive.open(member) as file:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    if shape != expected.shape or dtype != expected.dtype:
        raise DamagedCheckpoint(
            f"{name} is {dtype}{shape}, expected {expected.dtype}{expected.shape}"
        )
    with archive.open(member) as file:  # read to its end, where the checksum is compared
        return np.lib.format.read_array(file, allow_pickle=False)


def _read_counters(archive: zipfile.ZipFile) -> Counters:
    """The counters of a checkpoint.

    **Raises:** `DamagedCheckpoint`, and whatever the readers of such files raise.
    """
    info = archive.NameToInfo[f"{_COUNTERS}.npy"]
    if info.compress_type != zipfile.ZIP_STORED or info.file_size > MOST_BESIDE_ARRAYS:
        raise DamagedCheckpoint("its counters are too large")
    with archive.open(info) as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
    fields = json.loads(array.tobytes())
    if not isinstance(fields, dict) or fields.keys() != asdict(Counters()).keys():
        raise DamagedCheckpoint("its counters have other names")
    names = ("steps", "episodes", "updates", "faults", "lost", "row_at")
    counts = [fields[name] for name in (*names, "evaluated_at", "evaluated_steps")]
    valid = all(is_whole(count) and 0 <= count < 2**63 for count in counts)
    valid &= fields["has_reached"] in (True, False)
    best = fields["best"]
    valid &= isinstance(best, list) and len(best) in (0, 2) and all(map(_is_finite, best))
    valid &= isinstance(fields["recent"], list) and all(map(_is_recent, fields["recent"]))
    valid &= isinstance(fields["row_sums"], dict) and all(map(_is_sum, fields["row_sums"].values()))
    if not valid or not _is_finite(fields["seconds"]):
        raise DamagedCheckpoint("its counters are no counts")
    return Counters(**{**fields, "seconds": float(fields["seconds"])})


def _is_finite(number: object) -> bool:
    return is_real(number) and abs(number) < math.inf


def _is_recent(row: object) -> bool:
    """Whether a row of `Counters.recent` is one."""
    return isinstance(row, list) and len(row) == 3 and all(map(_is_finite, row))


def _is_sum(row: object) -> bool:
    """Whether a value of `Counters.row_sums` is one."""
    return isinstance(row, list) and len(row) == 2 and all(map(is_real, row))


def _as_leaf(found: np.ndarray, like: PyTree) -> PyTree:
    """An array on the device; a random key where `like` is one."""
    put = jax.device_put(found)
    if _is_key(like):
        return jax.random.wrap_key_data(put, impl=jax.random.key_impl(like))
    return put


def _is_key(leaf: PyTree) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _plain(leaf: PyTree) -> PyTree:
    """The numbers of a random key, which environments keep in their state; anything else as it
    is.
    """
    if _is_key(leaf):
        return jax.random.key_data(leaf)
    return leaf


def named_leaves(tree: PyTree) -> list[tuple[str, PyTree]]:
    """The arrays of a tree under the names that they have in a checkpoint."""
    return [
        (jax.tree_util.keystr(path).lstrip("."), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]
