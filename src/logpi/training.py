"""The training program: sample, update, record, until the budget of environment steps is spent."""

import gc
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from logpi.algorithm import Algorithm, Reinforce
from logpi.checkpoint import Counters
from logpi.config import Settings, step_count
from logpi.envs import make_environment
from logpi.envs.base import CompiledEnvironment, EnvironmentSpec, HostEnvironment, space_from_json
from logpi.envs.registry import EnvironmentLike
from logpi.errors import LogpiError
from logpi.evaluation import Evaluation, evaluate_with
from logpi.folder import RunFolder
from logpi.learner import Learner, make_learner, started_from
from logpi.metrics import ROWS_PER_RUN, WINDOW, CsvTracker, TensorBoardTracker, Tracker, row
from logpi.own_estimator import require_usable
from logpi.policy import Policy
from logpi.report import Reporter, SilentReporter
from logpi.rollout import Interrupted, Sampler
from logpi.sampler import make_sampler

EVALUATION_EPISODES = 100
CHECKPOINTS_PER_RUN = 10
# A compiled environment learns inside the program for about so long before it reports.
SECONDS_PER_CALL = 0.5


@dataclass(frozen=True)
class Run:
    """A finished run: its policy, its folder, how far it went, and what the policy is worth."""

    policy: Policy
    folder: Path
    steps: int
    seconds: float
    evaluation: Evaluation


def train(
    environment: EnvironmentLike,
    algorithm: Algorithm | None = None,
    *,
    steps: int | float = 100_000,
    seed: int = 0,
    out: str | Path | None = None,
    max_episode_steps: int | None = None,
    workers: int | None = None,
    checkpoint_every: int | None = None,
    reporter: Reporter | None = None,
) -> Run:
    """Train a policy; stops after the batch with which `steps` environment steps are reached.

    `environment` is an id, `gymnax:ID`, `finite:NAME`, `FILE:NAME`, a factory of Gymnasium environments or a
    `FiniteMDP`; `out` the run folder, by default `runs/ENV_N`. Ctrl-C saves a checkpoint and raises
    `KeyboardInterrupt`.

    **Raises:** `LogpiError` for settings, environments and folders that cannot be used.
    """
    made = make_environment(environment, max_episode_steps)
    settings = Settings(
        environment=environment if isinstance(environment, str) else made.spec.name,
        algorithm=algorithm or Reinforce(),
        steps=step_count(steps),
        seed=seed,
        max_episode_steps=max_episode_steps,
        workers=workers,
        checkpoint_every=checkpoint_every,
    )
    require_usable(settings.algorithm)
    learner = make_learner(settings.algorithm, made.spec, seed)
    if settings.algorithm.reference is not None:
        learner = started_from(learner, load(settings.algorithm.reference), settings.algorithm.reference)
    folder = RunFolder.create(Path(out) if out is not None else None, settings, made.spec.to_json())
    return _run(folder, settings, made, learner, Counters(), reporter or SilentReporter())


def resume(
    folder: str | Path,
    *,
    steps: int | float | None = None,
    environment: EnvironmentLike | None = None,
    reporter: Reporter | None = None,
) -> Run:
    """Continue a run from its newest whole checkpoint, to the same parameters as if it had never stopped.

    A run that was stopped in its evaluation is evaluated. `steps` is the new budget, counted from the beginning of the
    run. `environment` is needed only where the run was started with an object that has no name.

    **Raises:** `LogpiError` where the folder is no run, its environment has changed, or its budget is spent.
    """
    reporter = reporter or SilentReporter()
    run = RunFolder.open(Path(folder))
    config, settings = run.config(), run.settings()
    if steps is not None:
        settings = replace(settings, steps=step_count(steps))
    made = make_environment(environment or settings.environment, settings.max_episode_steps)
    _require_unchanged(config.get("environment"), made.spec.to_json(), run.path)
    require_usable(settings.algorithm)
    learner = make_learner(settings.algorithm, made.spec, settings.seed)
    learner, counters, warnings = run.load(learner)
    for warning in warnings:
        reporter.warn(warning)
    if counters.steps >= settings.steps and (steps is not None or run.evaluated() == counters.steps):
        raise LogpiError(f"{run.path} has made {counters.steps} of {settings.steps} steps; give more with --steps")
    run.write_config(settings, made.spec.to_json())
    return _run(run, settings, made, learner, counters, reporter)


def load(folder: str | Path) -> Policy:
    """The policy of a run, from its newest whole checkpoint; the environment is not made.

    Says on standard error where a newer checkpoint is damaged.

    **Raises:** `LogpiError` where the folder is no run or has no whole checkpoint.
    """
    run = RunFolder.open(Path(folder))
    learner, _, warnings = run.load(_stored_learner(run))
    for warning in warnings:
        SilentReporter().warn(warning)
    return learner.policy.on_host()


def _stored_learner(run: RunFolder) -> Learner:
    """A learner of the run's structure, from what config.json says of the environment."""
    settings, stored = run.settings(), run.config().get("environment", {})
    try:
        observation, action = (space_from_json(stored[name]) for name in ("observation_space", "action_space"))
        limit, masked = stored["max_episode_steps"], stored["masked"]
        spec = EnvironmentSpec(settings.environment, observation, action, limit, None, {}, masked)
    except (KeyError, TypeError, ValueError) as error:
        raise LogpiError(f"{run.path / 'config.json'} does not describe its environment: {error!r}") from None
    return make_learner(settings.algorithm, spec, settings.seed)


def _require_unchanged(before: Any, now: Any, path: Path) -> None:
    if not isinstance(before, dict):
        raise LogpiError(f"{path / 'config.json'} does not describe its environment")
    for name in {**before, **now}:
        if before.get(name) != now.get(name):
            what = f"{name} was {before.get(name)}, is {now.get(name)}"
            raise LogpiError(f"the environment of {path} has changed: {what}; start a new run")


def _run(
    folder: RunFolder,
    settings: Settings,
    environment: HostEnvironment | CompiledEnvironment,
    learner: Learner,
    counters: Counters,
    reporter: Reporter,
) -> Run:
    reporter.start(settings, folder.path, counters)
    with _stop_signals() as interrupted:
        sampler = make_sampler(environment, settings.algorithm.copies, settings.seed, settings.workers, interrupted)
        try:
            learner = sampler.begin(settings.algorithm, learner)
            if counters.updates:
                learner, _, _ = folder.load(learner)
            csv, events = folder.path / "metrics.csv", folder.path
            trackers = [CsvTracker(csv, counters.steps), TensorBoardTracker(events, counters.steps)]
            try:
                learner = _learn(folder, settings, sampler, learner, counters, trackers, reporter)
            finally:
                for tracker in trackers:
                    tracker.close()
            reporter.evaluating(EVALUATION_EPISODES)
            evaluation = evaluate_with(sampler, learner.policy, EVALUATION_EPISODES)
        except Interrupted:
            reporter.stopped(folder.path, counters)
            raise KeyboardInterrupt from None
        except OSError as error:
            reporter.stopped(folder.path, counters)
            raise LogpiError(f"cannot write the run folder {folder.path}: {error.strerror or error}") from error
        except LogpiError:
            reporter.stopped(folder.path, counters)
            raise
        except MemoryError as error:
            reporter.stopped(folder.path, counters)
            spec = environment.spec
            size = f"{settings.algorithm.copies} copies x {spec.max_episode_steps:,} steps, the time limit"
            raise LogpiError(f"{spec.name}: not enough memory for {size}: {error}") from None
        finally:
            sampler.close()
    folder.write_json("evaluation.json", {"steps": counters.steps, **evaluation.to_json()})
    run = Run(learner.policy.on_host(), folder.path, counters.steps, counters.seconds, evaluation)
    reporter.finish(run.folder, counters, evaluation, environment.spec.reward_threshold)
    return run


def _learn(
    folder: RunFolder,
    settings: Settings,
    sampler: Sampler,
    learner: Learner,
    counters: Counters,
    trackers: Sequence[Tracker],
    reporter: Reporter,
) -> Learner:
    """Update until the budget is spent. However it ends, the last whole state is saved."""
    every = settings.checkpoint_every or max(1, settings.steps // CHECKPOINTS_PER_RUN)
    row_every = max(1, settings.steps // ROWS_PER_RUN)
    advance = sampler.advance(settings.algorithm, learner, settings.steps)
    saved, last_row, pending = counters.steps, counters.steps, []
    speed = 0.0
    gc.freeze()  # or each full collection looks through 400,000 objects of libraries, 7 % of the time of small updates
    try:
        while counters.steps < settings.steps:
            until = min(settings.steps, (counters.steps // every + 1) * every)
            started = time.perf_counter()
            limit = min(until - counters.steps, max(1, int(speed * SECONDS_PER_CALL)))
            new, updates = advance(learner, limit)
            _require_finite(updates, counters.updates)
            learner = new
            seconds, before = time.perf_counter() - started, counters.steps
            for update in updates:
                _count(counters, update, seconds / len(updates))
                pending.append(update)
                if counters.steps - last_row >= row_every or counters.steps >= settings.steps:
                    metrics = row(counters, pending)
                    for tracker in trackers:
                        tracker.write(counters.steps, metrics)
                    pending, last_row = [], counters.steps
            speed = (counters.steps - before) / seconds
            reporter.progress(settings, counters, updates[-1])
            if counters.steps // every > saved // every:
                folder.save(learner, counters)
                saved = counters.steps
    finally:
        gc.unfreeze()
        if counters.steps > saved or not folder.checkpoints():
            folder.save(learner, counters)
    return learner


def _count(counters: Counters, update: dict[str, float], seconds: float) -> None:
    counters.steps += int(update["steps"])
    counters.episodes += int(update["episodes"])
    counters.updates += 1
    counters.seconds += seconds
    if update["episodes"]:
        newest = [update[name] for name in ("episode_return", "episode_length", "episodes")]
        counters.recent = [*counters.recent, newest]
    while len(counters.recent) > 1 and sum(count for *_, count in counters.recent[1:]) >= WINDOW:
        del counters.recent[0]


def _require_finite(updates: list[dict[str, float]], done: int) -> None:
    for number, update in enumerate(updates, start=done + 1):
        if not np.isfinite(update["gradient_norm"]) or not np.isfinite(update.get("value_loss", 0.0)):
            raise LogpiError(f"update {number}: the gradient is not finite; lower the learning rates")
        if np.isnan(update["kl"]) or np.isnan(update["entropy"]):
            raise LogpiError(f"update {number}: the policy has become NaN; lower the learning rates")


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C or a termination signal has come. A second one stops at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop.is_set
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: Any) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, ask)
    try:
        yield stop.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
