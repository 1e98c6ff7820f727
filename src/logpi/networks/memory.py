"""What a policy remembers of an episode: nothing, or the state of a recurrent layer.

A memory turns observations into the features that the policy's network reads. Its state is one row
of `state_size` numbers for each environment, 0 at the start of an episode.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from logpi.core.arrays import AnyArray
from logpi.core.module import Module
from logpi.networks.layers import MLP, orthogonal

MemoryKind: TypeAlias = Literal["none", "gru", "lstm"]
# From observations to the features that a memory reads.
Encode: TypeAlias = Callable[[AnyArray], AnyArray]


@runtime_checkable
class Memory(Protocol):
    """The interface of a memory. m_t is its state after the observation o_t."""

    @property
    def state_size(self) -> int:
        """Numbers of m_t."""
        ...

    @property
    def recurrent(self) -> bool:
        """Whether m_t depends on the observations before o_t."""
        ...

    def features(self, encode: Encode, observation: AnyArray, state: AnyArray | None) -> AnyArray:
        """What the policy's network reads, from o_t and m_t."""
        ...

    def next_state(
        self,
        encode: Encode,
        observation: AnyArray,
        state: AnyArray,
        step: Int[AnyArray, "*env"] | None,
    ) -> AnyArray:
        """m_t from o_t and m_{t-1}, a row for each environment.

        Where `step` is 0, m_{t-1} is 0; no `step`: nowhere.
        """
        ...

    def states(
        self,
        encode: Encode,
        observation: AnyArray,
        state: AnyArray,
        step: Int[AnyArray, "time env"],
    ) -> AnyArray:
        """m_t in every row of `[time, env]` arrays, `state` being the one before row 0."""
        ...


class NoMemory(Module):
    """The memory of a policy that sees the last observation alone: a state of no numbers."""

    @property
    def state_size(self) -> int:
        return 0

    @property
    def recurrent(self) -> bool:
        return False

    def features(self, encode: Encode, observation: AnyArray, state: AnyArray | None) -> AnyArray:
        return encode(observation)

    def next_state(
        self,
        encode: Encode,
        observation: AnyArray,
        state: AnyArray,
        step: Int[AnyArray, "*env"] | None,
    ) -> AnyArray:
        return state

    def states(
        self,
        encode: Encode,
        observation: AnyArray,
        state: AnyArray,
        step: Int[AnyArray, "time env"],
    ) -> AnyArray:
        return jnp.zeros((*step.shape, 0))


class Recurrent(Module):
    """m_t = cell(W x_t + b, m_{t-1}), x_t being the features of o_t."""

    into: eqx.AbstractVar[MLP]

    @property
    def recurrent(self) -> bool:
        return True

    @abstractmethod
    def cell(
        self, x: Float[AnyArray, "*env gates"], state: Float[AnyArray, "*env state"]
    ) -> AnyArray:
        """m_t from m_{t-1} and the features, `x` being `into` of them."""

    def next_state(
        self,
        encode: Encode,
        observation: AnyArray,
        state: AnyArray,
        step: Int[AnyArray, "*env"] | None,
    ) -> AnyArray:
        return self.cell(self.into(encode(observation)), _forgotten(state, step))

    def states(
        self,
        encode: Encode,
        observation: AnyArray,
        state: AnyArray,
        step: Int[AnyArray, "time env"],
    ) -> AnyArray:
        def advance(state: AnyArray, row: tuple[Array, Array]) -> tuple[AnyArray, AnyArray]:
            x, step = row
            state = self.cell(x, _forgotten(state, step))
            return state, state

        x = jnp.asarray(self.into(encode(observation)))
        return jax.lax.scan(advance, jnp.asarray(state), (x, jnp.asarray(step)))[1]


class GRU(Recurrent):
    """h' = z h + (1 - z) tanh(W x + r (U h)), gates z, r = sigmoid(affine in x and h) (Cho et al.
    2014).
    """

    into: MLP
    within: Float[AnyArray, "_ _"]
    size: int = eqx.field(static=True)

    def __init__(self, features: int, size: int, random: np.random.Generator):
        self.into = MLP([features, 3 * size], 1.0, random)
        self.within = _recurrent_weights(3, size, random)
        self.size = size

    @property
    def state_size(self) -> int:
        return self.size

    def cell(
        self, x: Float[AnyArray, "*env gates"], state: Float[AnyArray, "*env size"]
    ) -> AnyArray:
        """h' from h and the features, `x` being `into` of them."""
        n = self.size
        inner = state @ self.within
        gates = _sigmoid(x[..., : 2 * n] + inner[..., : 2 * n])
        keep = gates[..., :n]
        reset = gates[..., n:]
        candidate = x[..., 2 * n :] + reset * inner[..., 2 * n :]
        return keep * state + (1 - keep) * candidate.__array_namespace__().tanh(candidate)

    def features(self, encode: Encode, observation: AnyArray, state: AnyArray | None) -> AnyArray:
        assert state is not None
        return state


class LSTM(Recurrent):
    """c' = f c + i tanh(g), h' = o tanh(c'), gates affine in x and h (Hochreiter & Schmidhuber
    1997).

    The state is [h, c] in one row; the forget gate starts near 1.
    """

    into: MLP
    within: Float[AnyArray, "_ _"]
    size: int = eqx.field(static=True)

    def __init__(self, features: int, size: int, random: np.random.Generator):
        self.into = MLP([features, 4 * size], 1.0, random)
        self.within = _recurrent_weights(4, size, random)
        self.size = size

    @property
    def state_size(self) -> int:
        return 2 * self.size

    def cell(
        self, x: Float[AnyArray, "*env gates"], state: Float[AnyArray, "*env state"]
    ) -> AnyArray:
        """[h', c'] from [h, c] and the features, `x` being `into` of them."""
        n = self.size
        xp = x.__array_namespace__()
        gates = x + state[..., :n] @ self.within
        into = _sigmoid(gates[..., :n])
        forget = _sigmoid(gates[..., n : 2 * n] + 1)
        out = _sigmoid(gates[..., 2 * n : 3 * n])
        cell = forget * state[..., n:] + into * xp.tanh(gates[..., 3 * n :])
        return xp.concatenate([out * xp.tanh(cell), cell], axis=-1)

    def features(self, encode: Encode, observation: AnyArray, state: AnyArray | None) -> AnyArray:
        assert state is not None
        return state[..., : self.size]


def make_memory(
    kind: MemoryKind, features: int, size: int, random: np.random.Generator
) -> NoMemory | GRU | LSTM:
    """The memory of a kind, which reads `features` numbers."""
    match kind:
        case "none":
            return NoMemory()
        case "gru":
            return GRU(features, size, random)
        case "lstm":
            return LSTM(features, size, random)


def _sigmoid(x: AnyArray) -> AnyArray:
    return 0.5 * (x.__array_namespace__().tanh(0.5 * x) + 1)


def _recurrent_weights(gates: int, size: int, random: np.random.Generator) -> Array:
    """One orthogonal matrix for each gate, side by side."""
    return jnp.concatenate([orthogonal(size, size, 1.0, random) for _ in range(gates)], axis=1)


def _forgotten(state: AnyArray, step: Int[AnyArray, "*env"] | None) -> AnyArray:
    """The state, 0 where `step` says that an episode starts."""
    if step is None:
        return state
    return state.__array_namespace__().where(step[..., None] == 0, 0.0, state)
