"""How a policy and a value function look, and what they see."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from logpi.core.arrays import Number
from logpi.core.checks import require
from logpi.core.options import (
    COUNT,
    FILE_SOURCE,
    FINITE,
    NOT_NEGATIVE,
    RUN_FOLDER,
    WIDTHS,
    Options,
    option,
)

# Laws of the actions of a Box.
BoxLaw: TypeAlias = Literal["normal", "clipped-normal", "tanh-normal"]
# Widths of the hidden layers where nothing else is asked for.
USUAL_WIDTHS = (64, 64)


@dataclass(frozen=True, kw_only=True)
class NetworkOptions(Options):
    """What every method has, whatever its loss."""

    hidden: tuple[int, ...] | None = option(None, WIDTHS)
    """Widths of the tanh hidden layers of policy and value function; by default 64 64, or for an
    image its convolutions alone, which A2C and PPO then share with the critic. Empty: a linear
    model, which is a table for Discrete observations."""
    actions: BoxLaw = option("normal")
    """Law of Box actions: a Gaussian, clipped to the bounds when it is executed; the law of what is
    then executed, which has less variance (Fujita & Maeda 2018); or a Gaussian squashed by tanh."""
    initial_log_std: float = option(-0.5, FINITE)
    """Log of the Gaussian's standard deviation at the start, in units of half the range of the box.
    It is learned."""
    normalize_observations: bool = option(True)
    """Standardise observations by running statistics, which are frozen within a batch and kept in
    the policy."""
    network: str | None = option(None, FILE_SOURCE)
    """FILE.py:NAME of a function (features, outputs, key) -> Equinox module, which replaces the
    policy's network."""
    memory: Literal["none", "gru", "lstm"] = option("none")
    """What the policy remembers of an episode: nothing, or the state of a recurrent layer below its
    network."""
    memory_size: int = option(64, COUNT)
    """Width of the recurrent layer."""
    reference: str | None = option(None, RUN_FOLDER)
    """Run folder of a policy to start from and to stay near."""
    reference_coefficient: Number = option(0.0, NOT_NEGATIVE)
    """How much of log(π/π_ref) of each action is subtracted from its reward, so that the distance
    becomes part of J."""

    def _require_consistent(self) -> None:
        super()._require_consistent()
        given = self.reference_coefficient
        allowed = self.reference is not None or bool(given == 0)
        require(allowed, "reference_coefficient", "0 without a reference", given)
