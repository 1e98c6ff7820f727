"""The source files that one training step runs through, and the lines of each that run.

    python tests/program/step.py

The step is `TrainingLoop.learn` of `runs/loop.py` with a budget of one batch: sampling, the update, its metrics. Lines
that run while a program is traced count too. Files of `core`, `environments` and `networks` are what
a step is written in; those of the other folders are the step.
"""

import collections
import sys
import tempfile
import threading
from pathlib import Path

import logpi
from logpi.runs import loop

SOURCE = Path(logpi.__file__).parent
VOCABULARY = {"core", "environments", "networks"}


def lines_of_a_step(method) -> dict[str, int]:
    """How many lines of each file run in one step on CartPole-v1."""
    lines = set()
    learn = loop.TrainingLoop.learn

    def trace(frame, event, argument):
        if str(SOURCE) not in frame.f_code.co_filename:
            return None
        if event == "line":
            lines.add((frame.f_code.co_filename, frame.f_lineno))
        return trace

    def traced(*arguments):
        threading.settrace(trace)
        sys.settrace(trace)
        try:
            return learn(*arguments)
        finally:
            sys.settrace(None)
            threading.settrace(None)

    loop.TrainingLoop.learn = traced
    with tempfile.TemporaryDirectory() as folder:
        logpi.train("CartPole-v1", method, steps=1, workers=0, out=Path(folder) / "run")
    loop.TrainingLoop.learn = learn
    return collections.Counter(str(Path(file).relative_to(SOURCE)) for file, _ in lines)


def main() -> None:
    """Print the files of a step of REINFORCE and of PPO, those with most lines first."""
    for method in (logpi.Reinforce(), logpi.PPO()):
        found = lines_of_a_step(method)
        own = {file: n for file, n in found.items() if file.split("/")[0] not in VOCABULARY}
        total = sum(own.values())
        seen = 0
        print(f"{type(method).__name__}: {len(found)} files run, {len(own)} of them are the step")
        for file, n in sorted(own.items(), key=lambda item: -item[1]):
            seen += n
            print(f"  {n:4} lines {seen / total:5.0%}  {file}")


if __name__ == "__main__":
    main()
