"""Train over many seeds, each as a whole process with a cold compilation cache.

python benchmarks/training.py CartPole-v1 --seeds 20
python benchmarks/training.py HalfCheetah-v5 --seeds 5 --algorithm ppo --whiten --steps 1e6

IQM is the mean of the middle half of the seeds, with a 95 % interval by bootstrap over the seeds
(Agarwal et al. 2021; with one environment there is one stratum).
"""

import argparse
import os
import statistics
import warnings
from importlib.metadata import version

import numpy as np
from process import train
from scipy.stats import bootstrap, trim_mean


def interquartile_mean(returns: list[float]) -> str:
    """IQM [low, high]."""

    def iqm(x, axis=-1):
        return trim_mean(x, 0.25, axis=axis)

    with warnings.catch_warnings(action="ignore"):  # seeds that are all alike have no interval
        interval = bootstrap(
            (returns,), iqm, method="percentile", rng=np.random.default_rng(0)
        ).confidence_interval
    return f"{iqm(returns):.1f} [{interval.low:.1f}, {interval.high:.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("environment")
    parser.add_argument("--seeds", type=int, default=10)
    arguments, options = parser.parse_known_args()
    versions = ", ".join(f"{name} {version(name)}" for name in ("logpi", "jax", "gymnasium"))
    print(f"{arguments.environment} {' '.join(options)}; {versions}; {os.cpu_count()} cores")
    rows = []
    for seed in range(arguments.seeds):
        rows.append(train(arguments.environment, seed, options))
        print(seed, {name: round(value, 1) for name, value in rows[-1].items()}, flush=True)
    for name in ("return", "steps", "seconds"):
        values = sorted(row[name] for row in rows)
        print(
            f"{name:8s} min {values[0]:.1f}  median {statistics.median(values):.1f}  max "
            f"{values[-1]:.1f}"
        )
    if len(rows) > 1:
        print(f"return   IQM {interquartile_mean([row['return'] for row in rows])}")


if __name__ == "__main__":
    main()
