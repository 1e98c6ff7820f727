"""The places that play the batches of a run together, each its own shares."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from numpy import ndarray

from logpi.core.errors import LogpiError
from logpi.core.trajectory import Trajectory
from logpi.networks.policy import Policy
from logpi.sampling.host.place import Here, Place, PlaceLost, Request
from logpi.sampling.host.player import Part
from logpi.sampling.host.shares import Shares
from logpi.sampling.host.unfinished import UnfinishedReplay
from logpi.sampling.seam import Episodes

# A place that is lost so often in one batch ends the run.
MOST_LOST = 3
# Episodes of bandits and card games end within so many steps, whatever their time limit: what is
# computed from arrays of so few rows costs a fraction.
SHORT = 16
# Makes a place for some shares.
Open = Callable[[Shares], Place]


class Places:
    """All copies of a run, wherever they are played.

    A place that is lost is opened anew, and its part played again: the others keep what they have
    played. `tell_loss` is called once for each that is replaced.
    """

    def __init__(self, open_place: Sequence[tuple[Open, Shares]], tell_loss: Callable[[str], None]):
        self._open = [make for make, _ in open_place]
        self._tell_loss = tell_loss
        self._places: list[Place] = []
        try:
            for make, shares in open_place:
                self._places.append(make(shares))
        except BaseException:
            self.close()
            raise

    @property
    def is_alone(self) -> bool:
        """Whether this process plays everything."""
        return len(self._places) == 1 and isinstance(self._places[0], Here)

    def are_ready(self) -> bool:
        """Whether all of them would begin at once."""
        return all(place.is_ready() for place in self._places)

    def restore(
        self, policy: Policy, unfinished: UnfinishedReplay | None, rows: int | None
    ) -> None:
        """Bring all copies to where they stand before a batch of so many rows.

        **Raises:** `EnvironmentFault`, `Interrupted`; `LogpiError` where a place is lost too often.
        """

        def request(place: Place) -> Request:
            return _restore(place, policy, unfinished, rows)

        self._all(self._places, request, before=None)

    def show(self, policy: Policy, batch: int) -> ndarray:
        """What all copies show before a batch, from where they stand.

        **Raises:** as `restore`.
        """

        def request(place: Place) -> Request:
            return Request("show", policy, (batch,))

        return np.concatenate(self._all(self._places, request, before=None))

    def sample(
        self,
        policy: Policy,
        unfinished: UnfinishedReplay | None,
        batch: int,
        rows: int | None,
        time: int,
    ) -> tuple[Trajectory, UnfinishedReplay | None]:
        """A batch in arrays of `time` rows, from where the copies stand, and the episodes that it
        leaves unfinished. Whole episodes that are all short are in arrays of `SHORT` rows.

        **Raises:** as `restore`.
        """

        def request(place: Place) -> Request:
            return Request("sample", policy, (batch,))

        def before(place: Place) -> Request:
            return _restore(place, policy, unfinished, rows)

        parts: list[Part] = self._all(self._places, request, before)
        trajectories = [part.trajectory for part in parts]
        if rows is None and all(not each.mask[SHORT:].any() for each in trajectories):
            time = min(time, SHORT)
        trajectory = _side_by_side(trajectories, time)
        standings = [part.standing for part in parts if part.standing is not None]
        if unfinished is None:
            return trajectory, None
        return trajectory, unfinished.after(standings, trajectory)

    def evaluate(
        self, policy: Policy, numbers: range, deterministic: bool, beside: bool
    ) -> Episodes:
        """The episodes of these numbers, at most one a copy; `beside` training, or in its copies.

        **Raises:** as `restore`.
        """
        method = "evaluate_beside" if beside else "evaluate"

        def request(place: Place) -> Request:
            return Request(method, policy, (numbers[place.shares.columns], deterministic))

        busy = [place for place in self._places if numbers[place.shares.columns]]
        played: list[Episodes] = self._all(busy, request, before=None)
        returns = np.concatenate([episodes.returns for episodes in played])
        lengths = np.concatenate([episodes.lengths for episodes in played])
        return Episodes(returns, lengths)

    def close(self) -> None:
        """Release everything."""
        for place in self._places:
            place.close()

    def _all(
        self,
        places: Sequence[Place],
        request: Callable[[Place], Request],
        before: Callable[[Place], Request] | None,
    ) -> list[Any]:
        """What all of them answer. What one of them raises is raised when all have answered.

        Those that are lost are opened anew, all at once; `before` is what such a place must do
        first.
        """
        again = [request]
        if before is not None:
            again = [before, request]
        numbers = [self._places.index(place) for place in places]
        answers = self._ask(numbers, [request])
        losses = 0
        while lost := [number for number in numbers if isinstance(answers[number], PlaceLost)]:
            losses += 1
            for number in lost:
                copies = self._places[number].shares.copies
                what = f"copies {copies.start} to {copies.stop - 1}: {answers[number]}"
                if losses == MOST_LOST:
                    raise LogpiError(f"{what}; lost {losses} times in a row")
                self._tell_loss(f"{what}; their part of the batch is played again")
            self._open_anew(lost)
            answers |= self._ask(lost, again)
        for answer in answers.values():
            if isinstance(answer, LogpiError):
                raise answer
        return [answers[number] for number in numbers]

    def _ask(
        self, numbers: Sequence[int], requests: Sequence[Callable[[Place], Request]]
    ) -> dict[int, Any]:
        """Make the requests one after another, each of all places at once: what each place answers
        to the last one, or what it has raised.
        """
        answers: dict[int, Any] = {}
        for request in requests:
            going_on = [each for each in numbers if not isinstance(answers.get(each), Exception)]
            for number in going_on:
                place = self._places[number]
                place.ask(request(place))
            for number in going_on:
                try:
                    answers[number] = self._places[number].answer()
                except (PlaceLost, LogpiError) as error:
                    answers[number] = error
        return answers

    def _open_anew(self, numbers: Sequence[int]) -> None:
        """Other places for the shares of those that are lost."""
        for number in numbers:
            lost = self._places[number]
            lost.close()
            self._places[number] = self._open[number](lost.shares)


def _restore(
    place: Place, policy: Policy, unfinished: UnfinishedReplay | None, rows: int | None
) -> Request:
    """Have a place bring its copies to where they stand."""
    own = None if unfinished is None else unfinished.of(place.shares.columns)
    return Request("restore", policy, (own, rows))


def _side_by_side(parts: Sequence[Trajectory], time: int) -> Trajectory:
    """The columns of all parts in one trajectory of `time` rows."""
    if len(parts) == 1 and len(parts[0].mask) == time:
        return parts[0]

    def joined(*arrays: ndarray) -> ndarray:
        count = sum(array.shape[1] for array in arrays)
        whole = np.zeros((time, count, *arrays[0].shape[2:]), arrays[0].dtype)
        first = 0
        for array in arrays:
            whole[: len(array), first : first + array.shape[1]] = array[:time]
            first += array.shape[1]
        return whole

    memory = np.concatenate([np.asarray(part.memory) for part in parts])
    no_memory = np.zeros((1, 1))
    steps = [part._replace(memory=no_memory) for part in parts]
    return jax.tree.map(joined, *steps)._replace(memory=memory)
