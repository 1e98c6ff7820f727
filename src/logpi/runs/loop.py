"""The training loop: sample, update, record, until the budget of environment steps is spent."""

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from logpi.core.errors import LogpiError
from logpi.core.foreign import exits_raised
from logpi.environments.spec import CompiledEnvironment, HostEnvironment
from logpi.methods.learner import Learner
from logpi.networks.policy import Policy
from logpi.runs.callbacks import Callback, Callbacks, Progress
from logpi.runs.card import model_card
from logpi.runs.checkpoint import Counters
from logpi.runs.evaluation import Evaluation, FinalEvaluation, evaluate_at_end
from logpi.runs.evaluator import Evaluator
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


class Observers(NamedTuple):
    """Who looks at a run: a reporter, the user's callbacks, and trackers beside those of the
    folder.
    """

    reporter: Reporter
    callbacks: Sequence[Callback] = ()
    trackers: Sequence[Tracker] = ()


def run(
    folder: RunFolder,
    settings: Settings,
    environment: HostEnvironment | CompiledEnvironment,
    start: Callable[[Sampler], tuple[Learner, Counters]],
    observers: Observers,
) -> Run:
    """Learn until the budget is spent, and evaluate the policy.

    `start` gives the learner to go on from, and how far it has come.

    **Raises:** `LogpiError` where the environment or the folder fails; `KeyboardInterrupt` after
    Ctrl-C. What was learned is saved.
    """
    spec = environment.spec
    reporter = observers.reporter
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
            evaluator = Evaluator(settings, spec, sampler)
            progress = Progress(settings, folder.path, learner, counters)
            callbacks = Callbacks(observers.callbacks, progress)
            reporter.start(settings, folder.path, counters)
            with _faults_told(reporter, folder):
                with _open_trackers(folder, settings, counters, observers.trackers) as trackers:
                    record = Record(settings, counters, trackers, reporter)
                    loop = TrainingLoop(folder, settings, evaluator, record, callbacks)
                    learner = loop.learn(sampler, learner)
                reporter.evaluating()
                evaluation = evaluate_at_end(sampler, learner.policy, counters)
        finally:
            sampler.close()
        folder.save_evaluation(counters.steps, evaluation, spec.reward_threshold)
        folder.write_text("README.md", model_card(settings, counters.steps, evaluation))
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


@contextmanager
def _open_trackers(
    folder: RunFolder, settings: Settings, counters: Counters, others: Sequence[Tracker]
) -> Iterator[list[Tracker]]:
    """The trackers of the folder and others, which are closed in the end."""
    trackers: list[Tracker] = [*others]
    try:
        trackers.append(CsvTracker(folder.path / "metrics.csv", counters.steps))
        trackers.append(TensorBoardTracker(folder.path, counters.steps, settings.to_json()))
        yield trackers
    finally:
        for tracker in trackers:
            with suppress(Exception):
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
        self._logged: dict[str, float] = {}

    def add(
        self,
        updates: list[dict[str, float]],
        seconds: float,
        evaluation: Evaluation | None,
        logged: Mapping[str, float],
    ) -> None:
        """Count the updates of one call of the training program, and the evaluation of the policy
        that they have led to, if there is one; `logged` joins the next row.
        """
        self._logged |= logged
        before = self.counters.steps
        for update in updates[:-1]:
            count_update(self.counters, update, seconds / len(updates))
            self._write_row_if_due(None)
        count_update(self.counters, updates[-1], seconds / len(updates))
        self._write_row_if_due(evaluation)
        self.speed = (self.counters.steps - before) / seconds
        self._reporter.progress(self._settings, self.counters, updates[-1])
        if evaluation is not None:
            self._reporter.evaluated(self.counters, evaluation)

    def _write_row_if_due(self, evaluation: Evaluation | None) -> None:
        steps = self.counters.steps
        last = self.counters.row_at
        is_due = steps - last >= steps_to_next_row(last, self._settings.steps)
        if is_due or steps >= self._settings.steps or evaluation is not None:
            row = make_row(self.counters, evaluation) | self._logged
            self._logged = {}
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
            with suppress(Exception):
                tracker.close()
            name = type(tracker).__name__
            self._reporter.warn(f"{name} failed at step {steps:,} and is given up: {error}")


class TrainingLoop:
    """Updates, and what is done between them: evaluations, rows of metrics, checkpoints, and what
    callbacks ask for.
    """

    def __init__(
        self,
        folder: RunFolder,
        settings: Settings,
        evaluator: Evaluator,
        record: Record,
        callbacks: Callbacks,
    ):
        self._folder = folder
        self._settings = settings
        self._evaluator = evaluator
        self._record = record
        self._callbacks = callbacks
        self._counters = record.counters
        self._saved = record.counters.steps
        self._saved_at = time.perf_counter()
        self._save_every = settings.checkpoint_every or max(
            1, settings.steps // CHECKPOINTS_PER_RUN
        )

    def learn(self, sampler: Sampler, learner: Learner) -> Learner:
        """Update until the budget is spent, or the run is to stop.

        However it ends, the last whole state is saved.
        """
        advance = sampler.advance(self._settings.algorithm, learner, self._settings.steps)
        self._callbacks.start()
        gc.freeze()  # each full collection would look through all objects of the libraries
        try:
            while not self._is_over():
                started = time.perf_counter()
                updated, updates = advance(learner, self._steps_of_a_call())
                _require_finite(updates, self._counters.updates)
                seconds = time.perf_counter() - started
                evaluation = self._evaluated(updated, updates)
                learner = updated
                self._count(learner, updates, seconds, evaluation)
                self._save_if_due(learner)
            self._callbacks.end()
        finally:
            gc.unfreeze()
            if self._counters.steps > self._saved or not self._folder.checkpoints():
                self._folder.save(learner, self._counters)
        return learner

    def _is_over(self) -> bool:
        """Whether there is no update to come."""
        counters = self._counters
        is_spent = counters.steps >= self._settings.steps
        return is_spent or counters.has_reached or self._callbacks.progress.is_stopped

    def _evaluated(self, updated: Learner, updates: list[dict[str, float]]) -> Evaluation | None:
        """What the policy is worth after these updates, if an evaluation is due."""
        made = sum(int(update["steps"]) for update in updates)
        if not self._evaluator.is_due(self._counters, self._counters.steps + made):
            return None
        return self._evaluator.evaluate(updated.policy)

    def _count(
        self,
        learner: Learner,
        updates: list[dict[str, float]],
        seconds: float,
        evaluation: Evaluation | None,
    ) -> None:
        """Count the updates, and tell everybody."""
        progress = self._callbacks.progress
        self._record.add(updates, seconds, evaluation, progress.take_logged())
        progress.move(learner)
        for update in updates:
            self._callbacks.update(update)
        if evaluation is not None:
            if self._evaluator.count(evaluation, self._counters):
                self._folder.save_best(learner, self._counters, evaluation)
            self._callbacks.evaluation(evaluation)

    def _save_if_due(self, learner: Learner) -> None:
        """A checkpoint after so many steps or so long, and when a callback has asked for one."""
        now = time.perf_counter()
        is_late = now - self._saved_at > SECONDS_PER_CHECKPOINT
        is_due = self._counters.steps // self._save_every > self._saved // self._save_every
        if is_late or is_due or self._callbacks.progress.take_wish():
            path = self._folder.save(learner, self._counters)
            self._saved = self._counters.steps
            self._saved_at = now
            self._callbacks.checkpoint(path)

    def _steps_of_a_call(self) -> int:
        """Steps until something else than updates is due, and about `SECONDS_PER_CALL` of them at
        most.
        """
        steps = self._counters.steps
        periods = (self._save_every, self._evaluator.period)
        ends = [(steps // period + 1) * period for period in periods if period]
        until = min([self._settings.steps, *ends])
        at_once = max(1, int(self._record.speed * SECONDS_PER_CALL))
        return min(until - steps, at_once)


def _require_finite(updates: list[dict[str, float]], done: int) -> None:
    for number, update in enumerate(updates, start=done + 1):
        errors = (update["gradient_norm"], update.get("value_loss", 0.0))
        if not np.isfinite(errors).all():
            raise LogpiError(f"update {number}: the gradient is not finite; {REMEDY}")
        if np.isnan(update["kl"]) or np.isnan(update["entropy"]):
            raise LogpiError(f"update {number}: the policy has become NaN; {REMEDY}")
