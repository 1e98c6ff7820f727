"""`logpi train`, `resume` and `evaluate`."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from logpi.commands.agreeing import agrees
from logpi.commands.values import EnvironmentArguments, Steps, StepsOrNone
from logpi.core.checks import require
from logpi.core.errors import LogpiError
from logpi.core.say import say


@dataclass
class Training:
    """What the commands that train have in common."""

    environment: tyro.conf.Positional[str]
    algorithm: str = "reinforce"
    """Which weight multiplies ∇ log π, and which step is taken. Each algorithm has its own options:
    `logpi train --algorithm ppo --help`."""
    steps: Steps = 100_000
    """Environment steps; training stops after the batch that reaches them."""
    config: Path | None = None
    """A YAML or JSON file of settings by these names, or a run's config.json; options given here
    win."""
    preset: bool = False
    """Begin with settings that a search has found for this environment; options given here win."""
    max_episode_steps: int | None = None
    """Replace the environment's time limit; one that declares none is cut after 1,000 steps."""
    env_kwargs: EnvironmentArguments = field(default_factory=dict)
    """Arguments with which the environment is made, such as gravity=-5 enable_wind=true."""
    wrapper: str | None = None
    """FILE.py:NAME of a function from an environment to another, such as the class of a
    wrapper."""
    workers: int | None = None
    """Processes that play beside this one, or actors of Ray. By default as many as make training
    faster, which is measured."""
    share_size: int = 4
    """Copies of the environment that act together, the least that a process plays. Another size
    changes the last digits of a run."""
    ray_address: str | None = None
    """A cluster that runs, such as auto or ray://HOST:10001; by default Ray starts one here."""
    mixed_hardware: bool = False
    """Let machines of a cluster take part whose results differ from this one in the last digits.
    Such a run cannot be repeated."""
    devices: int | None = None
    """Devices of JAX among which the copies of a compiled environment are divided; by default
    one."""
    checkpoint_every: Steps | None = None
    """Environment steps between checkpoints; by default a tenth of the budget."""
    evaluate_every: StepsOrNone | None = None
    """Environment steps between evaluations, each of 10 fresh episodes; by default a twentieth of
    the budget, or more where they would take over 3 % of its steps. 0: never evaluate."""
    stop_at: float | Literal["solved"] | None = None
    """Stop when an evaluation on the way reaches this return, by the lower end of its 95 %
    interval; solved: the return at which the environment counts as solved."""
    step_limit: float | None = 300.0
    """Seconds that the environment may take for a reset or a step of all its copies; longer is a
    fault."""
    on_fault: Literal["stop", "replay", "skip"] = "stop"
    """When the environment fails: save and stop; let new copies play the batch again, the same; or
    throw the batch away, whole, and go on with the next."""

    def settings(self) -> Any:
        """The settings of a run, of those that are given here."""
        from logpi.runs.settings import Settings

        given = vars(self)
        names = [each.name for each in dataclasses.fields(Settings) if each.name in given]
        own = {name: given[name] for name in names}
        return Settings(**own | {"algorithm": given["options"]})  # see `training_command`


@dataclass
class Train(Training):
    """Train a policy, evaluate it, and leave everything in a run folder.

    ENVIRONMENT is a Gymnasium id (CartPole-v1), gymnax:ID, brax:ID or jumanji:ID (compiled),
    vector:ID or envpool:ID (stepped as one), finite:NAME or finite:FILE.json (a finite MDP), or
    FILE.py:NAME (your own: an Env class, a factory, a FiniteMDP or a CompiledEnvironment).
    """

    seed: int = 0
    """Seed of all random numbers."""
    out: Path | None = None
    """The run folder; by default runs/ENVIRONMENT_N."""
    rollouts: Literal["local", "ray"] = "local"
    """Where the environment is played: on this machine, or on a cluster of Ray."""
    resume_if_exists: bool = False
    """Go on with the run in --out if there is one with these settings; else start it there."""

    def run(self) -> None:
        from logpi.environments.registry import make_environment
        from logpi.runs.loop import Observers
        from logpi.runs.training import train_as

        settings = self.settings()
        made = make_environment(self.environment, settings.environment_options)
        exist = "resume" if self.resume_if_exists else "refuse"
        train_as(settings, made, self.out, exist, Observers(_reporter()))


@dataclass
class Resume:
    """Continue a run, to the same parameters as if it had never stopped.

    If --steps changes, annealed options are interpolated over the new budget, so the run is no
    longer the one that was interrupted.
    """

    run_folder: tyro.conf.Positional[Path]
    steps: Steps | None = None
    """New budget of environment steps, counted from the beginning of the run."""
    env: str | None = None
    """Where the run's environment is now, if its file has moved; it must be the same one."""
    trust: bool = False
    """Import the Python files that the run names, although somebody else has made it."""

    def run(self) -> None:
        from logpi.runs.training import resume

        trust = self.trust or agrees(self.run_folder)
        resume(
            self.run_folder,
            steps=self.steps,
            environment=self.env,
            trust=trust,
            reporter=_reporter(),
        )


@dataclass
class Evaluate:
    """Mean return of a trained policy over fresh episodes, with a 95 % interval."""

    run_folder: tyro.conf.Positional[Path]
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
    sampled: bool = False
    """Draw actions from the policy instead of taking the most probable one."""
    seed: int | None = None
    """Seed of the episodes; by default the run's, with which the summary was made."""
    json: bool = False
    """Print mean, interval, episodes, returns and lengths as JSON."""
    trust: bool = False
    """Import the Python files that the run names, although somebody else has made it."""

    def run(self) -> None:
        from logpi.runs.trained import evaluate

        result = evaluate(
            self.run_folder,
            self.env,
            self.episodes,
            which="best" if self.best else "latest",
            deterministic=not self.sampled,
            seed=self.seed,
            env_kwargs=self.env_kwargs,
            wrapper=self.wrapper,
            trust=self.trust or agrees(self.run_folder),
        )
        if self.json:
            print(json.dumps(result.to_json()))
        else:
            how = "drawn" if self.sampled else "most probable"
            print(
                f"return {result} over {self.episodes} fresh episodes, {how} actions (mean, 95 %"
                " interval)"
            )


def _reporter() -> Any:
    from logpi.runs.report import BarReporter, LineReporter

    if sys.stdout is not None and sys.stdout.isatty():
        return BarReporter()
    return LineReporter()


def training_command(kind: type[Training], arguments: Sequence[str]) -> tuple[type, Training]:
    """A command that trains, with the options of the algorithm that the arguments name, and its
    defaults.
    """
    from logpi.methods.registry import METHODS, name_of_method
    from logpi.runs.settings import Settings, read_settings

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--algorithm")
    parser.add_argument("--preset", action="store_true")
    given, others = parser.parse_known_args(arguments)
    file: Path | None = given.config
    if given.preset:
        require(file is None, "--config", "left out where --preset is given", file)
        file = _preset_file(others, given.algorithm or "reinforce")
    fields = {} if file is None else read_settings(file)
    names_environment = "environment" in fields
    if given.algorithm in METHODS:
        chosen = fields.setdefault("algorithm", given.algorithm)
        if chosen != given.algorithm:
            asked = f"--algorithm asks for {given.algorithm}"
            raise LogpiError(f"{file} is for {chosen}, {asked}")
    settings = Settings.from_json({"environment": "", **fields}, source=str(file))
    method = settings.algorithm
    name = name_of_method(method)
    own = {each.name for each in dataclasses.fields(kind)} - {"algorithm"}
    values = {
        each.name: getattr(settings, each.name)
        for each in dataclasses.fields(settings)
        if each.name in own
    }
    command = _with_options(kind, type(method), tuple(METHODS))
    start = command(**values, algorithm=name, options=method, config=given.config)
    if given.preset or not names_environment:
        start.environment = tyro.MISSING
    return command, start


def _preset_file(words: Sequence[str], algorithm: str) -> Path:
    """The settings of the preset for the environment among the words of a command.

    **Raises:** `LogpiError` where there is none.
    """
    from logpi.runs.presets import preset, preset_file, preset_names

    known = {environment for environment, _ in preset_names()}
    environment = next((word for word in words if word in known), "this environment")
    path = preset_file(environment, algorithm)
    say(f"preset   {preset(environment, algorithm)}")
    return path


def _with_options(kind: type[Training], method: type, algorithms: tuple[str, ...]) -> Any:
    """The class of a command with the options of one algorithm, and the algorithms as its
    choices.
    """
    unprefixed = tyro.conf.arg(name="", prefix_name=False)
    options: Any = ("options", Annotated[method, unprefixed], field(default_factory=method))
    choice: Any = ("algorithm", Literal[algorithms], "reinforce")
    made = dataclasses.make_dataclass(kind.__name__, [options, choice], bases=(kind,))
    made.__doc__ = kind.__doc__
    return made
