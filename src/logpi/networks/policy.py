"""π(a|s; θ) as an Equinox module, built from an environment's spaces.

What acting needs is written for JAX and for NumPy arrays alike: for a handful of environments
NumPy, with `policy.on_host()`, has answered before a compiled call has started.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import equinox as eqx
import gymnasium as gym
import jax
import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from logpi.core.arrays import AnyArray, float_dtype
from logpi.core.checks import shown
from logpi.core.errors import LogpiError
from logpi.core.module import Module
from logpi.networks.distributions import Distribution
from logpi.networks.encoder import Encoder, hidden_widths
from logpi.networks.heads import Head, action_head, draw_noise
from logpi.networks.layers import MLP
from logpi.networks.memory import Memory, make_memory
from logpi.networks.options import NetworkOptions
from logpi.networks.user_network import UserNetwork, make_user_network

# What an environment gives: an array, or the parts of a Dict or Tuple space.
Observation: TypeAlias = ArrayLike | int | float | Mapping[str, object] | tuple[object, ...]

# The logit of an action that is not allowed: its probability is exactly 0, and nothing is infinite.
FORBIDDEN = -1e9


@dataclass(frozen=True)
class Unflattened:
    """The space of what an environment gives, where policies see it in one row."""

    space: gym.Space

    def __hash__(self) -> int:
        return hash(repr(self.space))

    def flatten(self, observation: Observation) -> np.ndarray:
        """The numbers of one observation in a row.

        **Raises:** `LogpiError` for what is no observation of the space.
        """
        try:
            if self.space.shape is None or _shape_of(observation) == self.space.shape:
                return np.asarray(gym.spaces.flatten(self.space, observation))
        except (LookupError, TypeError, ValueError, AttributeError):
            pass
        raise LogpiError(f"the observation {shown(observation)} is none of {shown(self.space)}")


class Policy(Module):
    """π(·|s; θ): encoder, memory, network, head.

    m_t is what the policy remembers of o_0 … o_t, and m_{-1} = 0: no numbers at all for a policy
    without a memory. If `masked`, an observation begins with the action mask, one number per logit:
    where it is 0 the action has probability 0. Sampling, log π, entropy and KL are those of this
    one law. Observations are seen from the `origin` of their environment: `act` subtracts it, the
    other methods take what is left. `act` also takes observations as they were before the
    environment's wrappers flattened them.
    """

    encoder: Encoder
    memory: Memory
    network: MLP | UserNetwork
    head: Head
    masked: bool = eqx.field(static=True, default=False)
    origin: tuple[float, ...] | None = eqx.field(static=True, default=None)
    unflattened: Unflattened | None = eqx.field(static=True, default=None)

    def __call__(self, observation: AnyArray, memory: AnyArray | None = None) -> Distribution:
        """The action distribution for observations with any leading dimensions.

        `memory` is m_t; a policy without a memory does not need it.
        """
        features = self.memory.features(self.encoder, observation, memory)
        return self._law(self.network(features), observation)

    def hidden(self, observation: AnyArray) -> AnyArray:
        """What the last layer reads, for a policy without a memory or a user's network."""
        assert isinstance(self.network, MLP)
        return self.network.hidden(self.encoder(observation))

    def from_hidden(self, hidden: AnyArray, observation: AnyArray) -> Distribution:
        """The action distribution where `hidden` of these observations is known."""
        assert isinstance(self.network, MLP)
        return self._law(self.network.last(hidden), observation)

    def _law(self, output: AnyArray, observation: AnyArray) -> Distribution:
        """The law of the network's output, with the mask of the observations."""
        if self.masked:
            allowed = observation[..., : self.head.size] > 0
            output = output.__array_namespace__().where(allowed, output, FORBIDDEN)
        return self.head(output)

    def initial_memory(self, count: int) -> Float[np.ndarray, "env state"]:
        """m_{-1} of `count` episodes."""
        return np.zeros((count, self.memory.state_size), float_dtype())

    def next_memory(
        self, observation: AnyArray, memory: AnyArray, step: Int[AnyArray, "*env"] | None = None
    ) -> Any:
        """m_t from o_t and m_{t-1}, one row for each environment.

        Where `step` is 0 an episode starts, and m_{t-1} is forgotten. By default none starts.
        """
        return self.memory.next_state(self.encoder, observation, memory, step)

    def memories(
        self,
        observation: AnyArray,
        step: Int[AnyArray, "time env"],
        memory: Float[AnyArray, "env state"],
    ) -> Any:
        """m_t in every row of `[time, env]` arrays, `memory` being what was known before row 0."""
        return self.memory.states(self.encoder, observation, memory, step)

    def distributions(
        self,
        observation: AnyArray,
        step: Int[AnyArray, "time env"],
        memory: Float[AnyArray, "env state"],
    ) -> Distribution:
        """The action distributions in every row of `[time, env]` arrays."""
        return self(observation, self.memories(observation, step, memory))

    def execute(self, action: AnyArray) -> Any:
        """What the environment receives for a sampled action."""
        return self.head.execute(action)

    def on_host(self) -> "Policy":
        """The same policy with NumPy parameters, to act from Python."""
        return jax.tree.map(np.asarray, self)

    def act(
        self,
        observation: Observation,
        random: np.random.Generator | None = None,
        memory: AnyArray | None = None,
    ) -> np.ndarray:
        """What to do: the environment's action for one observation, or for a batch of them.

        An observation of a Dict or Tuple space is taken one at a time, as the environment gives it;
        in a batch, each is a row in the order in which Gymnasium flattens.

        The most probable action, or with `random` one that is drawn from π(·|s). A policy with a
        memory needs m_t: start with `memory = policy.initial_memory(count)`, and before each action
        take `memory = policy.next_memory(observations, memory)`. The action of a Tuple or Dict
        space is its numbers in one row, in the order in which Gymnasium flattens.

        **Raises:** `LogpiError` where the observation does not have the shape that the policy was
        made for, or `memory` is missing.
        """
        array = self._as_observation(observation)
        known = random is None or isinstance(random, np.random.Generator)
        if not known:
            raise LogpiError(
                f"random must be a generator such as np.random.default_rng(0), got {random!r}"
            )
        if self.memory.recurrent and memory is None:
            raise LogpiError(
                "this policy has a memory: give act the `memory` that policy.next_memory returns"
            )

        def draw(law: str, shape: tuple[int, ...]) -> np.ndarray:
            if random is None:
                return np.zeros(shape, float_dtype())
            return getattr(random, law)(size=shape).astype(float_dtype())

        leading = array.shape[: array.ndim - len(self.encoder.shape)]
        noise = draw_noise(self.head, leading, draw)
        sampled = np.asarray(self(array, memory).sample(noise))
        return np.asarray(self.execute(sampled))

    def _as_observation(self, observation: Observation) -> np.ndarray:
        """The observation as an array.

        **Raises:** `LogpiError` where it is not one that the policy was made for.
        """
        shape = self.encoder.shape
        numbers: Any = observation
        if self.unflattened is not None and _shape_of(observation)[-1:] != shape:
            numbers = self.unflattened.flatten(observation)
        try:
            array = np.asarray(numbers)
        except ValueError:
            raise LogpiError("the observation is no array") from None
        if array.dtype.kind not in "fiub" or not np.isfinite(array).all():
            raise LogpiError(
                f"the observation holds something else than finite numbers: {shown(observation)}"
            )
        if array.shape[array.ndim - len(shape) :] != shape:
            raise LogpiError(
                f"the observation has shape {array.shape}, the policy was made for {shape}"
            )
        if self.origin is None:
            return array
        return array - np.reshape(self.origin, shape)


def make_policy(
    observation_space: gym.Space,
    action_space: gym.Space,
    options: NetworkOptions,
    random: np.random.Generator,
    masked: bool = False,
    origin: tuple[float, ...] | None = None,
    unflattened: gym.Space | None = None,
) -> Policy:
    """A policy for the spaces; nearly uniform at the start, because the last layer is small."""
    head = action_head(action_space, options.actions, options.initial_log_std)
    raw = options.network is not None and options.memory == "none"
    standardise = options.normalize_observations
    encoder = Encoder(observation_space, random, standardise, raw, unflattened)
    memory = make_memory(options.memory, encoder.size, options.memory_size, random)
    if memory.recurrent:
        features = (options.memory_size,)
    else:
        features = encoder.features
    if options.network is not None:
        network = make_user_network(options.network, features, head.size, random)
    else:
        sizes = [*features, *hidden_widths(options, encoder), head.size]
        network = MLP(sizes, 0.01, random)
    before = None if unflattened is None else Unflattened(unflattened)
    return Policy(encoder, memory, network, head, masked, origin, before)


def _shape_of(observation: Observation) -> tuple[int, ...]:
    """The shape of an array, or of what becomes one; none for anything else."""
    try:
        return np.asarray(observation).shape
    except ValueError:  # parts of several lengths
        return ()
