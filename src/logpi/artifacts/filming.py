"""A policy at work, as a video."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from logpi.artifacts.files import written_at
from logpi.core.checks import is_whole, require, require_seed
from logpi.core.errors import LogpiError
from logpi.core.foreign import describe
from logpi.environments.options import EnvironmentOptions
from logpi.environments.registry import EnvironmentLike, make_environment
from logpi.environments.spec import HostEnvironment
from logpi.networks.policy import Policy
from logpi.runs.evaluation import require_fitting
from logpi.runs.folder import RunFolder
from logpi.runs.trained import Which, load

FRAMES_PER_SECOND = 30
# A video holds no more frames than these.
MOST_FRAMES = 2000


class Film:
    """The policy of a run in an environment that draws what it shows.

    **Raises:** `LogpiError` where the environment draws no pictures or does not fit the policy, and
    as `load`.
    """

    def __init__(
        self,
        run: str | Path,
        environment: EnvironmentLike | None = None,
        *,
        which: Which = "latest",
        deterministic: bool = True,
        seed: int | None = None,
        trust: bool = False,
    ):
        settings = RunFolder.open(Path(run)).settings
        self._policy = load(run, which=which, trust=trust)
        self._seed = settings.seed if seed is None else seed
        require_seed(self._seed)
        self._random = None
        if not deterministic:
            self._random = np.random.default_rng(self._seed)
        self._environment = _drawing_environment(
            environment or settings.environment, settings.environment_options, self._policy
        )
        self.frames_per_second = int(
            self._environment.metadata.get("render_fps") or FRAMES_PER_SECOND
        )

    def frames(self, episodes: int) -> Iterator[UInt8[ndarray, "height width 3"]]:
        """What the environment draws in so many episodes, before the first step and after each."""
        for number in range(episodes):
            observation, _ = self._environment.reset(seed=self._seed + number)
            yield self._frame()
            memory = self._policy.initial_memory(1)
            has_ended = False
            while not has_ended:
                row = np.asarray(observation)[None]
                memory = np.asarray(self._policy.next_memory(row, memory))
                action = self._policy.act(row, self._random, memory)[0]
                observation, _, terminated, truncated, _ = self._environment.step(action)
                yield self._frame()
                has_ended = terminated or truncated

    def _frame(self) -> UInt8[ndarray, "height width 3"]:
        """What it draws now.

        **Raises:** `LogpiError` where that is no picture.
        """
        try:
            drawn = self._environment.render()
        except Exception as error:
            raise LogpiError(f"the environment draws no pictures: {describe(error)}") from error
        if not isinstance(drawn, ndarray) or drawn.ndim != 3:
            raise LogpiError(f"the environment draws no pictures, but {type(drawn).__name__}")
        return drawn

    def close(self) -> None:
        """Let the environment go."""
        self._environment.close()


def _drawing_environment(
    source: EnvironmentLike, options: EnvironmentOptions, policy: Policy
) -> gym.Env:
    """A copy that draws, in the policy's view of it.

    **Raises:** `LogpiError` where it does not fit the policy, or cannot draw.
    """
    made = make_environment(source, options)
    require_fitting(policy, made.spec)
    name = made.spec.name
    if not isinstance(made, HostEnvironment) or made.make is None:
        raise LogpiError(f"{name} draws no pictures: name one of Gymnasium with --env")
    for device in ("SDL_VIDEODRIVER", "SDL_AUDIODRIVER"):  # pygame needs neither
        os.environ.setdefault(device, "dummy")
    drawing = {**options.kwargs, "render_mode": "rgb_array"}
    made = make_environment(source, replace(options, kwargs=drawing))
    assert isinstance(made, HostEnvironment)
    assert made.make is not None
    return made.make()


def record_video(
    run: str | Path,
    out: str | Path | None = None,
    *,
    environment: EnvironmentLike | None = None,
    episodes: int = 1,
    which: Which = "latest",
    deterministic: bool = True,
    seed: int | None = None,
    trust: bool = False,
) -> Path:
    """Film the policy of a run, and give the path of the video: `out`, which ends in .mp4 or .gif,
    or `video.mp4` in the run folder.

    Everything that is not given is the run's. A video has 2,000 frames at most.

    **Raises:** `LogpiError` where the environment draws no pictures, moviepy is missing for .mp4,
    or the file cannot be written.
    """
    require(is_whole(episodes) and episodes >= 1, "episodes", "a whole number >= 1", episodes)
    path = Path(run) / "video.mp4" if out is None else Path(out)
    writers = {".mp4": _write_mp4, ".gif": write_gif}
    if path.suffix not in writers:
        raise LogpiError(f"{path} must end in .mp4 or .gif")
    film = Film(run, environment, which=which, deterministic=deterministic, seed=seed, trust=trust)
    with closing(film), written_at(path):
        frames = list(islice(film.frames(episodes), MOST_FRAMES))
        writers[path.suffix](path, frames, film.frames_per_second)
    return path


def _write_mp4(path: Path, frames: Sequence[ndarray], frames_per_second: int) -> None:
    """By Gymnasium's recorder, which names its files itself.

    **Raises:** `LogpiError` where moviepy is missing.
    """
    try:
        recorder: Any = import_module("gymnasium.utils.save_video")
    except gym.error.DependencyNotInstalled:
        remedy = "pip install 'logpi[video]', or name a .gif"
        raise LogpiError(f"an .mp4 needs moviepy: {remedy}") from None
    with tempfile.TemporaryDirectory() as folder:
        recorder.save_video(
            frames, folder, fps=frames_per_second, name_prefix="video", episode_index=0
        )
        (made,) = Path(folder).glob("*.mp4")
        path.write_bytes(made.read_bytes())


def write_gif(path: Any, frames: Sequence[ndarray], frames_per_second: int) -> None:
    """A GIF that repeats for ever, to a path or a file."""
    from PIL import Image

    first, *others = [Image.fromarray(frame) for frame in frames]
    milliseconds = max(20, round(1000 / frames_per_second))  # browsers slow down shorter ones
    first.save(
        path, format="GIF", save_all=True, append_images=others, duration=milliseconds, loop=0
    )
