"""The sampler of Gymnasium environments: it wires a group of copies, a player and the update."""

from collections.abc import Callable

import numpy as np

from logpi.environments.host.choice import hindered, make_group, usable_cores
from logpi.environments.host.local import LocalGroup
from logpi.environments.spec import HostEnvironment
from logpi.methods.learner import Learner
from logpi.methods.method import Method
from logpi.networks.policy import Policy
from logpi.sampling.host.episodes import HostEpisodes
from logpi.sampling.host.player import Player
from logpi.sampling.host.program import UpdateProgram, trajectory_shapes
from logpi.sampling.host.streams import HostStreams
from logpi.sampling.seam import Advance, Episodes


class HostSampler:
    """Steps Gymnasium environments from Python."""

    def __init__(
        self,
        environment: HostEnvironment,
        count: int,
        seed: int,
        workers: int | None,
        interrupted: Callable[[], bool],
    ):
        self._environment = environment
        self._count = count
        self._seed = seed
        self._interrupted = interrupted
        # workers that the user asked for stay, whatever they cost
        self._may_give_up = workers is None
        self._group = make_group(environment, count, workers, usable_cores())

    def close(self) -> None:
        self._group.close()

    def evaluate(self, policy: Policy, episodes: int, deterministic: bool) -> Episodes:
        player = self._episodes()
        returns = []
        lengths = []
        for batch, first in enumerate(range(0, episodes, self._count)):
            started = min(self._count, episodes - first)
            return_, length = player.evaluate(policy, batch, started, deterministic)
            returns.append(return_)
            lengths.append(length)
        return Episodes(np.concatenate(returns), np.concatenate(lengths))

    def begin(self, method: Method, learner: Learner) -> Learner:
        return learner._replace(environment=self._player(method).begin(learner.policy))

    def advance(self, method: Method, learner: Learner, budget: int) -> Advance:
        """Sampling from Python, then the compiled update."""
        player = self._player(method)
        player.restore(learner.policy, learner.environment)
        seen = self._group.observation
        has_paid = method.rows is not None
        shapes = trajectory_shapes(learner.policy, seen, player.time, has_paid)
        program = UpdateProgram(method, budget, learner._replace(environment=None), shapes)

        def advance(learner: Learner, steps: int) -> tuple[Learner, list[dict[str, float]]]:
            batch = int(learner.batch)
            if self._may_give_up and hindered(self._group):
                self._give_up_workers(player, learner.policy, batch)
            trajectory, unfinished = player.sample(learner.policy, batch)
            updated, metrics = program(learner._replace(environment=None), trajectory)
            return updated._replace(environment=unfinished), [metrics]

        return advance

    def _player(self, method: Method) -> Player:
        """What plays the batches of a method."""
        if method.rows is None:
            return self._episodes()
        spec = self._environment.spec
        return HostStreams(spec, self._group, method.rows, self._seed, self._interrupted)

    def _episodes(self) -> HostEpisodes:
        return HostEpisodes(self._environment.spec, self._group, self._seed, self._interrupted)

    def _give_up_workers(self, player: Player, policy: Policy, batch: int) -> None:
        """Go on in this process alone if that leads to what the workers have; else they stay."""
        self._may_give_up = False
        alone = LocalGroup(self._environment, self._count)
        if player.move(alone, policy, batch):
            self._group.close()
            self._group = alone
        else:
            alone.close()
