"""`logpi report`, `video` and `export`."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from logpi.commands.agreeing import agrees


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
            trust=self.trust or agrees(self.run_folder),
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
            trust=self.trust or agrees(self.run_folder),
        )
        if made.difference is None:
            print(made.path)
        else:
            print(f"{made.path}: actions differ from the policy's by {made.difference:.1e} at most")
