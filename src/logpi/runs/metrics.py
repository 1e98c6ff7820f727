"""What a run reports while it learns: one row of numbers, to CSV and TensorBoard under the tags
that people know.
"""

import csv
import io
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from logpi.core.errors import LogpiError
from logpi.runs.checkpoint import Counters
from logpi.runs.evaluation import Evaluation
from logpi.runs.files import LARGEST_TABLE, require_plain_file, write_whole

# A row stands for this part of the budget, or for fewer steps where that is very long: a row
# follows the last one after at most so many steps, or after this part of those that were made.
ROWS_PER_RUN = 250
MOST_STEPS_PER_ROW = 100_000
PART_PER_ROW = 100
STEPS = "time/total_timesteps"
RETURN = "rollout/ep_rew_mean"
LENGTH = "rollout/ep_len_mean"
# Mean return of an evaluation, the ends of its interval, and the mean length; NaN in other rows.
EVALUATED = (
    "eval/mean_reward",
    "eval/mean_reward_low",
    "eval/mean_reward_high",
    "eval/mean_ep_length",
)
# What hyperparameters are compared by in TensorBoard.
_COMPARED = dict.fromkeys((RETURN, EVALUATED[0]))
# The means over episodes are taken over the latest batches that hold at least so many.
WINDOW = 100


@runtime_checkable
class Tracker(Protocol):
    """Where rows of metrics go."""

    def write(self, step: int, metrics: Mapping[str, float | int]) -> None:
        """One row; `step` counts environment steps."""
        ...

    def close(self) -> None:
        """Flush."""
        ...


def count_update(counters: Counters, update: Mapping[str, float], seconds: float) -> None:
    """Count one update, which took so long: its steps, the episodes that ended in it, and its
    metrics for the next row.
    """
    counters.steps += int(update["steps"])
    counters.episodes += int(update["episodes"])
    counters.updates += 1
    counters.faults += int(update.get("faults", 0))
    counters.lost += int(update.get("lost", 0))
    counters.seconds += seconds
    for name, value in update.items():
        if not math.isnan(value):
            total, count = counters.row_sums.get(name, (0.0, 0.0))
            counters.row_sums[name] = [total + value, count + 1.0]
    if update["episodes"]:
        names = ("episode_return", "episode_length", "episodes")
        counters.recent = [*counters.recent, [update[name] for name in names]]
    while len(counters.recent) > 1 and _episodes_of(counters.recent[1:]) >= WINDOW:
        del counters.recent[0]


def _episodes_of(recent: list[list[float]]) -> float:
    return sum(episodes for _, _, episodes in recent)


def steps_to_next_row(made: int, budget: int) -> int:
    """Environment steps between a row that was written after `made` steps and the next one."""
    longest = max(MOST_STEPS_PER_ROW, made // PART_PER_ROW)
    return min(max(1, budget // ROWS_PER_RUN), longest)


def make_row(counters: Counters, evaluation: Evaluation | None = None) -> dict[str, float | int]:
    """The counters, the means over the recent episodes, the evaluation if there is one, and the
    means over the updates since the last row, by their tags.
    """
    mean = partial(_mean_of_updates, counters)
    episode_return, episode_length = counters.recent_means()
    evaluated = dict.fromkeys(EVALUATED, math.nan)
    if evaluation is not None:
        low, high = evaluation.interval
        values = (evaluation.mean, low, high, float(evaluation.lengths.mean()))
        evaluated = dict(zip(EVALUATED, values, strict=True))
    return {
        STEPS: counters.steps,
        "time/episodes": counters.episodes,
        "time/iterations": counters.updates,
        "time/faults": counters.faults,
        "time/lost_workers": counters.lost,
        "time/time_elapsed": counters.seconds,
        "time/fps": counters.steps / max(counters.seconds, 1e-9),
        RETURN: episode_return,
        LENGTH: episode_length,
        **evaluated,
        "train/policy_gradient_loss": -mean("surrogate"),
        "train/value_loss": mean("value_loss"),
        "train/entropy_loss": -mean("entropy"),
        "train/explained_variance": mean("explained_variance"),
        "train/approx_kl": mean("kl"),
        "train/gradient_norm": mean("gradient_norm"),
        "train/gradient_snr": mean("gradient_snr"),
        "train/step_scale": mean("step_scale"),
        "train/clip_fraction": mean("clip_fraction"),
        "train/effective_sample_size": mean("effective_sample_size"),
        "train/clipped_actions": mean("clipped_actions"),
        "train/learning_rate": mean("learning_rate"),
        "train/n_updates": counters.updates,
    }


def _mean_of_updates(counters: Counters, name: str) -> float:
    total, count = counters.row_sums.get(name, (math.nan, 1.0))
    return total / count


# The columns of metrics.csv.
COLUMNS = tuple(make_row(Counters()))


class CsvTracker:
    """metrics.csv. Rows after `resumed_at` steps, left by a run that was killed, are dropped."""

    def __init__(self, path: Path, resumed_at: int):
        self._writer: csv.DictWriter[str] | None = None
        kept = _rows_until(path, resumed_at) if path.is_file() else []
        text = io.StringIO(newline="")
        csv.writer(text).writerows(kept)
        write_whole(path, lambda file: file.write(text.getvalue().encode()))
        self._file = open(path, "a", newline="")
        if kept:
            self._writer = csv.DictWriter(self._file, kept[0], extrasaction="ignore")

    def write(self, step: int, metrics: Mapping[str, float | int]) -> None:
        if self._writer is None:
            self._writer = csv.DictWriter(self._file, COLUMNS, extrasaction="ignore")
            self._writer.writeheader()
        self._writer.writerow(metrics)
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _rows_until(path: Path, steps: int) -> list[list[str]]:
    """The lines of a metrics.csv up to a number of steps, the names first; one that was cut off is
    left out.

    **Raises:** `LogpiError` where the file is something else.
    """
    rows = [row[STEPS] for row in read_metrics(path)]
    with open(path, newline="") as file:
        names, *lines = list(csv.reader(file)) or [[]]
    count = sum(each <= steps for each in rows)
    if count:
        return [names, *lines[:count]]
    return []


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Imports of a package that is not loaded yet fail as if it were not installed."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # pyright: ignore[reportArgumentType]
    try:
        yield
    finally:
        del sys.modules[package]


class TensorBoardTracker:
    """TensorBoard events in the run folder, written row by row.

    tensorboardX's own `SummaryWriter` leaves them to a thread, which loses rows when the process is
    killed, and blocks the process for ever once it has failed to write. `settings` are shown in the
    tab HPARAMS, beside the returns of training and of the evaluations.
    """

    def __init__(self, path: Path, resumed_at: int, settings: Mapping[str, object]):
        # tensorboardX imports it where it is installed, which takes a second
        with _hidden("torch"):
            from tensorboardX.event_file_writer import EventsWriter
            from tensorboardX.proto import event_pb2, summary_pb2
            from tensorboardX.summary import hparams
        self._events: Any = event_pb2
        self._summaries: Any = summary_pb2
        # the name holds a time in seconds: a run that is resumed within one needs another
        self._writer = EventsWriter(str(path / "events"), f".{os.getpid()}.{resumed_at}")
        if resumed_at:  # TensorBoard drops what an earlier file has from this step on
            begins = self._events.SessionLog(status=self._events.SessionLog.START)
            self._write(resumed_at + 1, session_log=begins)
        else:
            for summary in hparams(_as_hyperparameters(settings), _COMPARED):
                self._write(0, summary=summary)

    def write(self, step: int, metrics: Mapping[str, float | int]) -> None:
        values = [
            self._summaries.Summary.Value(tag=tag, simple_value=value)
            for tag, value in metrics.items()
            if not math.isnan(value)
        ]
        self._write(step, summary=self._summaries.Summary(value=values))

    def _write(self, step: int, **content: object) -> None:
        event = self._events.Event(wall_time=time.time(), step=step, **content)
        self._writer.write_event(event)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def _as_hyperparameters(settings: Mapping[str, object]) -> dict[str, object]:
    """Settings as TensorBoard knows them: numbers, flags and text."""
    known = (bool, int, float, str)
    return {
        name: value if isinstance(value, known) else str(value) for name, value in settings.items()
    }


class WandbTracker:
    """Rows for a run of Weights & Biases, or of what has its interface, such as Trackio.

    `run` is what `wandb.init(...)` or `trackio.init(...)` gives.
    """

    def __init__(self, run: Any):
        self._run = run

    def write(self, step: int, metrics: Mapping[str, float | int]) -> None:
        known = {tag: value for tag, value in metrics.items() if not math.isnan(value)}
        self._run.log(known, step=step)

    def close(self) -> None:
        self._run.finish()


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of a metrics.csv; a last line that was cut off is left out.

    **Raises:** `LogpiError` where the file is missing or is something else.
    """
    if path.parent.is_dir() and not path.exists():
        raise LogpiError(f"{path.parent} has no curve yet: `logpi resume {path.parent}` trains it")
    try:
        require_plain_file(path, LARGEST_TABLE)
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        whole = [
            r for r in rows if None not in r and None not in r.values() and "" not in r.values()
        ]
        return [{str(tag): float(value) for tag, value in r.items()} for r in whole]
    except (OSError, ValueError, csv.Error) as error:
        raise LogpiError(f"{path} cannot be read as metrics: {str(error)[:200]}") from None
