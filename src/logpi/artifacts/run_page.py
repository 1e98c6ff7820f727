"""`logpi report`: runs as a page to read, in one file."""

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from logpi.artifacts.filming import MOST_FRAMES, Film, write_gif
from logpi.artifacts.page import chart, grid, heading, image, paragraph, table, write_page
from logpi.core.errors import LogpiError
from logpi.core.foreign import one_line
from logpi.experiments.groups import Group, find_groups
from logpi.experiments.listing import RunState
from logpi.experiments.plotting import Curves, draw_curves, draw_thresholds, read_curves
from logpi.runs.evaluation import FinalEvaluation
from logpi.runs.folder import RunFolder
from logpi.runs.metrics import LENGTH, RETURN

# What is drawn of training, by the tag of the metric.
DIAGNOSTICS = {
    LENGTH: "Length of episodes",
    "train/entropy_loss": "Entropy of the policy, times -1",
    "train/approx_kl": "KL of an update",
    "train/gradient_norm": "Length of the gradient",
    "train/explained_variance": "Variance of the returns that V explains",
    "train/value_loss": "Loss of V",
    "train/gradient_snr": "Signal-to-noise ratio of the gradient",
    "train/clip_fraction": "Share of steps beyond the clip",
    "train/effective_sample_size": "Effective sample size, share of the steps",
    "train/clipped_actions": "Share of actions cut at a bound",
    "train/step_scale": "Part of a step that the limit on KL leaves",
    "train/learning_rate": "Learning rate",
}
# The animation: of so many pictures of an episode, not wider than so many pixels.
MOST_PICTURES = 120
WIDTH = 320


def report(folders: Sequence[str | Path], out: str | Path | None = None) -> Path:
    """Write a page on runs, and give its path: `out`, `report.html` in the folder of a single run,
    or `report.html` here.

    Each folder is a run, or holds several, as for `plot`. The page has their curves with bands,
    evaluations, what was measured on the way, the returns and lengths of the last evaluations, the
    settings and versions, and an episode of the first run, where its environment draws. It needs no
    network and no other file.

    **Raises:** `LogpiError` where a folder holds no run, a run has no metrics yet, or the page
    cannot be written.
    """
    groups = find_groups([str(folder) for folder in folders])
    runs = [run for group in groups for run in group.runs]
    states = [RunState.of(run) for run in runs]
    names = sorted({f"{state.algorithm} on {state.environment}" for state in states})
    path = _page_path(runs, out)
    write_page(path, ", ".join(names), _parts(groups, runs, states))
    return path


def _page_path(runs: Sequence[RunFolder], out: str | Path | None) -> Path:
    if out is not None:
        return Path(out)
    if len(runs) == 1:
        return runs[0].path / "report.html"
    return Path("report.html")


def _parts(
    groups: Sequence[Group], runs: Sequence[RunFolder], states: Sequence[RunState]
) -> Iterator[str]:
    """What stands on the page, from its top."""
    curves = read_curves(groups)
    yield _as_runs(states)
    yield heading("Learning")
    yield grid([_returns(curves, groups), *_animation(runs[0])])
    yield heading("On the way")
    yield grid(list(_diagnostics(curves)))
    evaluations = [found for run in runs if (found := run.last_evaluation()) is not None]
    if evaluations:
        yield heading("The last evaluation")
        yield paragraph(
            "Fresh episodes at the end of training: with the most probable action at each step, and"
            " with actions that are drawn from the policy."
        )
        yield grid(list(_distributions(evaluations)))
    yield heading("Settings")
    yield _settings(groups)
    yield heading("Versions")
    yield table(["", "value"], _machine(runs[0]))


def _as_runs(states: Sequence[RunState]) -> str:
    """What each run is worth."""
    names = ["run", "seed", "steps", "return, most probable actions [95 %]", "state"]
    rows = [
        (
            state.folder.name,
            state.seed,
            f"{state.steps:,} of {state.budget:,}",
            "" if state.evaluation is None else state.evaluation,
            state.state,
        )
        for state in states
    ]
    return table(names, rows)


def _returns(curves: Sequence[Curves], groups: Sequence[Group]) -> str:
    """The learning curve with the return that is called solved."""

    def draw(axes: Any) -> None:
        draw_curves(axes, curves, RETURN)
        draw_thresholds(axes, groups)
        axes.set(xlabel="environment steps")

    return chart("Mean return of the last 100 episodes", draw)


def _diagnostics(curves: Sequence[Curves]) -> Iterator[str]:
    """A chart of each metric that the first run has."""
    for tag, caption in DIAGNOSTICS.items():
        if np.isnan(curves[0].column(tag)[0]).all():
            continue

        def draw(axes: Any, tag: str = tag) -> None:
            draw_curves(axes, curves, tag)
            axes.set(xlabel="environment steps")

        yield chart(caption, draw)


def _distributions(evaluations: Sequence[FinalEvaluation]) -> Iterator[str]:
    """Histograms of the returns and the lengths of all runs."""
    for what, caption in (("returns", "Return of an episode"), ("lengths", "Steps of an episode")):
        both = {
            "most probable actions": [getattr(each.most_probable, what) for each in evaluations],
            "drawn actions": [getattr(each.drawn, what) for each in evaluations],
        }

        def draw(axes: Any, both: dict[str, list[ndarray]] = both) -> None:
            values = {name: np.concatenate(parts) for name, parts in both.items()}
            edges = np.histogram_bin_edges(np.concatenate(list(values.values())), bins=20)
            for name, numbers in values.items():
                axes.hist(numbers, edges, alpha=0.6, label=name)
            axes.set(ylabel="episodes")

        yield chart(caption, draw)


def _animation(run: RunFolder) -> Iterator[str]:
    """An episode as the environment draws it, or why there is none."""
    try:
        with closing(Film(run.path)) as film:
            frames = [_small(frame) for frame in islice(film.frames(1), MOST_FRAMES)]
    except LogpiError as error:
        yield paragraph(f"No animation: {one_line(str(error))}.")
        return
    apart = math.ceil(len(frames) / MOST_PICTURES)
    file = io.BytesIO()
    write_gif(file, frames[::apart], max(1, film.frames_per_second // apart))
    caption = f"{run.settings.environment}: an episode of {len(frames) - 1} steps"
    yield image(caption, file.getvalue(), "gif")


def _small(frame: ndarray) -> ndarray:
    """Every so many pixels of a frame, so that it is not too wide."""
    apart = math.ceil(frame.shape[1] / WIDTH)
    return np.ascontiguousarray(frame[::apart, ::apart])


def _settings(groups: Sequence[Group]) -> str:
    """Every setting, with its values in each group."""
    columns = [_values(group) for group in groups]
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = [[name, *(column.get(name, "") for column in columns)] for name in names]
    return table(["setting", *(group.name for group in groups)], rows)


def _values(group: Group) -> dict[str, str]:
    """The settings of a group, the seeds of all its runs in one."""
    settings = [run.settings.to_json() for run in group.runs]
    return {
        name: ", ".join(dict.fromkeys(str(each.get(name)) for each in settings))
        for name in settings[0]
    }


def _machine(run: RunFolder) -> Iterator[tuple[str, object]]:
    """What computed the run last."""
    for session in run.sessions[-1:]:
        for name, value in session.items():
            if name != "command":
                yield name, value
