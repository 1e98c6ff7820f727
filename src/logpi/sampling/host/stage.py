"""The copies of some shares in one process, and what plays them."""

from collections.abc import Callable

from jaxtyping import PyTree
from numpy import ndarray

from logpi.environments.host.group import Group
from logpi.environments.host.local import make_group
from logpi.environments.spec import HostEnvironment
from logpi.networks.policy import Policy
from logpi.sampling.host.episodes import HostEpisodes
from logpi.sampling.host.player import Part, Player
from logpi.sampling.host.shares import Shares
from logpi.sampling.host.streams import HostStreams
from logpi.sampling.seam import Episodes


class Stage:
    """Plays batches and evaluations in its copies; a method of `rows` None plays whole episodes."""

    def __init__(
        self,
        environment: HostEnvironment,
        shares: Shares,
        seed: int,
        interrupted: Callable[[], bool],
    ):
        self._environment = environment
        self._spec = environment.spec
        self._shares = shares
        self._seed = seed
        self._interrupted = interrupted
        self._group = make_group(environment, shares.count)
        self._episodes = HostEpisodes(self._spec, self._group, shares, seed, interrupted)
        self._player: Player = self._episodes
        self._beside: Group | None = None

    def restore(self, policy: Policy, unfinished: PyTree, rows: int | None) -> None:
        """Bring the copies to where they stand before a batch of so many rows."""
        if rows is None:
            self._player = self._episodes
        else:
            self._player = HostStreams(
                self._spec, self._group, self._shares, rows, self._seed, self._interrupted
            )
        self._player.restore(policy, unfinished)

    def show(self, policy: Policy, batch: int) -> ndarray:
        """What the copies show before a batch, from where they stand."""
        return self._player.show(batch)

    def sample(self, policy: Policy, batch: int) -> Part:
        """The part of a batch that these copies play, from where they stand."""
        return self._player.sample(policy, batch)

    def evaluate(self, policy: Policy, numbers: range, deterministic: bool) -> Episodes:
        """The episodes of these numbers, from seeds that training never uses."""
        return self._episodes.evaluate(policy, numbers, deterministic)

    def evaluate_beside(self, policy: Policy, numbers: range, deterministic: bool) -> Episodes:
        """As `evaluate`, in copies of their own: those that train stay where they stand."""
        count = len(numbers)
        if self._beside is not None and len(self._beside.reward) < count:
            self._beside.close()
            self._beside = None
        if self._beside is None:
            self._beside = make_group(self._environment, count)
        first = self._shares.copies.start
        shares = Shares(range(first, first + len(self._beside.reward)), self._shares.size)
        episodes = HostEpisodes(self._spec, self._beside, shares, self._seed, self._interrupted)
        return episodes.evaluate(policy, numbers, deterministic)

    def close(self) -> None:
        """Release the environments."""
        self._group.close()
        if self._beside is not None:
            self._beside.close()
