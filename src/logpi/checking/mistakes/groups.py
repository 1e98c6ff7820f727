"""What stands in place of R(τ) where episodes are compared with others, as language models are
trained: a baseline of the sample, and a scale, in all their combinations.

The sample is the prompt's group or the batch; s are its R(τ), n is how many there are. An advantage
is [batch, episode, 1]: one number for all rows of an episode, those of its padding too.
"""

from collections.abc import Callable
from itertools import product
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy import ndarray

from logpi.checking.mistakes.advantages import LEAVE_OUT
from logpi.checking.mistakes.batches import Batches, sum_over, whitened
from logpi.checking.mistakes.forms import Factor, Mistake

Compute: TypeAlias = Callable[[Batches], ndarray]
GROUPS: Factor[Compute] = Factor()

# What people add so that no division is by 0.
EPSILONS = (1e-8, 1e-6, 1e-5, 1e-4)
NO_DIVISION = "leave out the division: Dr. GRPO, RLOO"


class Sample(NamedTuple):
    """Which episodes are compared: those of a prompt, or all of the batch."""

    name: str
    needs: tuple[str, ...]
    of_group: bool

    def same(self, batches: Batches) -> ndarray:
        """Whether two episodes are of one sample, [batch, episode, episode]."""
        if self.of_group:
            return batches.same_group
        return batches.same_call

    def sum(self, batches: Batches, x: ndarray) -> ndarray:
        """Sum over the sample of each episode, [batch, episode, 1]."""
        return sum_over(self.same(batches), x)

    def size(self, batches: Batches) -> ndarray:
        """n of each episode."""
        return self.same(batches).sum(axis=2)[:, :, None]


GROUP = Sample("the prompt's group", ("reward", "group"), True)
BATCH = Sample("the batch", ("reward",), False)


class Deviation(NamedTuple):
    """A deviation of a sample: `ddof` as in NumPy's std, and what is added so that no division is
    by 0, to the deviation or to the variance.
    """

    ddof: int
    epsilon: float
    inside: bool

    def of(self, batches: Batches, sample: Sample) -> ndarray:
        """[batch, episode, 1]; infinite where the sample is too small for one."""
        size = sample.size(batches)
        whole = batches.whole
        squares = (whole - sample.sum(batches, whole) / size) ** 2
        enough = size > self.ddof
        variance = sample.sum(batches, squares) / np.where(enough, size - self.ddof, 1)
        if self.inside:
            deviation = np.sqrt(variance + self.epsilon)
        else:
            deviation = np.sqrt(variance) + self.epsilon
        return np.where(enough, deviation, np.inf)

    @property
    def words(self) -> str:
        """Which of the two it is."""
        if self.ddof:
            return "sample standard deviation (ddof = 1, PyTorch's default)"
        return "standard deviation (ddof = 0)"


def less_mean(sample: Sample, by_length: bool = False, keeps_single: bool = False) -> Compute:
    """s_i - mean(s), own return included, with lengths for weights or without; of a single episode
    0, or s.
    """

    def advantage(batches: Batches) -> ndarray:
        whole = batches.whole
        weight = np.ones_like(whole)
        if by_length:
            weight = batches.length + 0.0
        mean = sample.sum(batches, weight * whole) / sample.sum(batches, weight)
        if keeps_single:
            mean = np.where(sample.size(batches) > 1, mean, 0.0)
        return whole - mean

    return advantage


def less_others(sample: Sample, keeps_single: bool) -> Compute:
    """s_i - the mean of the others; of a single episode s or 0."""

    def advantage(batches: Batches) -> ndarray:
        whole = batches.whole
        others = sample.size(batches) - 1
        mean = (sample.sum(batches, whole) - whole) / np.maximum(others, 1)
        return np.where(others > 0, whole - mean, whole if keeps_single else 0.0)

    return advantage


def divided(advantage: Compute, deviation: Deviation, sample: Sample) -> Compute:
    """The advantage over a deviation of the sample."""

    def scaled(batches: Batches) -> ndarray:
        return advantage(batches) / deviation.of(batches, sample)

    return scaled


def divided_unless_single(deviation: Deviation, sample: Sample) -> Compute:
    """(s_i - mean(s)) over a deviation; of a single episode s, whose mean is taken for 0 and whose
    deviation for 1.
    """
    several = divided(less_mean(sample), deviation, sample)

    def scaled(batches: Batches) -> ndarray:
        single = batches.whole / (1.0 + deviation.epsilon)
        return np.where(sample.size(batches) > 1, several(batches), single)

    return scaled


def _own_mean(sample: Sample) -> Mistake:
    said = f"the baseline is the mean return of {sample.name}, own sample included"
    return Mistake("own-sample-baseline", said, LEAVE_OUT)


def _single(sample: Sample) -> Mistake:
    said = f"an episode that is alone in {sample.name} has the weight 0: nothing is learned from it"
    return Mistake("group-of-one", said, "sample at least two, or let a single one keep its return")


def _division(sample: Sample, deviation: Deviation) -> Mistake:
    harm = f"over {sample.name}"
    if sample.of_group:
        harm += ": easy and hard prompts weigh more"
    return Mistake(
        "grpo-std",
        f"whole returns are divided by their {deviation.words} {harm}",
        NO_DIVISION,
        f"whole returns are divided by their deviation {harm}",
    )


@GROUPS.mistake(
    "unshaped-baseline",
    "the baseline is the mean of the plain rewards, own sample included, while what is weighed is"
    " shaped by the objective",
    "take the mean of what is weighed, of the other episodes",
    needs=("reward", "group", "plain_reward"),
    whole=True,
)
def less_plain_mean_of_group(batches: Batches) -> ndarray:
    return less_plain_mean(batches, GROUP)


@GROUPS.mistake(
    "unshaped-baseline",
    "the baseline is the mean of the plain rewards of the batch, own sample included, while what"
    " is weighed is shaped by the objective",
    "take the mean of what is weighed, of the other episodes",
    needs=("reward", "plain_reward"),
    whole=True,
)
def less_plain_mean_of_batch(batches: Batches) -> ndarray:
    return less_plain_mean(batches, BATCH)


def less_plain_mean(batches: Batches, sample: Sample) -> ndarray:
    """f_i - the mean return before the objective shaped it."""
    plain = np.sum(batches.fields["plain_reward"] * batches.mask, axis=2, keepdims=True)
    return batches.whole - sample.sum(batches, plain) / sample.size(batches)


DEVIATIONS = [
    Deviation(ddof, epsilon, inside)
    for ddof, epsilon, inside in product((1, 0), EPSILONS, (False, True))
]

for _epsilon in EPSILONS:
    _deviation = Deviation(1, _epsilon, inside=False)
    GROUPS.form((_division(GROUP, _deviation),), GROUP.needs, whole=True)(
        divided_unless_single(_deviation, GROUP)
    )

for _sample in (GROUP, BATCH):
    _mean = less_mean(_sample)
    _others = less_others(_sample, keeps_single=True)
    _others_or_none = less_others(_sample, keeps_single=False)
    GROUPS.form((), _sample.needs, whole=True)(_others)
    GROUPS.form((_single(_sample),), _sample.needs, whole=True)(_others_or_none)
    GROUPS.form((_own_mean(_sample),), _sample.needs, whole=True)(_mean)
    GROUPS.form((_own_mean(_sample),), _sample.needs, whole=True)(
        less_mean(_sample, keeps_single=True)
    )
    for _deviation in DEVIATIONS:
        _divided = _division(_sample, _deviation)
        # GRPO: the own mean is a part of what is meant by it
        for _centred in (_mean, _others, _others_or_none):
            GROUPS.form((_divided,), _sample.needs, whole=True)(
                divided(_centred, _deviation, _sample)
            )

for _deviation in DEVIATIONS:
    GROUPS.form((_division(BATCH, _deviation),), GROUP.needs, whole=True)(
        divided(less_mean(GROUP), _deviation, BATCH)
    )

BY_LENGTH = Mistake(
    "own-sample-baseline",
    "the baseline is the mean return of the prompt's group with lengths for weights (OPO), own"
    " sample included",
    LEAVE_OUT,
)
for _keeps_single in (False, True):
    GROUPS.form((BY_LENGTH,), GROUP.needs, whole=True)(less_mean(GROUP, True, _keeps_single))


WHITENED = Mistake(
    "whiten-batch",
    "advantages are shifted and scaled over the tokens of the batch (deliberate; a bias of order"
    " 1/N)",
    NO_DIVISION,
)


@GROUPS.form((_own_mean(GROUP), WHITENED), GROUP.needs, whole=True)
def less_mean_of_group_whitened(batches: Batches) -> ndarray:
    """REINFORCE++ with a baseline of the group."""
    centred = less_mean(GROUP, keeps_single=True)(batches)
    return whitened(batches, centred, Batches.over_batch, ddof=1, inside=True)
