"""Callbacks: code of the user that a run calls at moments of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from logpi.core.checks import require
from logpi.core.errors import LogpiError
from logpi.core.foreign import describe
from logpi.methods.learner import Learner
from logpi.networks.policy import Policy
from logpi.runs.checkpoint import Counters
from logpi.runs.evaluation import Evaluation
from logpi.runs.settings import Settings


class Progress:
    """A run as a callback sees it. It can be stopped and saved, not changed: its arrays are
    read-only copies.
    """

    def __init__(self, settings: Settings, folder: Path, learner: Learner, counters: Counters):
        self.settings = settings
        """The settings of the run."""
        self.folder = folder
        """Its folder."""
        self.is_stopped = False
        """Whether a callback has asked it to stop."""
        self._learner = learner
        self._counters = counters
        self._logged: dict[str, float] = {}
        self._wants_checkpoint = False

    @property
    def steps(self) -> int:
        """Environment steps so far."""
        return self._counters.steps

    @property
    def episodes(self) -> int:
        """Episodes that have ended so far."""
        return self._counters.episodes

    @property
    def policy(self) -> Policy:
        """The policy as it is now."""
        return self._learner.policy.on_host()

    def stop(self) -> None:
        """End the run before the next update. It is saved and evaluated, and can be resumed."""
        self.is_stopped = True

    def save(self) -> None:
        """Have a checkpoint written before the next update."""
        self._wants_checkpoint = True

    def log(self, metrics: Mapping[str, float]) -> None:
        """Add numbers to the next row that the trackers get. metrics.csv keeps its own columns."""
        self._logged |= {str(name): float(value) for name, value in metrics.items()}

    def move(self, learner: Learner) -> None:
        """Show the learner after the last update."""
        self._learner = learner

    def take_logged(self) -> dict[str, float]:
        """What was logged since this was last asked."""
        logged = self._logged
        self._logged = {}
        return logged

    def take_wish(self) -> bool:
        """Whether a checkpoint was asked for since this was last asked."""
        wish = self._wants_checkpoint
        self._wants_checkpoint = False
        return wish


class Callback:
    """Does nothing at any moment; a callback overrides what it needs.

    All are called in the process that trains, between two calls of the training program. On a
    compiled environment one call makes many updates.
    """

    def on_start(self, run: Progress) -> None:
        """Before the first update, also of a run that is resumed."""

    def on_update(self, run: Progress, metrics: Mapping[str, float]) -> None:
        """After every update, with its metrics; `run` stands after the last one of the call."""

    def on_evaluation(self, run: Progress, evaluation: Evaluation) -> None:
        """After an evaluation on the way."""

    def on_checkpoint(self, run: Progress, path: Path) -> None:
        """After a checkpoint was written."""

    def on_end(self, run: Progress) -> None:
        """After the last update, before the evaluation at the end."""


class Callbacks:
    """The callbacks of a run. What one of them raises ends the run, saved, with its name.

    **Raises:** `LogpiError` for what is no `Callback`.
    """

    def __init__(self, callbacks: Sequence[Callback], progress: Progress):
        for callback in callbacks:
            require(isinstance(callback, Callback), "callbacks", "logpi.Callback objects", callback)
        self.progress = progress
        self._callbacks = callbacks

    def start(self) -> None:
        """Call `on_start`."""
        self._call("on_start")

    def update(self, metrics: Mapping[str, float]) -> None:
        """Call `on_update`."""
        self._call("on_update", metrics)

    def evaluation(self, evaluation: Evaluation) -> None:
        """Call `on_evaluation`."""
        self._call("on_evaluation", evaluation)

    def checkpoint(self, path: Path) -> None:
        """Call `on_checkpoint`."""
        self._call("on_checkpoint", path)

    def end(self) -> None:
        """Call `on_end`."""
        self._call("on_end")

    def _call(self, moment: str, *arguments: object) -> None:
        for callback in self._callbacks:
            try:
                getattr(callback, moment)(self.progress, *arguments)
            except LogpiError:
                raise
            except Exception as error:
                where = f"{type(callback).__name__}.{moment} failed"
                step = f"at step {self.progress.steps:,}"
                raise LogpiError(f"{where} {step}: {describe(error)}") from error
