"""What a person sees of a run: a progress bar on a terminal, lines elsewhere, a summary at the
end.
"""

import time
from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import Protocol, runtime_checkable

from logpi.core.say import say, say_aside
from logpi.methods.registry import name_of_method
from logpi.runs.checkpoint import Counters
from logpi.runs.evaluation import Evaluation, FinalEvaluation
from logpi.runs.metrics import WINDOW
from logpi.runs.settings import Settings

# Seconds after which a run says something, wherever it stands.
LONGEST_SILENCE = 30.0


@runtime_checkable
class Reporter(Protocol):
    """What the training program tells."""

    def start(self, settings: Settings, folder: Path, counters: Counters) -> None:
        """The run begins, or goes on."""
        ...

    def progress(self, settings: Settings, counters: Counters, update: dict[str, float]) -> None:
        """After every call of the training program."""
        ...

    def evaluated(self, counters: Counters, evaluation: Evaluation) -> None:
        """The policy was evaluated on the way."""
        ...

    def evaluating(self) -> None:
        """Training is done."""
        ...

    def finish(
        self, folder: Path, counters: Counters, evaluation: FinalEvaluation, threshold: float | None
    ) -> None:
        """The summary."""
        ...

    def stopped(self, folder: Path, saved: int | None) -> None:
        """The run ended before its budget; `saved` is the step of its last checkpoint, if any."""
        ...

    def warn(self, message: str) -> None:
        """Something the user should know."""
        ...


class SilentReporter:
    """Says nothing, but warns."""

    def start(self, settings: Settings, folder: Path, counters: Counters) -> None: ...
    def progress(
        self, settings: Settings, counters: Counters, update: dict[str, float]
    ) -> None: ...
    def evaluated(self, counters: Counters, evaluation: Evaluation) -> None: ...
    def evaluating(self) -> None: ...
    def finish(
        self, folder: Path, counters: Counters, evaluation: FinalEvaluation, threshold: float | None
    ) -> None: ...
    def stopped(self, folder: Path, saved: int | None) -> None: ...

    def warn(self, message: str) -> None:
        say_aside(f"logpi: warning: {message}")


class LineReporter(SilentReporter):
    """Ten lines a run and one every half minute, evaluations, and the summary: for logs and
    pipes.
    """

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._said = self._began
        self._resumed_at = 0
        self._tenth = 0
        self._directory = Path.cwd()

    def start(self, settings: Settings, folder: Path, counters: Counters) -> None:
        self._tenth = 10 * counters.steps // settings.steps
        self._resumed_at = counters.steps
        resumed = f", resumed at step {counters.steps:,}" if counters.steps else ""
        algorithm = name_of_method(settings.algorithm)
        what = f"{settings.environment} {algorithm} seed {settings.seed}, {settings.steps:,} steps"
        say(f"{what}{resumed}, in {self._named(folder)}")

    def progress(self, settings: Settings, counters: Counters, update: dict[str, float]) -> None:
        tenth = 10 * counters.steps // settings.steps
        now = time.perf_counter()
        if tenth > self._tenth or now - self._said > LONGEST_SILENCE:
            self._tenth = tenth
            self._said = now
            say(f"{_state(counters)}{self._time_left(settings, counters, now)}")

    def _time_left(self, settings: Settings, counters: Counters, now: float) -> str:
        """How long the rest takes, if it goes on like this."""
        left = settings.steps - counters.steps
        if left <= 0:
            return ""
        seconds = (now - self._began) * left / (counters.steps - self._resumed_at)
        return f"; {_duration(seconds)} left"

    def evaluated(self, counters: Counters, evaluation: Evaluation) -> None:
        count = len(evaluation.returns)
        say(f"step {counters.steps:,}, evaluated: {evaluation} over {count} fresh episodes")

    def stopped(self, folder: Path, saved: int | None) -> None:
        if saved is None:
            say(f"stopped before anything was saved in {self._named(folder)}")
            return
        say(f"stopped; saved at step {saved:,}; continue with")
        say(f"  logpi resume {self._named(folder)}")

    def finish(
        self, folder: Path, counters: Counters, evaluation: FinalEvaluation, threshold: float | None
    ) -> None:
        wall = time.perf_counter() - self._began
        speed = counters.steps / max(counters.seconds, 1e-9)
        taken = evaluation.most_probable
        say(f"return   {_worth(taken)}, most probable actions{_against(threshold, taken)}")
        if evaluation.differs:
            say(f"drawn    {_worth(evaluation.drawn)}, actions drawn from the policy")
        say(f"training {_state(counters)}; {speed:,.0f} steps/s, {wall:.1f} s in all")
        if counters.has_reached:
            say("stopped  an evaluation on the way has reached the return of --stop-at")
        if counters.faults:
            say(f"faults   {counters.faults} of the environment, after which it went on")
        if counters.lost:
            say(f"lost     {counters.lost} workers, which others have replaced")
        named = self._named(folder)
        if counters.best and counters.best[0] > taken.interval[0]:
            low, step = counters.best
            say(f"best     step {step:,.0f}, at least {low:.1f}: logpi evaluate {named} --best")
        say(f"run      {named}")
        say(f"next     logpi evaluate {named}")
        say(f"         logpi plot {named}")
        if not counters.has_reached:
            say(f"         logpi resume {named} --steps {_short(2 * counters.steps)}")

    def _named(self, folder: Path) -> str:
        """The folder as a word of a command that is given where this one was."""
        if folder.is_relative_to(self._directory):
            folder = folder.relative_to(self._directory)
        return quote(str(folder))


def _worth(evaluation: Evaluation) -> str:
    """Mean and interval, and of how many episodes."""
    return f"{evaluation} over {len(evaluation.returns)} fresh episodes (mean, 95 % interval)"


def _against(threshold: float | None, evaluation: Evaluation) -> str:
    """Whether the mean reaches the return that the environment calls solved."""
    if threshold is None:
        return ""
    reached = "reaches" if evaluation.mean >= threshold else "below"
    return f"; {reached} {threshold:g}"


def _duration(seconds: float) -> str:
    """12 s, 3 min, 2.5 h."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _short(steps: int) -> str:
    """2e5 for 200,000."""
    mantissa, exponent = f"{steps:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def _state(counters: Counters) -> str:
    if not counters.recent:
        return "no episode yet"
    episode_return, length = counters.recent_means()
    last = min(WINDOW, counters.episodes)
    return (
        f"step {counters.steps:,}, {counters.episodes:,} episodes, return {episode_return:.1f} and"
        f" length {length:.1f} over the last {last}"
    )


class BarReporter(LineReporter):
    """A live line with a bar, for terminals."""

    def __init__(self) -> None:
        super().__init__()
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%  step {task.completed:,.0f}  {task.description}"),
            TimeRemainingColumn(compact=True),
            transient=True,
        )
        self._task = self._progress.add_task("compiling")
        self._evaluated = ""

    def start(self, settings: Settings, folder: Path, counters: Counters) -> None:
        super().start(settings, folder, counters)
        self._progress.update(self._task, total=settings.steps, completed=counters.steps)
        with suppress(OSError):
            self._progress.start()

    def progress(self, settings: Settings, counters: Counters, update: dict[str, float]) -> None:
        episode_return, _ = counters.recent_means()
        speed = counters.steps / max(counters.seconds, 1e-9)
        text = f"episodes {counters.episodes:,}  return {episode_return:.1f}  {speed:,.0f} steps/s"
        text += self._evaluated
        self._progress.update(
            self._task, completed=min(counters.steps, settings.steps), description=text
        )

    def evaluated(self, counters: Counters, evaluation: Evaluation) -> None:
        self._evaluated = f"  evaluated {evaluation}"

    def evaluating(self) -> None:
        self._progress.update(self._task, description="evaluating")

    def finish(
        self, folder: Path, counters: Counters, evaluation: FinalEvaluation, threshold: float | None
    ) -> None:
        self.close()
        super().finish(folder, counters, evaluation, threshold)

    def stopped(self, folder: Path, saved: int | None) -> None:
        self.close()
        super().stopped(folder, saved)

    def close(self) -> None:
        """Leave the terminal as it was."""
        with suppress(OSError):
            self._progress.stop()
