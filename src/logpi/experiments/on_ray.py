"""Runs on a cluster of Ray, each a task of one processor.

Ray gives a task whose machine is gone to another, which resumes the run from its folder: all
machines must see that.
"""

import pickle
from collections.abc import Sequence
from typing import Any

from logpi.core.foreign import describe
from logpi.experiments.processes import Done
from logpi.experiments.task import Task
from logpi.sampling.host.ray_actors import Cluster
from logpi.sampling.seam import Ray

# A task whose machine is gone so often ends its run.
MOST_LOST = 10


def run_on_ray(tasks: Sequence[Task], options: Ray, done: Done) -> None:
    """Make the runs of all tasks; `done` hears of each, and why it has failed.

    **Raises:** `LogpiError` where there is no cluster; `KeyboardInterrupt`, with which Ray stops
    the runs under way.
    """
    packed = [task.packed() for task in tasks]
    cluster = Cluster(options)
    ray = cluster.ray
    perform = ray.remote(num_cpus=1, max_retries=MOST_LOST)(_perform)
    waiting: dict[Any, Task] = {}
    try:
        for each, task in zip(packed, tasks, strict=True):
            waiting[perform.remote(each)] = task
        while waiting:
            for reference in ray.wait(list(waiting), timeout=1.0)[0]:
                task = waiting.pop(reference)
                try:
                    failure = ray.get(reference)
                except ray.exceptions.RayError as error:
                    failure = describe(error).splitlines()[0]
                done(task, failure)
    except BaseException:
        for reference in waiting:
            ray.cancel(reference)
        raise
    finally:
        cluster.close()


def _perform(packed: bytes) -> str | None:
    """Make one run, in a process of Ray."""
    task: Task = pickle.loads(packed)
    return task.perform()
