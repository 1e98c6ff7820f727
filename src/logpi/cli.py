"""The `logpi` command. Imports nothing heavy: `logpi --help` must answer at once."""

import gc
import io
import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, NoReturn

import tyro

import logpi
from logpi.commands.artifacts import Export, Report, Video
from logpi.commands.checking import Check, Derive, Doctor
from logpi.commands.demonstrations import Imitate, Record
from logpi.commands.experiments import Compare, Plot, Runs, Sweep, Tune
from logpi.commands.training import Evaluate, Resume, Train, Training, training_command
from logpi.commands.values import option_types
from logpi.core.errors import LogpiError
from logpi.core.say import say_aside, silence
from logpi.core.threads import COMPILER

COMMANDS: dict[str, Any] = {
    "train": Train,
    "sweep": Sweep,
    "tune": Tune,
    "resume": Resume,
    "evaluate": Evaluate,
    "plot": Plot,
    "report": Report,
    "video": Video,
    "record": Record,
    "imitate": Imitate,
    "export": Export,
    "compare": Compare,
    "runs": Runs,
    "derive": Derive,
    "check": Check,
    "doctor": Doctor,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; exit status 0, 1 for a check that is not exact, 2 for unusable input, 130
    after Ctrl-C.
    """
    command = list(sys.argv[1:] if arguments is None else arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without π or ∇
    try:
        if command == ["--version"]:
            print(f"logpi {logpi.__version__}")
            return 0
        asked = COMMANDS.get(command[0]) if command else None
        if isinstance(asked, type) and issubclass(asked, Training):
            kind, start = training_command(asked, command[1:])
            chosen: Any = tyro.cli(
                kind,
                prog=f"logpi {command[0]}",
                args=command[1:],
                default=start,
                registry=option_types(),
            )
        else:
            description = "Policy gradients done exactly and fast."
            chosen = tyro.extras.subcommand_cli_from_dict(
                COMMANDS, prog="logpi", description=description, args=command
            )
        status = chosen.run() or 0
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except LogpiError as error:
        say_aside(f"logpi: error: {error}")
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as in `logpi derive | head`
        silence(sys.stdout)
        return 141
    except OSError as error:  # all files are read and written with words of their own
        say_aside(f"logpi: error: the output cannot be written: {error.strerror}")
        silence(sys.stdout)
        return 2


# Seconds that threads have to end when the command has.
GRACE = 5.0
# New objects after which Python looks for garbage: imports and compilations make many, and none of
# it is garbage.
OBJECTS_PER_COLLECTION = 50_000


def program() -> NoReturn:
    """The program `logpi`: `main`, after which threads that do not end are left."""
    gc.set_threshold(OBJECTS_PER_COLLECTION)
    status = main()
    gc.freeze()  # the interpreter would look through all objects of the libraries as it ends
    threading.Thread(target=_leave, args=(status,), daemon=True).start()
    sys.exit(status)


def _leave(status: int) -> None:
    """End the program, which waits for threads that are no daemons."""
    time.sleep(GRACE)
    left = [thread.name for thread in threading.enumerate() if not thread.daemon]
    left.remove(threading.main_thread().name)
    foreign = [name for name in left if not name.startswith(COMPILER)]
    if foreign:
        say_aside(f"logpi: warning: left running: {', '.join(foreign)}")
    os._exit(status)
