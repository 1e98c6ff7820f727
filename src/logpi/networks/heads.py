"""From a network's output to an action distribution, and from its actions to what the environment
receives.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import equinox as eqx
import gymnasium as gym
import numpy as np
from jaxtyping import Float

from logpi.core.arrays import AnyArray
from logpi.core.errors import LogpiError
from logpi.core.module import Module
from logpi.core.quantities import bounds_of
from logpi.networks.distributions import (
    Categorical,
    ClippedNormal,
    Distribution,
    Normal,
    Product,
    TanhNormal,
    split_last,
)
from logpi.networks.layers import parameter
from logpi.networks.options import BoxLaw

# What arctanh is taken of at most: in single precision that of 1 is infinite.
LARGEST_TANH = 1 - 1e-6
# Laws of standard noise, each with the number of values of it that an action needs.
NoiseLaws: TypeAlias = tuple[tuple[Literal["gumbel", "normal"], int], ...]


@runtime_checkable
class Head(Protocol):
    """The interface of a head."""

    @property
    def size(self) -> int:
        """Number of outputs that the network must have, and of noise values that an action
        needs.
        """
        ...

    @property
    def noise_laws(self) -> NoiseLaws:
        """Laws of the standard noise that `sample` needs, in order."""
        ...

    def __call__(self, output: AnyArray) -> Distribution:
        """The distribution."""
        ...

    def execute(self, action: AnyArray) -> Any:
        """The environment's own action for a sampled one."""
        ...

    def sampled(self, executed: AnyArray) -> Any:
        """The sampled action that `execute` turns into this one, whose numbers are in one row:
        where many do, the nearest.
        """
        ...

    def is_clipped(self, action: AnyArray) -> Any:
        """Whether a sampled action is cut at a bound when it is executed, one flag for each."""
        ...


def draw_noise(
    head: Head, leading: tuple[int, ...], draw: Callable[[str, tuple[int, ...]], AnyArray]
) -> AnyArray:
    """Standard noise `[*leading, size]` for a head, `draw(law, shape)` being the source of each
    law's numbers.
    """
    parts = [draw(law, (*leading, count)) for law, count in head.noise_laws]
    if len(parts) == 1:
        return parts[0]
    return parts[0].__array_namespace__().concatenate(parts, axis=-1)


class CategoricalHead(Module):
    """Logits for `Discrete(n, start)`."""

    size: int = eqx.field(static=True)
    start: int = eqx.field(static=True)

    @property
    def noise_laws(self) -> NoiseLaws:
        return (("gumbel", self.size),)

    def __call__(self, output: Float[AnyArray, "*batch n"]) -> Categorical:
        """softmax of the outputs."""
        return Categorical(output)

    def execute(self, action: AnyArray) -> Any:
        """Counted from the space's own start."""
        return action + self.start

    def sampled(self, executed: AnyArray) -> Any:
        """Counted from 0."""
        return executed - self.start

    def is_clipped(self, action: AnyArray) -> Any:
        """Never."""
        return action.__array_namespace__().zeros(action.shape, bool)


class NormalHead(Module):
    """Mean from the network, one learned log standard deviation per dimension, in units of the
    Box's half range.

    A sampled u is executed as centre + half_range * clip(u, -1, 1), or with tanh(u) where the law
    is "tanh-normal"; dimensions without two finite bounds are executed as sampled, clipped at the
    one that is finite. The log-probability is that of u, or of what clip and tanh make of it where
    the law says so.
    """

    log_std: Float[AnyArray, " d"]
    low: tuple[float, ...] = eqx.field(static=True)
    high: tuple[float, ...] = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    law: BoxLaw = eqx.field(static=True)

    def __init__(self, space: gym.spaces.Box, law: BoxLaw, log_std: float):
        low, high = bounds_of(space)
        bounded = np.isfinite(low) & np.isfinite(high)
        if law != "normal" and not bounded.all():
            raise LogpiError(
                f"{law} actions need finite bounds in every dimension; the action space is {space}"
            )
        self.low = tuple(low.ravel().tolist())
        self.high = tuple(high.ravel().tolist())
        self.shape = space.shape
        self.law = law
        self.log_std = parameter(np.full(len(self.low), log_std))

    @property
    def size(self) -> int:
        """Number of action dimensions."""
        return len(self.low)

    @property
    def noise_laws(self) -> NoiseLaws:
        return (("normal", self.size),)

    @property
    def _is_squashed(self) -> bool:
        return self.law == "tanh-normal"

    def __call__(self, output: Float[AnyArray, "*batch d"]) -> Normal | ClippedNormal | TanhNormal:
        """Gaussian around the outputs."""
        log_std = output.__array_namespace__().broadcast_to(self.log_std, output.shape)
        match self.law:
            case "normal":
                return Normal(output, log_std)
            case "clipped-normal":
                bounds = _bounds(self.low, self.high, output.dtype)
                return ClippedNormal(output, log_std, bounds.least, bounds.most)
            case "tanh-normal":
                return TanhNormal(output, log_std)

    def execute(self, action: Float[AnyArray, "*batch d"]) -> Any:
        """Squashed or clipped to [-1, 1], then rescaled to the bounds; for JAX and for NumPy
        arrays.
        """
        bounds = _bounds(self.low, self.high, action.dtype)
        xp = action.__array_namespace__()
        if self._is_squashed:
            unit = xp.tanh(action)
        else:
            unit = xp.clip(action, bounds.least, bounds.most)
        # rounding may pass a bound
        executed = xp.clip(bounds.centre + bounds.half_range * unit, bounds.low, bounds.high)
        return executed.reshape(*action.shape[:-1], *self.shape)

    def sampled(self, executed: Float[AnyArray, "*batch d"]) -> Any:
        """In units of the half range, from the centre; arctanh of that where tanh is executed,
        which at a bound itself is cut to that of `LARGEST_TANH`.
        """
        bounds = _bounds(self.low, self.high, np.dtype(float))
        unit = (executed - bounds.centre) / bounds.half_range
        if not self._is_squashed:
            return unit
        xp = executed.__array_namespace__()
        return xp.arctanh(xp.clip(unit, -LARGEST_TANH, LARGEST_TANH))

    def is_clipped(self, action: Float[AnyArray, "*batch d"]) -> Any:
        """Whether any dimension lies beyond a bound; tanh cuts nothing."""
        xp = action.__array_namespace__()
        if self._is_squashed:
            return xp.zeros(action.shape[:-1], bool)
        bounds = _bounds(self.low, self.high, action.dtype)
        return ((action < bounds.least) | (action > bounds.most)).any(axis=-1)


class _Bounds(NamedTuple):
    """A Box in its own numbers, and in units of its half range.

    A dimension without two finite bounds has the centre 0 and the half range 1.
    """

    low: Float[np.ndarray, " d"]
    high: Float[np.ndarray, " d"]
    centre: Float[np.ndarray, " d"]
    half_range: Float[np.ndarray, " d"]
    least: Float[np.ndarray, " d"]
    most: Float[np.ndarray, " d"]


@functools.lru_cache
def _bounds(low: tuple[float, ...], high: tuple[float, ...], dtype: np.dtype) -> _Bounds:
    """They are needed at every step, and made once."""
    bounded = np.isfinite(low) & np.isfinite(high)
    finite_low = np.where(bounded, low, -1.0)
    finite_high = np.where(bounded, high, 1.0)
    numbers = (
        low,
        high,
        (finite_high + finite_low) / 2,
        (finite_high - finite_low) / 2,
        np.where(bounded, -1.0, low),
        np.where(bounded, 1.0, high),
    )
    return _Bounds(*(np.asarray(x, dtype) for x in numbers))


class ProductHead(Module):
    """Independent choices, each with a head of its own: MultiDiscrete, MultiBinary, Tuple and Dict
    actions.

    `shape` is that of a space of whole numbers; None for a Tuple or a Dict, which receives all
    numbers in one row.
    """

    parts: tuple[Head, ...]
    shape: tuple[int, ...] | None = eqx.field(static=True)

    @property
    def size(self) -> int:
        """Sum of those of the parts."""
        return sum(part.size for part in self.parts)

    @property
    def noise_laws(self) -> NoiseLaws:
        return tuple(law for part in self.parts for law in part.noise_laws)

    def __call__(self, output: Float[AnyArray, "*batch n"]) -> Product:
        """One distribution for each choice."""
        outputs = split_last(output, [part.size for part in self.parts])
        parts: Any = tuple(part(mine) for part, mine in zip(self.parts, outputs, strict=True))
        return Product(parts)

    def execute(self, action: AnyArray) -> Any:
        """Each choice as its own head executes it."""
        xp = action.__array_namespace__()
        leading = action.shape[:-1]
        parts = [part.execute(mine).reshape(*leading, -1) for part, mine in self._own(action)]
        executed = xp.concatenate(parts, axis=-1)
        if self.shape is None:
            return executed
        return executed.reshape(*leading, *self.shape)

    def sampled(self, executed: AnyArray) -> Any:
        """Each choice as its own head has sampled it."""
        parts = [part.sampled(mine) for part, mine in self._own(executed)]
        return executed.__array_namespace__().concatenate(parts, axis=-1)

    def is_clipped(self, action: AnyArray) -> Any:
        """Whether any part is."""
        leading = action.shape[:-1]
        xp = action.__array_namespace__()
        clipped = xp.zeros(leading, bool)
        for part, mine in self._own(action):
            clipped |= part.is_clipped(mine).reshape(*leading, -1).any(axis=-1)
        return clipped

    def _own(self, action: AnyArray) -> list[tuple[Head, AnyArray]]:
        """Each part with its numbers of the action."""
        widths = [1 if isinstance(part, CategoricalHead) else part.size for part in self.parts]
        return list(zip(self.parts, split_last(action, widths), strict=True))


def action_head(space: gym.Space, law: BoxLaw = "normal", log_std: float = -0.5) -> Head:
    """The head for an action space; `law` is that of its boxes, and `log_std` where their Gaussians
    start.

    **Raises:** `LogpiError` for a space that has none.
    """
    head = _head(space, law, log_std)
    if head.size == 0:
        raise LogpiError(f"action space {space} leaves nothing to choose")
    return head


def _head(space: gym.Space, law: BoxLaw, log_std: float) -> Head:
    match space:
        case gym.spaces.Discrete():
            return CategoricalHead(int(space.n), int(space.start))
        case gym.spaces.MultiDiscrete():
            choices = zip(space.nvec.ravel(), space.start.ravel(), strict=True)
            return ProductHead(
                tuple(CategoricalHead(int(n), int(start)) for n, start in choices), space.shape
            )
        case gym.spaces.MultiBinary():
            return ProductHead((CategoricalHead(2, 0),) * int(np.prod(space.shape)), space.shape)
        case gym.spaces.Box() if np.issubdtype(space.dtype, np.floating):
            return NormalHead(space, law, log_std)
        case gym.spaces.Tuple() | gym.spaces.Dict():
            return ProductHead(tuple(_leaf_heads(space, law, log_std)), None)
        case _:
            supported = (
                "Discrete, MultiDiscrete, MultiBinary, Box of floats, Tuple and Dict of these"
            )
            raise LogpiError(f"action space {space} is not supported; supported: {supported}")


def _leaf_heads(space: gym.Space, law: BoxLaw, log_std: float) -> list[Head]:
    """The heads of the leaves, in the order in which Gymnasium flattens."""
    match space:
        case gym.spaces.Tuple():
            return [head for part in space.spaces for head in _leaf_heads(part, law, log_std)]
        case gym.spaces.Dict():
            return [
                head for part in space.spaces.values() for head in _leaf_heads(part, law, log_std)
            ]
        case _:
            head = _head(space, law, log_std)
            if isinstance(head, ProductHead):
                return list(head.parts)
            return [head]
