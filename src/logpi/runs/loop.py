"""The training loop: sample, update, record, until the budget of environment steps is spent."""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from logpi.core.errors import LogpiError
from logpi.core.foreign import exits_raised
from logpi.environments.spec import CompiledEnvironment, HostEnvironment
from logpi.methods.learner import Learner
from logpi.networks.policy import Policy
from logpi.runs.checkpoint import Counters
from logpi.runs.evaluation import Evaluation, FinalEvaluation, evaluate_at_end
from logpi.runs.folder import RunFolder
from logpi.runs.metrics import (
    CsvTracker,
    TensorBoardTracker,
    Tracker,
    count_update,
    make_row,
    steps_to_next_row,
)
from logpi.runs.report import Reporter
from logpi.runs.settings import Settings
from logpi.runs.signals import stop_signals
from logpi.sampling.choose import make_sampler
from logpi.sampling.seam import Faults, Interrupted, Sampler

CHECKPOINTS_PER_RUN = 10
SECONDS_PER_CHECKPOINT = 300.0
# A compiled environment learns inside the program for about so long before it reports.
SECONDS_PER_CALL = 0.5
REMEDY = "lower the learning rates"


@dataclass(frozen=True)
class Run:
    """A finished run: its policy, its folder, how far it went, and what the policy is worth.

    `evaluation` takes the most probable action at each step, `drawn_evaluation` draws it.
    """

    policy: Policy
    folder: Path
    steps: int
    seconds: float
    evaluation: Evaluation
    drawn_evaluation: Evaluation


def run(
    folder: RunFolder,
    settings: Settings,
    environment: HostEnvironment | CompiledEnvironment,
    start: Callable[[Sampler], tuple[Learner, Counters]],
    reporter: Reporter,
) -> Run:
    """Learn until the budget is spent, and evaluate the policy.

    `start` gives the learner to go on from, and how far it has come.

    **Raises:** `LogpiError` where the environment or the folder fails; `KeyboardInterrupt` after
    Ctrl-C. What was learned is saved.
    """
    spec = environment.spec
    copies = settings.algorithm.copies
    size = f"{copies} copies x {spec.max_episode_steps:,} steps, the time limit"
    with (
        folder.only_writer(),
        stop_signals() as interrupted,
        exits_raised(),
        _lack_of_memory_named(spec.name, size),
    ):
        if isinstance(environment, HostEnvironment):
            environment = replace(environment, step_limit=settings.step_limit)
        faults = Faults(settings.on_fault, reporter.warn)
        sampler = make_sampler(
            environment, copies, settings.seed, settings.where, interrupted, faults
        )
        try:
            learner, counters = start(sampler)
            reporter.start(settings, folder.path, counters)
            with _faults_told(reporter, folder):
                learner = _learn_and_track(folder, settings, sampler, learner, counters, reporter)
                reporter.evaluating()
                evaluation = evaluate_at_end(sampler, learner.policy, counters)
        finally:
            sampler.close()
        folder.save_evaluation(counters.steps, evaluation)
    reporter.finish(folder.path, counters, evaluation, spec.reward_threshold)
    return finished_run(folder, learner, counters, evaluation)


def finished_run(
    folder: RunFolder, learner: Learner, counters: Counters, evaluation: FinalEvaluation
) -> Run:
    """What a run gives when its budget is spent."""
    return Run(
        learner.policy.on_host(),
        folder.path,
        counters.steps,
        counters.seconds,
        evaluation.most_probable,
        evaluation.drawn,
    )


@contextmanager
def _lack_of_memory_named(name: str, size: str) -> Iterator[None]:
    """Says what was too large, where the machine has not enough memory for it."""
    try:
        yield
    except MemoryError as error:
        raise LogpiError(f"{name}: not enough memory for {size}: {error}") from None


@contextmanager
def _faults_told(reporter: Reporter, folder: RunFolder) -> Iterator[None]:
    """Whatever ends a run early: the reporter says where it can go on, the user gets one line."""
    try:
        yield
    except (Interrupted, KeyboardInterrupt, OSError, MemoryError, LogpiError) as error:
        reporter.stopped(folder.path, folder.saved_steps())
        if isinstance(error, Interrupted):
            raise KeyboardInterrupt from None
        if isinstance(error, OSError):
            reason = error.strerror or error
            raise LogpiError(f"cannot write the run folder {folder.path}: {reason}") from error
        raise


def _learn_and_track(
    folder: RunFolder,
    settings: Settings,
    sampler: Sampler,
    learner: Learner,
    counters: Counters,
    reporter: Reporter,
) -> Learner:
    """Learn, with the run's trackers open."""
    trackers: list[Tracker] = []
    try:
        trackers.append(CsvTracker(folder.path / "metrics.csv", counters.steps))
        trackers.append(TensorBoardTracker(folder.path, counters.steps))
        record = Record(settings, counters, trackers, reporter)
        return _learn(folder, settings, sampler, learner, record)
    finally:
        for tracker in trackers:
            with suppress(OSError):
                tracker.close()


class Record:
    """How far a run has come, and the rows of metrics that it writes on the way."""

    def __init__(
        self,
        settings: Settings,
        counters: Counters,
        trackers: list[Tracker],
        reporter: Reporter,
    ):
        self.counters = counters
        self.speed = 0.0
        """Environment steps a second in the last call of the training program."""
        self._settings = settings
        self._trackers = trackers
        self._reporter = reporter

    def add(self, updates: list[dict[str, float]], seconds: float) -> None:
        """Count the updates of one call of the training program."""
        before = self.counters.steps
        for update in updates:
            count_update(self.counters, update, seconds / len(updates))
            self._write_row_if_due()
        self.speed = (self.counters.steps - before) / seconds
        self._reporter.progress(self._settings, self.counters, updates[-1])

    def _write_row_if_due(self) -> None:
        steps = self.counters.steps
        last = self.counters.row_at
        is_due = steps - last >= steps_to_next_row(last, self._settings.steps)
        if is_due or steps >= self._settings.steps:
            row = make_row(self.counters)
            for tracker in list(self._trackers):
                self._write_row(tracker, steps, row)
            self.counters.row_at = steps
            self.counters.row_sums = {}

    def _write_row(self, tracker: Tracker, steps: int, row: dict[str, float | int]) -> None:
        """A tracker that fails is given up: what it shows is not worth the run."""
        try:
            tracker.write(steps, row)
        except Exception as error:
            self._trackers.remove(tracker)
            with suppress(OSError):
                tracker.close()
            name = type(tracker).__name__
            self._reporter.warn(f"{name} failed at step {steps:,} and is given up: {error}")


def _learn(
    folder: RunFolder, settings: Settings, sampler: Sampler, learner: Learner, record: Record
) -> Learner:
    """Update until the budget is spent. However it ends, the last whole state is saved."""
    every = settings.checkpoint_every or max(1, settings.steps // CHECKPOINTS_PER_RUN)
    advance = sampler.advance(settings.algorithm, learner, settings.steps)
    counters = record.counters
    saved = counters.steps
    saved_at = time.perf_counter()
    gc.freeze()  # each full collection would look through all objects of the libraries
    try:
        while counters.steps < settings.steps:
            started = time.perf_counter()
            limit = _steps_of_a_call(settings, counters, every, record.speed)
            updated, updates = advance(learner, limit)
            _require_finite(updates, counters.updates)
            learner = updated
            record.add(updates, time.perf_counter() - started)
            now = time.perf_counter()
            is_late = now - saved_at > SECONDS_PER_CHECKPOINT
            if is_late or counters.steps // every > saved // every:
                folder.save(learner, counters)
                saved = counters.steps
                saved_at = now
    finally:
        gc.unfreeze()
        if counters.steps > saved or not folder.checkpoints():
            folder.save(learner, counters)
    return learner


def _steps_of_a_call(settings: Settings, counters: Counters, every: int, speed: float) -> int:
    """Steps until the next checkpoint is due, and about `SECONDS_PER_CALL` of them at most."""
    next_checkpoint = (counters.steps // every + 1) * every
    until = min(settings.steps, next_checkpoint)
    at_once = max(1, int(speed * SECONDS_PER_CALL))
    return min(until - counters.steps, at_once)


def _require_finite(updates: list[dict[str, float]], done: int) -> None:
    for number, update in enumerate(updates, start=done + 1):
        errors = (update["gradient_norm"], update.get("value_loss", 0.0))
        if not np.isfinite(errors).all():
            raise LogpiError(f"update {number}: the gradient is not finite; {REMEDY}")
        if np.isnan(update["kl"]) or np.isnan(update["entropy"]):
            raise LogpiError(f"update {number}: the policy has become NaN; {REMEDY}")
