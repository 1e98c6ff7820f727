"""Runs that differ in their seeds alone, on a compiled environment: one program learns for all.

Each run has a thread with its own training loop. They meet where one would call its training
program: what they bring is stacked, the program of all, which is that of one under `jax.vmap`, is
called once, and each takes its part. Its arithmetic is not bit for bit that of a run alone.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from logpi.core.foreign import exits_raised
from logpi.core.programs import compile_program
from logpi.environments.registry import make_environment
from logpi.environments.spec import CompiledEnvironment
from logpi.experiments.processes import Done
from logpi.experiments.task import Task

# Threads of one program: more would wait for each other longer than they save.
MOST_TOGETHER = 32


def run_together(tasks: Sequence[Task], done: Done) -> None:
    """Make the runs of all tasks; `done` hears of each, and why it has failed.

    **Raises:** `KeyboardInterrupt`, after the runs have been saved.
    """
    first = tasks[0]
    made = make_environment(first.environment, first.settings.environment_options)
    assert isinstance(made, CompiledEnvironment)
    meeting = _Meeting(len(tasks))

    def perform(number: int) -> str | None:
        try:
            return tasks[number].perform_in(replace(made, compiler=meeting.compiler(number)))
        finally:
            meeting.leave(number)

    with exits_raised(), ThreadPoolExecutor(len(tasks)) as pool:
        futures = {pool.submit(perform, number): task for number, task in enumerate(tasks)}
        try:
            for future in as_completed(futures):
                done(futures[future], future.result())
        except BaseException:
            meeting.stop()
            raise


class _Meeting:
    """Where the threads of `count` runs wait for each other, and the last to come calls the
    program of all.
    """

    def __init__(self, count: int):
        self._count = count
        self._expected = set(range(count))
        self._brought: dict[int, tuple[PyTree, ...]] = {}
        self._taken: dict[int, PyTree] = {}
        self._failure: BaseException | None = None
        self._program: Callable[..., Any] | None = None
        self._changed = threading.Condition()

    def compiler(self, number: int) -> Callable[..., Any]:
        """What compiles the training program of a run: nothing, before all have met."""

        def compiler(function: Callable[..., Any], *arguments: Any) -> Callable[..., Any]:
            def call(*arguments: PyTree) -> PyTree:
                return self._meet(number, function, arguments)

            return call

        return compiler

    def leave(self, number: int) -> None:
        """Others need not wait for this run any more."""
        with self._changed:
            self._expected.discard(number)
            self._changed.notify_all()

    def stop(self) -> None:
        """Every run ends, saved, as by Ctrl-C."""
        with self._changed:
            self._failure = KeyboardInterrupt()
            self._changed.notify_all()

    def _meet(
        self, number: int, function: Callable[..., Any], arguments: tuple[PyTree, ...]
    ) -> PyTree:
        """What the program gives for the arguments of this run.

        **Raises:** what the program has raised, in every thread; `KeyboardInterrupt`.
        """
        with self._changed:
            self._brought[number] = arguments
            while number not in self._taken and self._failure is None:
                if self._expected <= set(self._brought):
                    self._call(function)
                else:
                    self._changed.wait()
            if self._failure is not None:
                raise self._failure
            return self._taken.pop(number)

    def _call(self, function: Callable[..., Any]) -> None:
        """Call the program for what was brought; places of runs that are over are filled up."""
        numbers = sorted(self._brought)
        filled = numbers + numbers[:1] * (self._count - len(numbers))
        stacked = jax.tree.map(_stacked, *[self._brought[number] for number in filled])
        try:
            if self._program is None:
                self._program = compile_program(jax.vmap(function), *stacked)
            results = jax.tree.map(np.asarray, self._program(*stacked))
        except BaseException as error:
            self._failure = error
        else:
            for place, number in enumerate(numbers):
                self._taken[number] = jax.tree.map(lambda x, i=place: x[i], results)
        self._brought = {}
        self._changed.notify_all()


def _stacked(*leaves: Any) -> np.ndarray:
    return np.stack([np.asarray(leaf) for leaf in leaves])
