"""The `logpi` command. Imports nothing heavy: `logpi --help` must answer at once."""

import argparse
import contextlib
import dataclasses
import io
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from logpi.core.checks import step_count
from logpi.core.errors import LogpiError
from logpi.core.say import say_aside, silence


def _parse_steps(arguments: list[str]) -> int:
    try:
        return step_count(float(arguments[0]))
    except (ValueError, LogpiError):
        raise ValueError(
            f"{arguments[0]!r} is not a whole number of steps from 1 to 1e15"
        ) from None


def _parse_steps_or_none(arguments: list[str]) -> int:
    return 0 if arguments[0] == "0" else _parse_steps(arguments)


def _reads_steps(parse: Callable[[list[str]], int]) -> PrimitiveConstructorSpec[int]:
    """How the command line reads a number of steps."""
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="STEPS",
        instance_from_str=parse,
        is_instance=lambda value: isinstance(value, int),
        str_from_instance=lambda value: [f"{value:_}"],
    )


def _parse_arguments(words: list[str]) -> dict[str, Any]:
    from logpi.runs.settings import parse_value

    pairs = [word.partition("=") for word in words]
    if not all(name and equals for name, equals, _ in pairs):
        raise ValueError(f"must be such as gravity=-5, got {' '.join(words)!r}")
    return {name: parse_value(value) for name, _, value in pairs}


# How the command line reads the arguments of an environment.
EnvironmentArguments = Annotated[
    Mapping[str, Any],
    PrimitiveConstructorSpec(
        nargs="*",
        metavar="NAME=VALUE",
        instance_from_str=_parse_arguments,
        is_instance=lambda value: isinstance(value, Mapping),
        str_from_instance=lambda value: [f"{name}={json.dumps(x)}" for name, x in value.items()],
    ),
]
Steps = Annotated[int, _reads_steps(_parse_steps)]
StepsOrNone = Annotated[int, _reads_steps(_parse_steps_or_none)]


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
    """Copies of the environment that act together. No process plays less; the last bits of a run
    depend on it."""
    ray_address: str | None = None
    """A cluster that runs, such as auto or ray://HOST:10001; by default Ray starts one here."""
    mixed_hardware: bool = False
    """Let machines of a cluster take part that compute with other last bits than this one. Such a
    run cannot be repeated."""
    devices: int | None = None
    """Devices of JAX among which the copies of a compiled environment are divided; by default
    one."""
    checkpoint_every: Steps | None = None
    """Environment steps between checkpoints; by default a tenth of the budget."""
    evaluate_every: StepsOrNone | None = None
    """Environment steps between evaluations, each of 10 fresh episodes; by default a twentieth of
    the budget, as far as they take a twentieth of the time. 0: none."""
    stop_at: float | Literal["solved"] | None = None
    """Stop when an evaluation on the way reaches this return, by the lower end of its 95 %
    interval; solved: the return that the environment calls so."""
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
        return Settings(**own | {"algorithm": given["options"]})  # see `_training_command`


@dataclass
class Train(Training):
    """Train a policy, evaluate it, and leave everything in a run folder.

    ENVIRONMENT is a Gymnasium id (CartPole-v1), gymnax:ID, brax:ID or jumanji:ID (compiled),
    vector:ID or envpool:ID (stepped as one), finite:NAME or finite:FILE.json (a finite MDP), or
    FILE.py:NAME (your own: an Env class, a factory, a FiniteMDP or a CompiledEnvironment).
    """

    seed: int = 0
    """Everything random follows from it."""
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
class Experiment(Training):
    """What `sweep` and `tune` have in common."""

    processes: int | None = None
    """Runs side by side on this machine; by default one a processor."""
    on: Literal["local", "ray"] = "local"
    """Where the runs are made: on this machine, or on a cluster of Ray that sees the same files."""

    def makers(self) -> Any:
        """What makes the runs."""
        from logpi.experiments.making import Makers
        from logpi.sampling.seam import Ray

        if self.workers is None:
            self.workers = 0  # the other processors have runs of their own
        if self.on == "ray":
            return Makers(self.processes, Ray(self.ray_address))
        return Makers(self.processes, None)


@dataclass
class Sweep(Experiment):
    """Train with many seeds and settings, a run folder each, side by side on all processors.

    ENVIRONMENT and the options of the algorithm are those of `logpi train`. A sweep that was
    stopped goes on when the same command is given again, with its --out. Exit status: 0, 2 where a
    run has failed.
    """

    seeds: str = "0..9"
    """Seeds: 0..9, or 0,1,5."""
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """NAME=VALUE,VALUE: train with each of these values of a setting; may be given several
    times, and every combination is then trained."""
    out: Path | None = None
    """The folder of the run folders; by default sweeps/ENVIRONMENT_N."""

    def run(self) -> int:
        from logpi.experiments.sweep import LineSweepReporter, parse_seeds, parse_values, sweep_as

        makers = self.makers()
        swept = sweep_as(
            self.settings(),
            self.environment,
            parse_seeds(self.seeds),
            parse_values(self.set),
            self.out,
            makers,
            LineSweepReporter(),
        )
        failed = [run for run in swept.runs if run.failure is not None]
        return 2 if failed else 0


@dataclass
class Tune(Experiment):
    """Search for better settings, and run the best again on fresh seeds beside the defaults.

    ENVIRONMENT and the options of the algorithm are those of `logpi train`. A trial has several
    seeds and is worth the lower end of the interval of their mean. A search that was stopped goes
    on when the same command is given again, with its --out.
    """

    trials: int = 50
    """Settings that are tried."""
    space: Path | None = None
    """A YAML file of settings, such as learning_rate: {low: 1e-4, high: 1e-2} and epochs: [4, 10];
    by default what the algorithm names."""
    confirm: int = 10
    """Fresh seeds on which the best three and the defaults are run in the end."""
    search_seed: int = 0
    """What is proposed follows from it."""
    out: Path | None = None
    """The folder of the search; by default tunings/ENVIRONMENT_N."""

    def run(self) -> None:
        from logpi.experiments.tuning import LineTuningReporter, read_space, tune_as

        makers = self.makers()
        space = None
        if self.space is not None:
            space = read_space(self.space)
        found = tune_as(
            self.settings(),
            self.environment,
            space,
            self.trials,
            self.confirm,
            self.search_seed,
            self.out,
            makers,
            LineTuningReporter(),
        )
        print(found)


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

        trust = self.trust or _agrees(self.run_folder)
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
            trust=self.trust or _agrees(self.run_folder),
        )
        if self.json:
            print(json.dumps(result.to_json()))
        else:
            how = "drawn" if self.sampled else "most probable"
            print(
                f"return {result} over {self.episodes} fresh episodes, {how} actions (mean, 95 %"
                " interval)"
            )


@dataclass
class Plot:
    """Learning curves as a PNG: of runs, or the mean over the seeds of a sweep, with its
    interval.
    """

    run_folders: tyro.conf.Positional[tuple[Path, ...]]
    out: Path | None = None
    """The picture; by default in the run folder, or learning_curves.png here for several."""

    def run(self) -> None:
        from logpi.experiments.plotting import plot

        print(plot(self.run_folders, self.out))


@dataclass
class Report:
    """Runs as a page of HTML in one file: curves, evaluations, what was measured on the way,
    settings, and an episode as the environment draws it.
    """

    run_folders: tyro.conf.Positional[tuple[Path, ...]]
    out: Path | None = None
    """The page; by default report.html in the run folder, or here for several."""

    def run(self) -> None:
        from logpi.artifacts.run_page import report

        print(report(self.run_folders, self.out))


@dataclass
class Video:
    """Film a trained policy, as an .mp4 or a .gif; prints the path."""

    run_folder: tyro.conf.Positional[Path]
    out: Path | None = None
    """The video, NAME.mp4 or NAME.gif; by default video.mp4 in the run folder."""
    env: str | None = None
    """Another environment than the run's, with the same spaces."""
    episodes: int = 1
    """Episodes to film; 2,000 frames at most."""
    best: bool = False
    """Film the policy that was best in the evaluations on the way, not the latest."""
    sampled: bool = False
    """Draw actions from the policy instead of taking the most probable one."""
    seed: int | None = None
    """Seed of the episodes; by default the run's."""
    trust: bool = False
    """Import the Python files that the run names, although somebody else has made it."""

    def run(self) -> None:
        from logpi.artifacts.filming import record_video

        path = record_video(
            self.run_folder,
            self.out,
            environment=self.env,
            episodes=self.episodes,
            which="best" if self.best else "latest",
            deterministic=not self.sampled,
            seed=self.seed,
            trust=self.trust or _agrees(self.run_folder),
        )
        print(path)


@dataclass
class Export:
    """Write a trained policy for other programs: as NAME.onnx or NAME.safetensors.

    The ONNX model takes observations and gives the environment's actions, the most probable ones;
    it is compared with the policy on 1,000 observations.
    """

    run_folder: tyro.conf.Positional[Path]
    out: tyro.conf.Positional[Path]
    best: bool = False
    """Export the policy that was best in the evaluations on the way, not the latest."""
    trust: bool = False
    """Import the Python files that the run names, although somebody else has made it."""

    def run(self) -> None:
        from logpi.artifacts.exporting import export

        made = export(
            self.run_folder,
            self.out,
            which="best" if self.best else "latest",
            trust=self.trust or _agrees(self.run_folder),
        )
        if made.difference is None:
            print(made.path)
        else:
            print(f"{made.path}: actions differ from the policy's by {made.difference:.1e} at most")


@dataclass
class Compare:
    """Which of several methods is better, and whether that is more than chance.

    Each of GROUPS is a folder with runs of several seeds, or a pattern such as 'runs/Cart*'; the
    folder of a sweep alone gives a group for each of its settings. Every group is compared with the
    first.
    """

    groups: tyro.conf.Positional[tuple[str, ...]]
    json: bool = False
    """Print scores, estimates, profiles and differences as JSON."""

    def run(self) -> None:
        from logpi.experiments.comparison import compare

        found = compare(*self.groups)
        print(json.dumps(found.to_json()) if self.json else found)


@dataclass
class Runs:
    """The runs in a folder: how far they are, what they are worth, and who writes them."""

    folder: tyro.conf.Positional[Path] = Path("runs")
    json: bool = False
    """Print them as JSON."""

    def run(self) -> None:
        from logpi.experiments.listing import as_table, list_runs

        states = list_runs(self.folder)
        if self.json:
            print(json.dumps([state.to_json() for state in states]))
        else:
            print(as_table(states))


@dataclass
class Derive:
    """The derivation, line by line, with both sides of every equation computed on a finite MDP."""

    mdp: str | None = None
    """A JSON file that describes a finite MDP, or the name of one; by default stay-or-leave."""
    random: int | None = None
    """Draw a small MDP from this seed instead, and the policy too; otherwise the policy is drawn
    from seed 0."""
    json: bool = False
    """Print tag, equation, both sides and their difference as JSON."""
    report: Path | None = None
    """Write a page of HTML: every line typeset, a trajectory by hand, sampled gradients."""

    def run(self) -> None:
        import numpy as np

        from logpi.theory.derivation.sides import derive
        from logpi.theory.derivation.text import as_text
        from logpi.theory.processes import load_mdp, random_mdp

        if self.random is not None and self.mdp is not None:
            raise LogpiError("--mdp and --random exclude each other")
        if self.random is not None and self.random < 0:
            raise LogpiError(f"random must be a whole number >= 0, got {self.random}")
        generator = np.random.default_rng(self.random or 0)
        if self.random is None:
            mdp = load_mdp(self.mdp or "stay-or-leave")
        else:
            mdp = random_mdp(generator)
        derivation = derive(mdp, generator.normal(size=(mdp.observations, mdp.actions)))
        print(json.dumps(derivation.to_json()) if self.json else as_text(derivation))
        if self.report is not None:
            from logpi.artifacts.derivation_page import write_derivation

            write_derivation(derivation, self.report)


@dataclass
class Check:
    """The exact expectation and variance of an estimator, against the exact policy gradient.

    ESTIMATOR is FILE.py:NAME, a function whose parameter names select what it gets and which
    returns the loss that its author would minimise (PyTorch, JAX or NumPy), or an array of weights
    of ∇ log π shaped as log_prob. Exit status: 0 for exact, 1 for any other verdict, 2 for what
    cannot be checked.
    """

    estimator: tyro.conf.Positional[str]
    layout: Literal["batch", "episode", "rollout"] = "batch"
    """Arrays [episodes, time] with a mask; 1-D arrays, one call per episode; [time, env] streams
    with auto-reset."""
    target: str = "discounted"
    """The objective whose gradient is expected: discounted, undiscounted, conventional (no γ^t),
    continuing (beyond the time limit), conventional-continuing, policy, reverse-kl, forward-kl,
    reverse-kl-per-step, forward-kl-per-step, entropy, entropy-objective, entropy-regularised,
    entropy-bonus."""
    discount: float = 0.9
    """γ of the decision processes, and `discount` of the estimator."""
    maximize: bool = False
    """The function returns an objective to maximise, not a loss."""
    sampler: str | None = None
    """FILE.py:FUNCTION from logits to the probabilities with which actions are really drawn:
    ε-greedy, masks, temperature, clipping."""
    exact_critic: bool = False
    """Give the exact V as `value`, instead of numbers that are wrong on purpose."""
    entropy_coefficient: float = 0.01
    """Weight of the entropy in the targets entropy-regularised and entropy-bonus."""
    framework: Literal["numpy", "torch", "jax"] | None = None
    """By default found out from the code."""
    json: bool = False
    """Print the report as JSON."""
    plot: Path | None = None
    """Draw the credit matrix beside the right one into this PNG."""
    report: Path | None = None
    """Write a page of HTML: verdict, causes, credit matrix, bias and variance."""

    def run(self) -> int:
        from logpi.checking.checker import check
        from logpi.checking.picture import plot_credit
        from logpi.core.user_files import load_function

        if self.json:
            elsewhere = contextlib.redirect_stdout(sys.stderr)
        else:
            elsewhere = contextlib.nullcontext()
        with elsewhere:  # what the user's own code prints is no JSON
            report = check(
                load_function(self.estimator),
                layout=self.layout,
                target=self.target,
                discount=self.discount,
                maximize=self.maximize,
                sampler=None if self.sampler is None else load_function(self.sampler),
                exact_critic=self.exact_critic,
                entropy_coefficient=self.entropy_coefficient,
                framework=self.framework,
            )
        print(json.dumps(report.to_json()) if self.json else report)
        if self.plot is not None:
            plot_credit(report, self.plot)
        if self.report is not None:
            from logpi.artifacts.check_page import write_check

            write_check(report, self.estimator, self.report)
        return int(report.verdict != "exact")


@dataclass
class Doctor:
    """Take random actions in an environment, and compare what it returns with what it declares.

    Exit status: 0, 1 where something is wrong, 2 for an environment that cannot be made or fails.
    """

    environment: tyro.conf.Positional[str]
    steps: int = 2000
    """Random actions to take."""
    max_episode_steps: int | None = None
    """Replace the environment's time limit."""
    env_kwargs: EnvironmentArguments = field(default_factory=dict)
    """Arguments with which the environment is made."""
    wrapper: str | None = None
    """FILE.py:NAME of a wrapper of the environment."""
    json: bool = False
    """Print the findings as JSON."""

    def run(self) -> int:
        from logpi.environments.doctor import examine, to_json
        from logpi.environments.options import EnvironmentOptions

        options = EnvironmentOptions(self.max_episode_steps, self.env_kwargs, self.wrapper)
        findings = examine(self.environment, self.steps, options)
        print(json.dumps(to_json(findings)) if self.json else "\n".join(map(str, findings)))
        return int(any(finding.status == "wrong" for finding in findings))


def _agrees(run_folder: Path) -> bool:
    """Ask in a terminal whether to import what a stranger's run names."""
    from logpi.runs.folder import RunFolder

    found = RunFolder.open(run_folder).foreign_code()
    if found is None or not sys.stdin or not sys.stdin.isatty():
        return False
    print(f"{found}.")
    return input("Import it? [y/N] ").strip().lower() in ("y", "yes")


def _reporter() -> Any:
    from logpi.runs.report import BarReporter, LineReporter

    if sys.stdout is not None and sys.stdout.isatty():
        return BarReporter()
    return LineReporter()


def _training_command(kind: type[Training], arguments: Sequence[str]) -> tuple[type, Training]:
    """A command that trains, with the options of the algorithm that the arguments name, and its
    defaults.
    """
    from logpi.methods.registry import METHODS, name_of_method
    from logpi.runs.settings import Settings, read_settings

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--algorithm")
    given, _ = parser.parse_known_args(arguments)
    file: Path | None = given.config
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
    start = command(**values, algorithm=name, options=method, config=file)
    if not names_environment:
        start.environment = tyro.MISSING
    return command, start


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


def _option_types() -> tyro.constructors.ConstructorRegistry:
    """How the command line reads an option that may change over the budget: as a number."""
    from logpi.core.arrays import Number

    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def read_number(
        info: tyro.constructors.PrimitiveTypeInfo,
    ) -> PrimitiveConstructorSpec[Any] | None:
        if info.type != Number:
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="FLOAT",
            instance_from_str=lambda arguments: float(arguments[0]),
            is_instance=lambda value: isinstance(value, int | float),
            str_from_instance=lambda value: [str(value)],
        )

    return registry


COMMANDS: dict[str, Any] = {
    "train": Train,
    "sweep": Sweep,
    "tune": Tune,
    "resume": Resume,
    "evaluate": Evaluate,
    "plot": Plot,
    "report": Report,
    "video": Video,
    "export": Export,
    "compare": Compare,
    "runs": Runs,
    "derive": Derive,
    "check": Check,
    "doctor": Doctor,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; exit status 0, 1 for a check that is not exact, 2 for unusable input, 130
    after Ctrl-C.
    """
    command = list(sys.argv[1:] if arguments is None else arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without π or ∇
    try:
        if command[:1] in (["train"], ["sweep"], ["tune"]):
            kind, start = _training_command(COMMANDS[command[0]], command[1:])
            chosen: Any = tyro.cli(
                kind,
                prog=f"logpi {command[0]}",
                args=command[1:],
                default=start,
                registry=_option_types(),
            )
        else:
            description = "Policy gradients done exactly and fast."
            chosen = tyro.extras.subcommand_cli_from_dict(
                COMMANDS, prog="logpi", description=description, args=command
            )
        status = chosen.run() or 0
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except LogpiError as error:
        say_aside(f"logpi: error: {error}")
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as in `logpi derive | head`
        silence(sys.stdout)
        return 141
    except OSError as error:  # all files are read and written with words of their own
        say_aside(f"logpi: error: the output cannot be written: {error.strerror}")
        silence(sys.stdout)
        return 2


# Seconds that threads of an environment have to end when the command has.
GRACE = 5.0


def program() -> NoReturn:
    """The program `logpi`: `main`, after which threads that do not end are left."""
    status = main()
    threading.Thread(target=_leave, args=(status,), daemon=True).start()
    sys.exit(status)


def _leave(status: int) -> None:
    """End the program, which waits for threads that are no daemons."""
    time.sleep(GRACE)
    left = [thread.name for thread in threading.enumerate() if not thread.daemon]
    left.remove(threading.main_thread().name)
    say_aside(f"logpi: warning: left running: {', '.join(left)}")
    os._exit(status)
