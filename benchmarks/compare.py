"""Side by side with other libraries: the same work in the same run, in turn (A B A B …), medians
and ratios.

python benchmarks/compare.py                      # every comparison, written to docs/benchmarks.md
python benchmarks/compare.py a2c-8x5 --repeat 3   # some of them, printed

The work is in comparisons.toml. Each peer has a virtual environment of its own, made once from
pinned versions and kept in the user's cache folder. A rate is that of the second half of a training
run, which leaves compilation out; seconds are those of the whole process. Those that compare
returns take a quarter of an hour a run, and are made by name only.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path
from process import measure, train

HERE = Path(__file__).parent
TORCH, GYMNASIUM = "torch==2.13.0", "gymnasium[mujoco]==1.3.0"
PEERS: Mapping[str, Sequence[str]] = {
    "stable-baselines3 2.9.2": (TORCH, GYMNASIUM, "stable-baselines3==2.9.2"),
    "sb3-contrib 2.9.2": (TORCH, GYMNASIUM, "sb3-contrib==2.9.2"),
    "stable-baselines3 2.9.2, Atari": (
        TORCH,
        GYMNASIUM,
        "stable-baselines3==2.9.2",
        "ale-py==0.12.1",
        "opencv-python-headless==5.0.0.93",
    ),
    "Gymnasium alone": (GYMNASIUM,),
    "sbx-rl 0.28.0": (
        TORCH,
        GYMNASIUM,
        "stable-baselines3==2.9.2",
        "sbx-rl==0.28.0",
        "jax==0.10.2",
    ),
    "tianshou 2.0.1": (TORCH, GYMNASIUM, "tianshou==2.0.1"),
    "CleanRL ppo.py": (TORCH, GYMNASIUM),
    "CleanRL ppo_atari_envpool.py": (TORCH, GYMNASIUM, "envpool==1.2.5"),
    "torchrl 0.14.1": (TORCH, GYMNASIUM, "torchrl==0.14.1"),
    "rejax 0.1.3": ("rejax==0.1.3", "gymnax==0.0.9", "jax==0.10.2"),
    "PureJaxRL 31756b1": (
        "gymnax==0.0.9",
        "jax==0.4.30",
        "distrax==0.1.5",
        "flax==0.10.2",
        "optax==0.2.5",
        "brax==0.12.5",
        "navix==0.7.4",
        "mujoco==3.2.7",
        "mujoco-mjx==3.2.7",
    ),
}
# Those that no index has: where they are cloned from; the name ends with the commit.
SOURCES: Mapping[str, str] = {"PureJaxRL 31756b1": "https://github.com/luchris429/purejaxrl"}
RUNNERS = {
    "stable-baselines3": "stable_baselines.py",
    "sb3-contrib": "stable_baselines.py",
    "sbx-rl": "stable_baselines.py",
    "Gymnasium": "environment_alone.py",
    "tianshou": "tianshou_on_policy.py",
    "CleanRL": "cleanrl_ppo.py",
    "torchrl": "torchrl_ppo.py",
    "rejax": "rejax_ppo.py",
    "PureJaxRL": "purejaxrl_ppo.py",
}
COMPARISONS: Mapping[str, dict[str, Any]] = tomllib.loads((HERE / "comparisons.toml").read_text())


def python_of(peer: str) -> str:
    """The interpreter of a peer's virtual environment, which is made where there is none."""
    folder = user_cache_path("logpi") / "benchmarks" / peer.replace(" ", "-")
    python = folder / "bin" / "python"
    is_made = folder / "made"
    if not is_made.exists():
        shutil.rmtree(folder, ignore_errors=True)  # one that was made in part
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PEERS[peer]], check=True)
        if peer in SOURCES:
            source = str(folder / "source")
            subprocess.run(["git", "clone", "--quiet", SOURCES[peer], source], check=True)
            commit = peer.split()[-1]
            subprocess.run(["git", "-C", source, "checkout", "--quiet", commit], check=True)
        is_made.touch()
    return str(python)


def run_theirs(peer: str, task: dict[str, Any]) -> dict[str, float]:
    """The same by the peer's runner."""
    runner = HERE / "peers" / RUNNERS[peer.split()[0]]
    command = [python_of(peer), "-W", "ignore", str(runner), json.dumps(task)]
    printed, seconds, megabytes = measure(command, os.environ | {"JAX_PLATFORMS": "cpu"})
    found = json.loads(printed.splitlines()[-1])
    return {"seconds": seconds, "megabytes": megabytes, **found}


def compare(name: str, repeat: int) -> str:
    """A row of the table: medians, least and most in brackets, their ratio, the median returns, and
    the most memory."""
    work = COMPARISONS[name]
    by, show = work["by"], "{:.1f}" if work["by"] == "seconds" else "{:,.0f}"
    python_of(work["peer"])
    runs: list[tuple[dict[str, float], dict[str, float]]] = []
    for seed in range(repeat):
        environment, *options = work["ours"].split()
        runs.append(
            (
                train(environment, seed, options),
                run_theirs(work["peer"], {**work["theirs"], "seed": seed}),
            )
        )
        print(name, seed, *runs[-1], file=sys.stderr, flush=True)
    times = [[run[side][by] for run in runs] for side in (0, 1)]
    ours, theirs = map(statistics.median, times)
    ratio = theirs / ours if by == "seconds" else ours / theirs
    cells = [f"{show} [{show}, {show}]".format(statistics.median(x), min(x), max(x)) for x in times]
    returns = [statistics.median([run[side]["return"] for run in runs]) for side in (0, 1)]
    learned = "" if min(returns) >= work["least"] else f"; not both reach {work['least']}"
    memory = [max(run[side]["megabytes"] for run in runs) for side in (0, 1)]
    unit = {"rate": "steps/s", "seconds": "s", "return": "return"}[by]
    reached = f"{returns[0]:.0f}, {returns[1]:.0f}{learned} | {memory[0]:.0f}, {memory[1]:.0f}"
    end = f"**{ratio:.1f}** | {work['goal']} | {reached}"
    return f"| {work['what']} | {work['peer']} | {unit} | {cells[0]} | {cells[1]} | {end} |"


def processor() -> str:
    """What the system calls it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def page(rows: Sequence[str], repeat: int) -> str:
    """docs/benchmarks.md."""
    versions = ", ".join(
        f"{name} {version(name)}" for name in ("logpi", "jax", "gymnasium", "numpy")
    )
    machine = f"{os.cpu_count()} cores of an {processor()}, Python {platform.python_version()}"
    return f"""# Benchmarks

{machine}; {versions}.

`python benchmarks/compare.py` runs both sides in turn, {repeat} times each, and prints medians with the least and the most in
brackets. Its settings are in [comparisons.toml](../benchmarks/comparisons.toml). Steps a second are those of the second half of
training. Where a row says nothing else, networks are 64×64 tanh in float32, policy and critic apart, and Torch has one
thread, with which it is faster on small networks. The returns are what the trained policies reach, and the memory in MB is
the most that a process held, ours first.

| work | against | unit | logpi | peer | ratio | goal | returns | memory |
|---|---|---|---|---|---|---|---|---|
{chr(10).join(rows)}

Known differences: the peers step environments in one process, logpi in one or two, whichever it measures to be faster,
and HalfCheetah A2C with EnvPool. CleanRL has no package: its runner here has its structure and settings. rejax and
PureJaxRL have gymnax 0.0.9, logpi gymnax 1.x; before its GRU, PureJaxRL has a layer of 128 numbers. MinAtar's
picture goes through convolutions by default. A stream of logpi holds one row more for each episode that ends, which counts as no
step. A ratio below its goal is a goal not reached: [why](design.md#what-is-short-of-its-goal-and-what-the-machine-would-allow);
`python benchmarks/floors.py` says what the parts of each row would allow.

What training costs as one thing grows, `python benchmarks/curves.py docs/cost_curves.png`:

![Steps a second, seconds and memory](cost_curves.png)
"""


def main() -> None:
    """Run the comparisons named, or all, and write the page in the latter case."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(COMPARISONS))
    parser.add_argument(
        "--repeat", type=int, default=5, help="runs of each side, with seeds 0, 1, …"
    )
    options = parser.parse_args()
    if unknown := set(options.names) - set(COMPARISONS):
        parser.error(
            f"there is no comparison {', '.join(unknown)}; there are {', '.join(COMPARISONS)}"
        )
    timed = [name for name, work in COMPARISONS.items() if work["by"] != "return"]
    rows = [compare(name, options.repeat) for name in options.names or timed]
    print("\n".join(rows))
    if not options.names:
        (HERE.parent / "docs" / "benchmarks.md").write_text(page(rows, options.repeat))


if __name__ == "__main__":
    main()
