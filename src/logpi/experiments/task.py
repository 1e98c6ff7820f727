"""One run of a sweep, which any process can make: it goes on if it has begun, else it begins."""

from dataclasses import dataclass
from pathlib import Path

from logpi.core.errors import LogpiError
from logpi.core.foreign import pack
from logpi.environments.registry import EnvironmentLike, make_environment
from logpi.environments.spec import CompiledEnvironment, HostEnvironment
from logpi.runs.folder import RunFolder
from logpi.runs.loop import Observers
from logpi.runs.report import SilentReporter
from logpi.runs.settings import Settings
from logpi.runs.training import train_as

# Seconds that the process which had this run before may need to save it and end.
ENDING = 60.0


@dataclass(frozen=True)
class Task:
    """Settings with their seed, and the folder of the run.

    `environment` is the one that the settings name, or the object itself where it has no name.
    """

    settings: Settings
    environment: EnvironmentLike
    folder: Path

    def perform(self) -> str | None:
        """Make the run, to its end. Returns why it has failed, if it has."""
        try:
            made = make_environment(self.environment, self.settings.environment_options)
        except LogpiError as error:
            return str(error)
        return self.perform_in(made)

    def perform_in(self, made: HostEnvironment | CompiledEnvironment) -> str | None:
        """`perform` in an environment that is made."""
        try:
            RunFolder.wait_for_writer(self.folder, ENDING)
            observers = Observers(SilentReporter())
            train_as(self.settings, made, self.folder, "resume", observers)
        except LogpiError as error:
            return str(error)
        return None

    def packed(self) -> bytes:
        """As bytes that `pickle.loads` reads in another process.

        **Raises:** `LogpiError` where the environment refers to what cannot travel.
        """
        return pack(self, self.settings.environment, "give an environment by name")
