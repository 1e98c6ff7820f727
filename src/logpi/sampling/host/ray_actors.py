"""Shares in actors of Ray (`pip install 'logpi[ray]'`), on as many machines as its cluster has.

Ray starts the actors, moves arrays between machines, and says when a machine is gone. What it moves
it pickles itself: a cluster is for people who trust each other.
"""

import contextlib
import faulthandler
import logging
import math
import os
import pickle
import signal
import time
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import jax
from numpy import ndarray
from threadpoolctl import threadpool_limits

from logpi.core.errors import LogpiError
from logpi.core.foreign import describe
from logpi.core.signals import CLOSING, raise_too_long
from logpi.environments.spec import HostEnvironment
from logpi.networks.policy import Policy
from logpi.sampling.host.kernels import Arithmetic, require_same_arithmetic
from logpi.sampling.host.place import (
    GRACE,
    LOOK,
    STARTING,
    Outcome,
    PlaceLost,
    Request,
    Worker,
)
from logpi.sampling.host.role import Role
from logpi.sampling.host.shares import Shares
from logpi.sampling.seam import Interrupted, Ray

# Seconds after which the clock of a step is set again.
_WATCH = 1.0
_STANDARD_ERROR = 2


class Cluster:
    """The cluster that plays for this process, which starts one where none runs.

    **Raises:** `LogpiError` where Ray is missing, or the cluster does not answer.
    """

    def __init__(self, options: Ray):
        try:
            self.ray: Any = import_module("ray")
        except ImportError:
            remedy = "pip install 'logpi[ray]'"
            raise LogpiError(f"rollouts on Ray need a package: {remedy}") from None
        self._is_own = not self.ray.is_initialized()
        if self._is_own:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            self._connect(options.address)
        self._known: tuple[Policy, Any] | None = None
        self._actors = 0

    def _connect(self, address: str | None) -> None:
        """Join the cluster at an address; without one, start one on this machine."""
        with warnings.catch_warnings():
            # its processes are other programs: they share no lock with the threads of this one
            warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)
            try:
                self.ray.init(address=address, include_dashboard=False, logging_level=logging.ERROR)
            except Exception as error:
                where = "on this machine" if address is None else f"at {address}"
                raise LogpiError(f"no cluster of Ray {where}: {describe(error)}") from error

    @property
    def cpus(self) -> int:
        """Processors of all its machines."""
        return max(1, int(self.ray.cluster_resources().get("CPU", 1)))

    def parameters(self, policy: Policy) -> Any:
        """A reference to the parameters of a policy, which are stored once for all actors."""
        if self._known is None or self._known[0] is not policy:
            self._known = (policy, self.ray.put(jax.tree.leaves(policy.on_host())))
        return self._known[1]

    def start_actor(self, role: bytes) -> Any:
        """A new actor, on a free processor if there is one."""
        # what Ray calls available is some seconds old
        free = min(self.ray.available_resources().get("CPU", 0), self.cpus - self._actors)
        options = {"num_cpus": 1 if free >= 1 else 0, "scheduling_strategy": "SPREAD"}
        self._actors += 1
        return self.ray.remote(**options)(Actor).remote(role)

    def stop_actor(self, actor: Any) -> None:
        """End an actor, whatever it does."""
        self._actors -= 1
        self.ray.kill(actor)

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        if self._is_own:
            self.ray.shutdown()


class Actor:
    """The side of Ray: plays what it is asked for.

    A step that hangs where no alarm reaches it ends the process, as the lost actor that it is.
    """

    def __init__(self, packed: bytes):
        role: Role = pickle.loads(packed)
        threadpool_limits(1, "blas")
        with contextlib.suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGALRM, raise_too_long)
        self._role = role
        self._worker = Worker(role, self._watch)
        self._watched_since = -math.inf

    def arithmetic(self) -> Arithmetic:
        """How this machine computes."""
        return Arithmetic.here(self._role.shares.size)

    def meet(self, policy: Policy) -> None:
        """Take the policy whose parameters will follow."""
        self._worker.meet(policy)

    def perform(
        self, method: str, leaves: Sequence[ndarray], arguments: tuple[Any, ...]
    ) -> Outcome:
        """What becomes of a request."""
        self._watch()
        try:
            return self._worker.perform(method, leaves, arguments)
        finally:
            faulthandler.cancel_dump_traceback_later()
            self._watched_since = -math.inf

    def close(self) -> None:
        """Release the environments."""
        self._worker.close()

    def _watch(self) -> bool:
        """Start the clock of a step anew; a player asks this as often as it can stop, which an
        actor never does.
        """
        limit = self._role.step_limit
        now = time.monotonic()
        if limit is not None and now - self._watched_since > _WATCH:
            self._watched_since = now
            longest = limit + GRACE + _WATCH
            faulthandler.dump_traceback_later(longest, exit=True, file=_STANDARD_ERROR)
        return False


class RayActor:
    """The parent's side of one actor."""

    def __init__(
        self,
        cluster: Cluster,
        environment: HostEnvironment,
        shares: Shares,
        seed: int,
        interrupted: Callable[[], bool],
        mixed_hardware: bool,
    ):
        self.shares = shares
        self._cluster = cluster
        self._interrupted = interrupted
        self._mixed_hardware = mixed_hardware
        self._actor = cluster.start_actor(Role.of(environment, shares, seed).packed())
        self._arithmetic: Any = self._actor.arithmetic.remote()
        self._knows_policy = False
        self._asked: Any = None

    def ask(self, request: Request) -> None:
        """The first request brings the policy, the later ones its parameters."""
        if not self._knows_policy:
            self._actor.meet.remote(request.policy.on_host())
            self._knows_policy = True
        parameters = self._cluster.parameters(request.policy)
        self._asked = self._actor.perform.remote(request.method, parameters, request.arguments)

    def answer(self) -> Any:
        if self._arithmetic is not None:
            arithmetic = self._wait_for(self._arithmetic, STARTING)
            self._arithmetic = None
            require_same_arithmetic(arithmetic, self.shares.size, self._mixed_hardware)
        outcome: Outcome = self._wait_for(self._asked, None)
        self._asked = None
        return outcome.result()

    def is_ready(self) -> bool:
        return True

    def close(self) -> None:
        """An idle actor closes its environments; one that plays, or hangs, is killed."""
        ray = self._cluster.ray
        with contextlib.suppress(Exception):  # of an actor that is gone
            if self._asked is None:
                ray.wait([self._actor.close.remote()], timeout=CLOSING)
            self._cluster.stop_actor(self._actor)

    def _wait_for(self, answer: Any, limit: float | None) -> Any:
        """What a method of the actor returns, which may take `limit` seconds.

        **Raises:** `PlaceLost`, `Interrupted`.
        """
        ray = self._cluster.ray
        begun = time.monotonic()
        while not ray.wait([answer], timeout=LOOK)[0]:
            if self._interrupted():
                raise Interrupted
            if limit is not None and time.monotonic() - begun > limit:
                raise PlaceLost(f"its actor has not started for {limit:g} s")
        try:
            return ray.get(answer)
        except ray.exceptions.RayError as error:
            what = str(error).splitlines()[0]  # the others are for the authors of Ray
            raise PlaceLost(f"its actor is gone: {type(error).__name__}: {what}") from None
