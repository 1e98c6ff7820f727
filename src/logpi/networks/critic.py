"""The value function V(s, t; w), and the units in which it works."""

from collections.abc import Callable
from dataclasses import replace

import equinox as eqx
import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from logpi.core.arrays import AnyArray, Number, float_dtype, masked_mean, masked_variance
from logpi.core.module import Module
from logpi.networks.encoder import Encoder, hidden_widths
from logpi.networks.layers import MLP, parameter
from logpi.networks.options import NetworkOptions
from logpi.networks.policy import Policy

# The scale of returns that are all 0.
LEAST_SCALE = 1e-8


class Units(Module):
    """The units in which V works, and how far it is trusted: statistics of the returns, not
    trained.

    `offset` and `scale` are those of the returns last fitted. `trust` is the slope of the last
    batch's returns on V, clipped to [0, 1]: 0 at the start, 1 once V explains the returns.
    """

    offset: Float[AnyArray, ""]
    scale: Float[AnyArray, ""]
    trust: Float[AnyArray, ""]


class ValueFunction(Module):
    """V(s, t; w), the expected return from step t: offset + scale * network(s, t / horizon).

    A baseline may depend on anything but the action, so V is told the time: with a time limit, the
    undiscounted return depends on how many steps are left (Pardo et al. 2018). Where V looks beyond
    the limit there is no `horizon`, and V is of the state alone. The critic of a rollout reads the
    policy's memory m_t too, which it does not train. In the units of `Units` the network works with
    numbers near 1 whatever the size of the rewards.

    `encoder` is None where V reads what a policy's last layer reads: `reading` lends it the
    policy's layers.
    """

    encoder: Callable[[AnyArray], AnyArray] | None
    network: MLP
    units: Units
    horizon: int | None = eqx.field(static=True)

    def __call__(
        self,
        observation: AnyArray,
        step: Int[AnyArray, "*batch"],
        memory: Float[AnyArray, "*batch state"] | None = None,
    ) -> Float[Array, "*batch"]:
        """V for observations with any leading dimensions, `step` being t and `memory` m_t."""
        assert self.encoder is not None
        features = [self.encoder(observation)]
        if memory is not None:
            features.append(jax.lax.stop_gradient(memory))
        if self.horizon is not None:
            time = (step / self.horizon).astype(float_dtype())
            features.append(time[..., None])
        if len(features) == 1:
            x = features[0]
        else:
            x = jnp.concatenate(features, axis=-1)
        standardised = self.network(x)[..., 0]
        return jnp.asarray(self.units.offset + self.units.scale * standardised)

    def reading(self, policy: Policy) -> "ValueFunction":
        """The same V with the layers of `policy`, if it has none of its own."""
        if self.encoder is not None:
            return self
        return replace(self, encoder=policy.hidden)

    def from_hidden(self, hidden: AnyArray) -> "ValueFunction":
        """The same V for observations of which the policy's `hidden` is known."""

        def known(_: AnyArray) -> AnyArray:
            return hidden

        return replace(self, encoder=known)


def make_value_function(
    observation_space: gym.Space,
    options: NetworkOptions,
    random: np.random.Generator,
    horizon: int | None = None,
    memory_size: int = 0,
    unflattened: gym.Space | None = None,
) -> ValueFunction:
    """V = 0, with offset 0 and scale 1, which reads `memory_size` numbers of a policy's memory.

    Starting at 0 assumes nothing about the size of the rewards.
    """
    standardise = options.normalize_observations
    encoder = Encoder(observation_space, random, standardise, unflattened=unflattened)
    time = 0 if horizon is None else 1
    sizes = [encoder.size + memory_size + time, *hidden_widths(options, encoder), 1]
    return ValueFunction(encoder, MLP(sizes, 0.0, random), _first_units(), horizon)


def make_value_on_trunk(policy: Policy, random: np.random.Generator) -> ValueFunction:
    """V = 0 with no layers but its last, which reads what the policy's last layer reads."""
    assert isinstance(policy.network, MLP)
    size, _ = policy.network.weights[-1].shape
    return ValueFunction(None, MLP([size, 1], 0.0, random), _first_units(), None)


def _first_units() -> Units:
    zero = parameter(np.zeros(()))
    one = parameter(np.ones(()))
    return Units(offset=zero, scale=one, trust=zero)


def restandardise(
    value: ValueFunction,
    return_: Float[Array, "time env"],
    mask: Bool[AnyArray, "time env"],
    rate: Number = 1.0,
) -> ValueFunction:
    """The same function V, with its offset and scale moved by `rate` to those of the new returns.

    The output layer is rewritten so that V does not change (PopArt, van Hasselt et al. 2016). A
    batch without a step changes nothing.
    """
    old = value.units
    rate = rate * jnp.any(mask)
    mean = masked_mean(return_, mask)
    variance = masked_variance(return_, mask)
    offset = old.offset + rate * (mean - old.offset)
    spread = old.scale**2 + rate * (mean - old.offset) ** 2
    scale = jnp.sqrt((1 - rate) * spread + rate * variance)
    # returns that are all equal have no deviation
    scale = jnp.maximum(scale, 1e-3 * jnp.abs(offset) + LEAST_SCALE)
    weight = value.network.weights[-1] * old.scale / scale
    bias = (value.network.biases[-1] * old.scale + old.offset - offset) / scale
    units = Units(offset, scale, jnp.asarray(old.trust))
    return eqx.tree_at(
        lambda v: (v.network.weights[-1], v.network.biases[-1], v.units),
        value,
        (weight, bias, units),
    )
