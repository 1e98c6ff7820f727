"""`logpi record` and `imitate`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from logpi.commands.agreeing import agrees
from logpi.commands.training import Training
from logpi.commands.values import EnvironmentArguments


@dataclass
class Record:
    """Play episodes with a trained policy and keep every step of them, for `logpi imitate`.

    OUT is an .npz file with the arrays observations, actions, rewards, lengths and terminated.
    """

    run_folder: tyro.conf.Positional[Path]
    out: tyro.conf.Positional[Path]
    episodes: int = 100
    """Episodes to play."""
    best: bool = False
    """Play the policy that was best in the evaluations on the way, not the latest."""
    env: str | None = None
    """Another environment than the run's, with the same spaces."""
    env_kwargs: EnvironmentArguments | None = None
    """Arguments with which the environment is made; by default the run's."""
    wrapper: str | None = None
    """FILE.py:NAME of a wrapper of the environment; by default the run's."""
    most_probable: bool = False
    """Take the most probable action instead of drawing it from the policy. A policy that
    is fitted to such episodes does not learn how probable the others are."""
    seed: int | None = None
    """Seed of the episodes; by default the run's."""
    trust: bool = False
    """Import the Python files that the run names, although somebody else has made it."""

    def run(self) -> None:
        from logpi.runs.demonstrations import record

        made = record(
            self.run_folder,
            self.env,
            self.episodes,
            which="best" if self.best else "latest",
            deterministic=self.most_probable,
            seed=self.seed,
            env_kwargs=self.env_kwargs,
            wrapper=self.wrapper,
            trust=self.trust or agrees(self.run_folder),
        )
        made.save(self.out)
        mean = f"mean return {made.returns.mean():.1f}"
        print(f"{self.out}: {len(made.lengths):,} episodes, {len(made.rewards):,} steps, {mean}")


@dataclass
class Imitate(Training):
    """Fit a policy to recorded episodes, and leave it in a run folder that can be trained further.

    ENVIRONMENT and the options of the algorithm are those of `logpi train`: they give the form of
    the policy, and what `logpi resume` goes on with. The policy maximises the likelihood of the
    recorded actions; a tenth of the episodes is held out and judges it.
    """

    demonstrations: Annotated[str, tyro.conf.arg(name="from")] = tyro.MISSING
    """A file of `logpi record`, or minari:ID, a data set of Minari on this machine."""
    passes: int = 50
    """Passes over the episodes at most; it ends after five that bring no improvement."""
    seed: int = 0
    """Seed of all random numbers."""
    out: Path | None = None
    """The run folder; by default runs/ENVIRONMENT_N."""

    def run(self) -> None:
        from logpi.environments.registry import make_environment
        from logpi.runs.imitation import imitate_as

        settings = self.settings()
        made = make_environment(self.environment, settings.environment_options)
        print(imitate_as(settings, made, self.demonstrations, self.out, self.passes))
