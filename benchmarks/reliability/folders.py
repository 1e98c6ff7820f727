"""Damage run folders in ten thousand ways, and open each.

    python benchmarks/reliability/folders.py --folders 10000

Bits are flipped, files are cut, emptied, swapped, removed, or replaced by pipes, devices, links and
terabytes, fields of config.json have values of every wrong kind and size, checkpoints are compressed,
encrypted, pickled, or named wrongly. Right is: the policy of a checkpoint that the folder holds, or
one line of error, within two seconds and a gigabyte; no code that the folder names is run, and no
file outside of it is changed.
"""

import argparse
import collections
import contextlib
import hashlib
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

MOST_SECONDS = 2.0
MOST_MEGABYTES = 1000.0
# Seconds after which a folder is said to hang.
PATIENCE = 60.0
LONGEST_ERROR = 1000
RUNS = {
    "reinforce": "finite:short-corridor --steps 600 --hidden 4 --episodes 4",
    "ppo": "finite:short-corridor --steps 600 --algorithm ppo --environments 2 --rollout-steps 64"
    " --minibatches 2 --hidden 4",
    "gru": "finite:short-corridor --steps 600 --memory gru --memory-size 3 --hidden 4 --episodes 4",
    "mine": "mine.py:Mine --steps 600 --hidden 4 --episodes 4 --workers 0",
}
MINE = """
from gymnasium.envs.classic_control import CartPoleEnv as Mine
"""
EVIL = "open({trace!r}, 'w').close()\nfrom mine import Mine\ndef loss(log_prob): return log_prob.sum()\n"
VALUES: list[Any] = [
    *(None, True, -1, 0, 0.5, 10**12, 10**400, 2**63, 1e308, "", "1", [], {}, [None], "x" * 10**6),
    *(
        "evil.py:Mine",
        "evil:Mine",
        "finite:nothing",
        "vector:evil:Mine",
        [10**6, 10**6],
        ["a"] * 99,
    ),
    *([[1]] * 5, {"kind": "Box"}, {"kind": "Discrete", "n": 10**15, "start": 0}, [1] * 10**5),
    {"kind": "Box", "low": 0, "high": 1, "shape": [10**5, 10**5], "dtype": "float32"},
    {"kind": "Box", "low": "x", "high": {}, "shape": "ab", "dtype": "object"},
]
# How a folder is opened without being run.
LOADED = ("load", "best")
Change = Callable[[Path, np.random.Generator], None]


def some_file(folder: Path, random: np.random.Generator) -> Path:
    """A file of the run, most often its configuration or a checkpoint."""
    names = ["config.json", "config.json", "metrics.csv", "evaluation.json"]
    best = ["best.npz", "best.npz", "best.json"]
    files = [folder / name for name in names + best]
    files += sorted((folder / "checkpoints").iterdir())[-2:] * 2
    return files[random.integers(len(files))]


def newest(folder: Path) -> Path:
    """Its newest checkpoint."""
    return sorted((folder / "checkpoints").iterdir())[-1]


def an_archive(folder: Path, random: np.random.Generator) -> Path:
    """The newest checkpoint, or the best policy."""
    if random.uniform() < 0.5:
        return folder / "best.npz"
    return newest(folder)


def flip_bits(folder: Path, random: np.random.Generator) -> None:
    """Up to a hundred bits of one file."""
    path = some_file(folder, random)
    data = bytearray(path.read_bytes())
    for _ in range(int(random.integers(1, 100))):
        data[random.integers(len(data))] ^= 1 << int(random.integers(8))
    path.write_bytes(data)


def overwrite(folder: Path, random: np.random.Generator) -> None:
    """A part of one file, with zeros or noise."""
    path = some_file(folder, random)
    data = bytearray(path.read_bytes())
    begin = int(random.integers(len(data)))
    length = int(random.integers(1, 500))
    noise = random.bytes(length) if random.uniform() < 0.5 else bytes(length)
    data[begin : begin + length] = noise
    path.write_bytes(data)


def cut(folder: Path, random: np.random.Generator) -> None:
    """One file, anywhere, also to nothing."""
    path = some_file(folder, random)
    path.write_bytes(path.read_bytes()[: int(random.integers(path.stat().st_size))])


def remove(folder: Path, random: np.random.Generator) -> None:
    """One file, or all checkpoints."""
    if random.uniform() < 0.2:
        shutil.rmtree(folder / "checkpoints")
    else:
        some_file(folder, random).unlink()


def swap(folder: Path, random: np.random.Generator) -> None:
    """One file for a copy of another."""
    shutil.copy(some_file(folder, random), folder / "other")
    os.replace(folder / "other", some_file(folder, random))


def replace(folder: Path, random: np.random.Generator) -> None:
    """One file by something that is none."""
    path = some_file(folder, random)
    path.unlink()
    kinds: list[Callable[[], Any]] = [
        lambda: os.mkfifo(path),
        lambda: path.symlink_to("/dev/zero"),
        lambda: path.symlink_to(path),
        lambda: path.symlink_to(folder.parent / "victim"),
        path.mkdir,
        lambda: path.write_bytes(random.bytes(10_000)),
    ]
    kinds[random.integers(len(kinds))]()


def enlarge(folder: Path, random: np.random.Generator) -> None:
    """One file to a terabyte of zeros that takes no place."""
    os.truncate(some_file(folder, random), 10**12)


def change_a_field(folder: Path, random: np.random.Generator) -> None:
    """Any field of config.json, at any depth."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    place: Any = config
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = keys[random.integers(len(keys))]
        inside = place[key]
        if not isinstance(inside, dict | list) or not inside or random.uniform() < 0.2:
            break
        place = inside
    if random.uniform() < 0.1 and isinstance(place, dict):
        del place[key]
    else:
        place[key] = VALUES[random.integers(len(VALUES))]
    path.write_text(json.dumps(config))


def nest(folder: Path, random: np.random.Generator) -> None:
    """Brackets without end in a JSON file."""
    depth = int(10 ** random.uniform(2, 6))
    (folder / "config.json").write_text('{"format": 1, "settings": ' + "[" * depth)


def rewrite(folder: Path, random: np.random.Generator) -> None:
    """The members of a checkpoint or of the best policy, one of them wrongly."""
    path = an_archive(folder, random)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = list(members)[random.integers(len(members))]
    pickled = io.BytesIO()
    np.save(pickled, np.array([{"a": 1}], object), allow_pickle=True)
    other = io.BytesIO()
    np.save(other, np.zeros(int(random.integers(5)), random.choice(["f8", "i4", "U3"])))
    header = b"\x93NUMPY\x01\x00" + (60_000).to_bytes(2, "little") + b"{" * 60_000
    contents = [pickled.getvalue(), other.getvalue(), header, bytes(10**8), b"", b"[[[" * 10_000]
    kind = zipfile.ZIP_DEFLATED if random.uniform() < 0.5 else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind) as archive:
        for each, data in members.items():
            wrong = each == name
            archive.writestr(each, contents[random.integers(len(contents))] if wrong else data)


def encrypt(folder: Path, random: np.random.Generator) -> None:
    """A checkpoint or the best policy says that its members are encrypted."""
    path = an_archive(folder, random)
    data = bytearray(path.read_bytes())
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        begin = data.find(mark)
        while begin >= 0:
            data[begin + place] |= 1
            begin = data.find(mark, begin + 4)
    path.write_bytes(data)


def misname(folder: Path, random: np.random.Generator) -> None:
    """A checkpoint by a number that is none of its own."""
    names = ["step_1.npz", f"step_{'9' * 40}.npz", f"step_{'9' * 16}.npz", "step_00000000000x.npz"]
    os.replace(newest(folder), folder / "checkpoints" / names[random.integers(len(names))])


def link_outside(folder: Path, random: np.random.Generator) -> None:
    """The folder of checkpoints elsewhere, or files that a writer replaces."""
    if random.uniform() < 0.5:
        shutil.move(folder / "checkpoints", folder / "moved")
        (folder / "checkpoints").symlink_to(folder / "moved")
        return
    for name in (".lock", ".writer.json", "evaluation.json", "metrics.csv"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(folder.parent / "victim")


CHANGES: list[Change] = [
    *(flip_bits, overwrite, cut, remove, swap, replace, enlarge, nest, rewrite, encrypt, misname),
    *(change_a_field, change_a_field, change_a_field, link_outside),
]


def policies_of(folder: Path) -> set[str]:
    """What each of its checkpoints would give, and its best policy."""
    found = set()
    for path in (*(folder / "checkpoints").iterdir(), folder / "best.npz"):
        arrays = dict(np.load(path))
        found.add(_digest([arrays[name] for name in sorted(arrays) if name.startswith("policy.")]))
    return found


def _digest(arrays: list[np.ndarray]) -> str:
    joined = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
    return hashlib.sha256(joined).hexdigest()


def serve() -> None:
    """Open the folders that are named on standard input; answer with what came of each."""
    import jax

    import logpi
    from logpi.cli import main
    from logpi.core.errors import LogpiError

    for line in sys.stdin:
        task = json.loads(line)
        started = time.perf_counter()
        kind = "an error"
        text = ""
        error = io.StringIO()
        out = io.StringIO()
        try:
            with contextlib.redirect_stderr(error), contextlib.redirect_stdout(out):
                if task["how"] in LOADED:
                    which = "best" if task["how"] == "best" else "latest"
                    policy = logpi.load(task["folder"], which=which)
                    named = jax.tree_util.tree_leaves_with_path(policy)
                    leaves = {jax.tree_util.keystr(path): leaf for path, leaf in named}
                    kind = "a policy"
                    text = _digest([np.asarray(leaves[name]) for name in sorted(leaves)])
                else:
                    words = [task["how"], task["folder"]]
                    more = ["--episodes", "2"] if task["how"] == "evaluate" else ["--steps", "700"]
                    status = main([*words, *more])
                    kind = "it ran" if status == 0 else "an error"
                    text = error.getvalue().strip()
        except LogpiError as refused:
            text = str(refused)
        except BaseException as broken:
            kind = "a traceback"
            text = f"{type(broken).__name__}: {broken}"[:500]
        seconds = time.perf_counter() - started
        megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        answer = {"kind": kind, "text": text, "seconds": seconds, "megabytes": megabytes}
        print(json.dumps(answer), file=sys.__stdout__, flush=True)


class Opener:
    """A process that opens folders; it is replaced when it hangs or has grown."""

    def __init__(self, directory: Path):
        self._directory = directory
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve"],
            cwd=self._directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def open(self, folder: Path, how: str) -> dict[str, Any]:
        """What came of opening the folder."""
        import select

        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"folder": str(folder), "how": how}) + "\n")
        self._process.stdin.flush()
        readable, _, _ = select.select([self._process.stdout], [], [], PATIENCE)
        line = self._process.stdout.readline() if readable else ""
        if not line:
            self._process.kill()
            self._process.wait()
            self._start()
            return {"kind": "hangs" if not readable else "dies", "text": "", "seconds": PATIENCE}
        answer = json.loads(line)
        if answer["megabytes"] > MOST_MEGABYTES:
            self.close()
            self._start()
        return answer

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def verdict_of(answer: dict[str, Any], right: set[str], how: str) -> str:
    """What is wrong with an answer, or what it was."""
    kind = answer["kind"]
    if kind in ("a traceback", "hangs", "dies"):
        return f"WRONG: {kind}"
    if answer["seconds"] > MOST_SECONDS and how in LOADED:
        return "WRONG: slow"
    if answer["megabytes"] > MOST_MEGABYTES:
        return "WRONG: large"
    if kind == "a policy":
        return "a checkpoint's policy" if answer["text"] in right else "WRONG: another policy"
    if kind == "an error":
        lines = [line for line in answer["text"].splitlines() if "warning" not in line]
        if len(lines) != 1 or len(lines[0]) > LONGEST_ERROR:
            return "WRONG: not one line"
        return "one line of error"
    return kind


def main() -> None:
    """Make the runs, damage copies of them, open each, and count the verdicts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folders", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--numbers", type=int, nargs="*", help="these alone, again")
    parser.add_argument("--serve", action="store_true")
    arguments = parser.parse_args()
    if arguments.serve:
        serve()
        return
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        trace = directory / "trace"
        (directory / "mine.py").write_text(MINE)
        (directory / "evil.py").write_text(EVIL.format(trace=str(trace)))
        program = "import sys; from logpi.cli import main; sys.exit(main())"
        for run, options in RUNS.items():
            words = ["train", *options.split(), "--checkpoint-every", "150", "--out", run]
            words += ["--evaluate-every", "200"]
            command = [sys.executable, "-c", program, *words]
            subprocess.run(command, cwd=directory, check=True, stdout=subprocess.DEVNULL)
        right = {run: policies_of(directory / run) for run in RUNS}

        shares = [range(part, arguments.folders, 2) for part in range(2)]
        if arguments.numbers:
            shares = [arguments.numbers]

        def tried(numbers: Sequence[int]) -> collections.Counter[str]:
            return _tried(directory, right, arguments.seed, numbers)

        with ThreadPoolExecutor(2) as pool:
            counts = sum(pool.map(tried, shares), collections.Counter())
        print(f"{counts.total()} folders, seed {arguments.seed}")
        for verdict, count in sorted(counts.items()):
            print(f"{count:6d}  {verdict}")
        print(f"code of the folder was run: {trace.exists()}")


def _tried(
    directory: Path, right: dict[str, set[str]], seed: int, numbers: Sequence[int]
) -> collections.Counter[str]:
    """The verdicts on the folders of these numbers."""
    counts: collections.Counter[str] = collections.Counter()
    place = directory / f"part-{numbers[0]}"
    place.mkdir()
    victim = place / "victim"
    opener = Opener(directory)
    for number in numbers:
        random = np.random.default_rng([seed, number])
        run = list(RUNS)[random.integers(len(RUNS))]
        change = CHANGES[random.integers(len(CHANGES))]
        how = str(random.choice([*LOADED, "evaluate", "resume"], p=[0.66, 0.3, 0.02, 0.02]))
        folder = place / "run"
        shutil.copytree(directory / run, folder)
        victim.write_text("untouched")
        change(folder, random)
        answer = opener.open(folder, how)
        verdict = verdict_of(answer, right[run], how)
        if victim.read_text() != "untouched" or sorted(os.listdir(place)) != ["run", "victim"]:
            verdict = "WRONG: wrote outside"
        counts[verdict] += 1
        if "WRONG" in verdict:
            told = f"{answer['seconds']:.1f} s, {answer['text'][:300]!r}"
            print(f"{number}: {run}, {change.__name__}, {how}: {verdict}; {told}", flush=True)
        shutil.rmtree(folder)
    opener.close()
    return counts


if __name__ == "__main__":
    main()
