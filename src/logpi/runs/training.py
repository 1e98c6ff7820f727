"""Training in Python: `train` starts a run, `resume` goes on with one."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

from logpi.core.checks import require, shown, step_count
from logpi.core.errors import LogpiError
from logpi.environments.options import EnvironmentOptions
from logpi.environments.registry import EnvironmentLike, make_environment
from logpi.environments.spec import (
    CompiledEnvironment,
    EnvironmentSpec,
    HostEnvironment,
)
from logpi.methods.learner import Learner, start_from
from logpi.methods.method import Method
from logpi.methods.reinforce import Reinforce
from logpi.runs.callbacks import Callback
from logpi.runs.checkpoint import Counters
from logpi.runs.evaluator import return_to_reach
from logpi.runs.folder import RunFolder
from logpi.runs.joined import folder_of_process
from logpi.runs.loop import Observers, Run, finished_run, run
from logpi.runs.metrics import Tracker
from logpi.runs.report import Reporter, SilentReporter
from logpi.runs.settings import Settings, StopAt
from logpi.runs.trained import load, opened, require_plausible, stored_learner, stored_origin
from logpi.sampling.seam import SHARE_SIZE, OnFault, Ray, Sampler

Exist = Literal["refuse", "resume"]
# Settings of a run that may be others when it is continued.
MAY_CHANGE = (
    "steps",
    "workers",
    "rollouts",
    "ray_address",
    "mixed_hardware",
    "devices",
    "checkpoint_every",
    "evaluate_every",
    "stop_at",
    "step_limit",
    "on_fault",
)


def train(
    environment: EnvironmentLike,
    algorithm: Method | None = None,
    *,
    steps: int | float = 100_000,
    seed: int = 0,
    out: str | Path | None = None,
    max_episode_steps: int | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    wrapper: str | None = None,
    workers: int | None = None,
    share_size: int = SHARE_SIZE,
    rollouts: Ray | None = None,
    mixed_hardware: bool = False,
    devices: int | None = None,
    checkpoint_every: int | None = None,
    evaluate_every: int | None = None,
    stop_at: StopAt | None = None,
    step_limit: float | None = 300.0,
    on_fault: OnFault = "stop",
    exist: Exist = "refuse",
    callbacks: Sequence[Callback] = (),
    trackers: Sequence[Tracker] = (),
    reporter: Reporter | None = None,
) -> Run:
    """Train a policy; stops after the batch with which `steps` environment steps are reached.

    `environment` is an id, `gymnax:ID`, `finite:NAME`, `FILE:NAME`, a factory of Gymnasium
    environments or a `FiniteMDP`; it is made with `env_kwargs`, and put in `wrapper`, the
    `FILE.py:NAME` of a function from an environment to another. `out` is the run folder, by default
    `runs/ENV_N`. Ctrl-C saves a checkpoint and raises `KeyboardInterrupt`.

    Copies of the environment act in shares of `share_size`. They are played in this process and in
    `workers` more, or with `rollouts=logpi.Ray()` in so many actors of a cluster; None: in as many
    as pay. The policy does not depend on that, unless `mixed_hardware` lets machines take part that
    compute with other last bits. Copies of a compiled environment are divided among so many
    `devices` of JAX.

    On the way the policy is evaluated, in copies of its own: after every `evaluate_every` steps, by
    default up to 20 times in 3 % of the run's steps; 0: never. The best policy is kept
    beside the latest. The run ends early when the return reaches `stop_at`, a number or "solved".
    The lower end of an interval of 95 % decides both. `callbacks` are called on the way, and rows
    of metrics go to `trackers` too.

    An environment has failed when it raises, breaks its declaration, or takes longer than
    `step_limit` seconds for a reset or a step of all copies; `on_fault` says whether the run then
    stops, has the batch played again by new copies, or throws it away. Where `out` holds a run
    already it is refused, or with `exist="resume"` continued, if it has these settings; one that is
    finished is given back as it is.

    **Raises:** `LogpiError` for settings, environments and folders that cannot be used.
    """
    options = EnvironmentOptions(max_episode_steps, env_kwargs or {}, wrapper)
    made = make_environment(environment, options)
    settings = Settings(
        environment=environment if isinstance(environment, str) else made.spec.name,
        algorithm=algorithm or Reinforce(),
        steps=step_count(steps),
        seed=seed,
        max_episode_steps=options.max_episode_steps,
        env_kwargs=options.kwargs,
        wrapper=options.wrapper,
        workers=workers,
        share_size=share_size,
        rollouts="local" if rollouts is None else "ray",
        ray_address=None if rollouts is None else rollouts.address,
        mixed_hardware=mixed_hardware,
        devices=devices,
        checkpoint_every=checkpoint_every,
        evaluate_every=evaluate_every,
        stop_at=stop_at,
        step_limit=step_limit,
        on_fault=on_fault,
    )
    observers = Observers(reporter or SilentReporter(), callbacks, trackers)
    return train_as(settings, made, None if out is None else Path(out), exist, observers)


def train_as(
    settings: Settings,
    made: HostEnvironment | CompiledEnvironment,
    out: Path | None,
    exist: Exist,
    observers: Observers,
) -> Run:
    """What `train` does, with settings that are together and an environment that is made.

    **Raises:** `LogpiError` for a folder that cannot be used, and settings that do not fit.
    """
    require(exist in get_args(Exist), "exist", " or ".join(get_args(Exist)), exist)
    return_to_reach(settings, made.spec)
    may_exist = exist == "resume"
    require(out is not None or not may_exist, "out", "the folder of the run that may exist", out)
    with folder_of_process(out) as path:
        if may_exist and path is not None and (path / "config.json").is_file():
            return _continue(path, settings, made, observers)
        return _begin(path, settings, made, observers)


def _begin(
    path: Path | None,
    settings: Settings,
    made: HostEnvironment | CompiledEnvironment,
    observers: Observers,
) -> Run:
    """A run from its first batch."""
    method = settings.algorithm
    learner = _first_learner(method, made.spec, settings.seed)
    method.require_usable(learner)
    folder = RunFolder.create(path, settings, made.spec.to_json())

    def start(sampler: Sampler) -> tuple[Learner, Counters]:
        return sampler.begin(method, learner), Counters()

    return run(folder, settings, made, start, observers)


def _continue(
    path: Path,
    settings: Settings,
    made: HostEnvironment | CompiledEnvironment,
    observers: Observers,
) -> Run:
    """The run in a folder to its end, if it is the one that is asked for.

    **Raises:** `LogpiError` that names the setting that is another.
    """
    found = RunFolder.open(path)
    stored = found.settings.to_json()
    asked = settings.located(Path.cwd()).to_json()
    for name, value in stored.items():
        if name not in MAY_CHANGE and value != asked.get(name):
            differs = f"{name} {shown(value)}, not {shown(asked.get(name))}"
            raise LogpiError(f"{path} holds a run with {differs}: give another --out")
    if found.foreign_code() is not None:
        found.trust()  # it is the code that was named just now
    saved = found.saved_steps()
    evaluation = None if saved is None else found.evaluation(saved)
    if evaluation is not None:
        learner, counters, _ = found.load(stored_learner(found))
        counters.has_reached &= settings.stop_at == found.settings.stop_at
        if counters.steps == saved and _has_ended(counters, settings):
            observers.reporter.finish(found.path, counters, evaluation, made.spec.reward_threshold)
            return finished_run(found, learner, counters, evaluation)
    return _go_on(found, settings, made, {}, observers)


def _first_learner(method: Method, spec: EnvironmentSpec, seed: int) -> Learner:
    """The learner before its first batch, which begins with the reference's policy if there is
    one.
    """
    learner = method.make_learner(spec, seed)
    if method.reference is None:
        return learner
    return start_from(learner, load(method.reference), method.reference)


def resume(
    folder: str | Path,
    *,
    steps: int | float | None = None,
    environment: EnvironmentLike | None = None,
    trust: bool = False,
    callbacks: Sequence[Callback] = (),
    trackers: Sequence[Tracker] = (),
    reporter: Reporter | None = None,
) -> Run:
    """Continue a run from its newest whole checkpoint, to the same parameters as if it had never
    stopped.

    A run that was stopped in its evaluation is evaluated. `steps` is the new budget, counted from
    the beginning of the run. `environment` is needed only where the run was started with an object
    that has no name. `trust` agrees to import the files that the run names, if somebody else has
    made it.

    **Raises:** `LogpiError` where the folder is no run, its environment has changed, or its budget
    is spent.
    """
    with folder_of_process(Path(folder)) as path:
        found = opened(path or folder, trust)
        settings = found.settings
        if steps is not None:
            settings = replace(settings, steps=step_count(steps))
        made = make_environment(environment or settings.environment, settings.environment_options)
        moved: dict[str, object] = {}
        if isinstance(environment, str):
            moved["environment"] = environment
        observers = Observers(reporter or SilentReporter(), callbacks, trackers)
        return _go_on(found, settings, made, moved, observers)


def _go_on(
    found: RunFolder,
    settings: Settings,
    made: HostEnvironment | CompiledEnvironment,
    moved: dict[str, object],
    observers: Observers,
) -> Run:
    """Continue a run with settings of which those in `MAY_CHANGE` may be others than before.

    `moved` names its environment anew.
    """
    method = settings.algorithm
    made = replace(made, spec=replace(made.spec, origin=stored_origin(found)))
    _require_unchanged(found.config.get("environment"), made.spec.to_json(), found.path)
    is_saved = bool(found.checkpoints())
    if is_saved:
        require_plausible(found, method, made.spec)
        first = method.make_learner(made.spec, settings.seed)
    else:  # it was stopped before its first checkpoint: it begins again
        first = _first_learner(method, made.spec, settings.seed)
    method.require_usable(first)

    def start(sampler: Sampler) -> tuple[Learner, Counters]:
        learner = sampler.begin(method, first)
        counters = Counters()
        if is_saved:
            learner, counters, warnings = found.load(learner)
            for warning in warnings:
                observers.reporter.warn(warning)
        counters.has_reached &= settings.stop_at == found.settings.stop_at
        is_other_budget = settings.steps != found.settings.steps
        is_done = is_other_budget or found.evaluation(counters.steps) is not None
        if _has_ended(counters, settings) and is_done:
            so_far = f"{counters.steps} of {settings.steps} steps"
            if counters.has_reached:
                so_far += f", and reached the return at which it stops, {settings.stop_at}"
            raise LogpiError(f"{found.path} is finished: {so_far}; to go on, give more --steps")
        changed = {name: getattr(settings, name) for name in MAY_CHANGE} | moved
        for difference in found.begin_session(counters.steps, changed):
            observers.reporter.warn(f"{difference}: the parameters may differ in their last digits")
        return learner, counters

    return run(found, settings, made, start, observers)


def _has_ended(counters: Counters, settings: Settings) -> bool:
    """Whether there is nothing left to learn."""
    return counters.steps >= settings.steps or counters.has_reached


def _require_unchanged(before: object, now: dict[str, object], path: Path) -> None:
    if not isinstance(before, dict):
        raise LogpiError(f"{path / 'config.json'} does not describe its environment")
    for name in {**before, **now}:
        was = before.get(name)
        is_now = now.get(name)
        if was != is_now:
            what = f"{name} was {shown(was)}, is {shown(is_now)}"
            raise LogpiError(f"the environment of {path} has changed: {what}; start a new run")
