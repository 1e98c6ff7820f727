"""Whether worker processes pay, measured in training: by the time of whole batches."""

# Seconds of training that are judged at a time: one batch may meet a pause of the whole machine.
WINDOW = 1.0
# Seconds that workers must save. Their start takes one to three of a core that training hardly
# uses; steps that are made meanwhile are no faster.
LEAST_SAVED = 0.5
# Seconds that a batch takes longer for being sent: messages, and arrays to be put side by side.
EXCHANGE = 1e-3


class Choice:
    """Compares what a step costs without workers and with them.

    One window is measured alone. Workers are tried where they would save more than they cost, and
    given up where training was slower with them in two windows one after another.
    """

    def __init__(self, parts: int):
        self._parts = parts
        self._total = 0.0
        self._sampling = 0.0
        self._steps = 0
        self._batches = 0
        self._alone: float | None = None
        self._saved_of_step = 0.0
        self._slower = 0

    @property
    def workers(self) -> int:
        """How many are tried."""
        return self._parts - 1

    def add(self, sampling: float, total: float, steps: int, is_alone: bool) -> bool:
        """Count a batch: seconds of sampling, of all, and its steps.

        Returns whether a window has ended with it, so that the choice may be another now.
        """
        self._sampling += sampling
        self._total += total
        self._steps += steps
        self._batches += 1
        if self._total < WINDOW:
            return False
        cost = self._total / self._steps
        if is_alone:
            self._alone = cost
            saved = self._sampling * (1 - 1 / self._parts) - EXCHANGE * self._batches
            self._saved_of_step = saved / self._steps
        elif self._alone is not None and cost > self._alone:
            self._slower += 1
        else:
            self._slower = 0
        self.begin_window()
        return True

    def begin_window(self) -> None:
        """Forget the batches of the window under way."""
        self._total = 0.0
        self._sampling = 0.0
        self._steps = 0
        self._batches = 0

    def is_worth_a_try(self, left: int, under_way: int) -> bool:
        """Whether workers would save more than `LEAST_SAVED` on the steps that are left, beyond
        the `under_way` steps that they would have to take again.
        """
        if self._alone is None:
            return False
        return self._saved_of_step * left > LEAST_SAVED + 2 * self._alone * under_way

    @property
    def was_wrong(self) -> bool:
        """Whether training is slower with workers."""
        return self._slower >= 2
