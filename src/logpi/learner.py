"""What learning carries from one batch to the next."""

import dataclasses
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int, PyTree, UInt32

from logpi.algorithm import NPG, Algorithm, OneLoss, Reinforce
from logpi.encoder import Encoder
from logpi.envs.base import EnvironmentSpec
from logpi.module import Module
from logpi.policy import Policy, ValueFunction, as_vector, make_policy, make_value_function
from logpi.randomness import Stream, numpy_generator
from logpi.reference import require_same_form
from logpi.trajectory import Scalar, Trajectory

Metrics: TypeAlias = dict[str, Scalar]


class Learner(Module):
    """What the next update needs, and nothing else: parameters, optimiser states, how far, and where the episodes are.

    A2C and PPO descend one loss of policy and value function: `policy_optimizer` is then that of both. `environment`
    is the sampler's, who leaves its unfinished episodes there; None where episodes end with the batch.
    """

    policy: Policy
    value: ValueFunction | None
    policy_optimizer: optax.OptState
    value_optimizer: optax.OptState
    batch: Int[Array, ""]
    steps: UInt32[Array, ""]
    seed: UInt32[Array, ""]
    environment: PyTree = None
    reference: Policy | None = None
    """What the policy started from and stays near, if the configuration names one."""

    @property
    def critic(self) -> ValueFunction:
        """The value function of a learner that has one."""
        assert self.value is not None
        return self.value.reading(self.policy)


def with_environment(learner: Learner, unfinished: PyTree) -> Learner:
    """The same learner, elsewhere in its episodes; ten times faster than `dataclasses.replace`.

    Equinox keeps whatever its `__new__` makes alive until `__init__` is done, hence that of `object`.
    """
    elsewhere = object.__new__(Learner)
    vars(elsewhere).update(vars(learner), environment=unfinished)
    return elsewhere


def learned(learner: Learner, trajectory: Trajectory) -> Learner:
    """The learner for the next batch: this one's observations in the statistics of its encoders, and counted."""
    encodes = lambda x: isinstance(x, Encoder)
    observed = lambda x: x.observe(trajectory.observation, trajectory.mask) if encodes(x) else x
    policy, value = jax.tree.map(observed, (learner.policy, learner.value), is_leaf=encodes)
    steps = learner.steps + jnp.sum(trajectory.mask, dtype=jnp.uint32)
    return dataclasses.replace(learner, policy=policy, value=value, batch=learner.batch + 1, steps=steps)


def make_learner(config: Algorithm, spec: EnvironmentSpec, seed: int) -> Learner:
    """The learner before its first batch."""
    random = numpy_generator(seed, Stream.INITIALISATION)
    whole_episodes = isinstance(config, Reinforce)
    policy = make_policy(
        spec.observation_space,
        spec.action_space,
        config.hidden,
        random,
        squash=config.actions == "tanh-normal",
        log_std=config.initial_log_std,
        standardise=config.normalize_observations,
        masked=spec.masked,
        memory=config.memory,
        memory_size=config.memory_size,
        network=config.network,
    )
    value = None
    if not whole_episodes or config.baseline == "value":
        horizon = spec.max_episode_steps if whole_episodes else None
        remembered = 0 if whole_episodes or policy.memory is None else policy.memory.state_size
        trunk = policy if isinstance(config, OneLoss) and config.shared_trunk else None
        space = spec.observation_space
        standardise = config.normalize_observations
        value = make_value_function(space, config.hidden, horizon, random, standardise, remembered, trunk)
    if isinstance(config, Reinforce):
        moments = _adam_state(policy), _adam_state(value)
    elif isinstance(config, NPG):
        moments = (), _adam_state(value)
    else:
        moments = _adam_state((policy, value)), ()
    zero, steps, number = (jax.device_put(x) for x in (np.int32(0), np.uint32(0), np.uint32(seed)))
    reference = None if config.reference is None else policy
    return Learner(policy, value, *moments, batch=zero, steps=steps, seed=number, reference=reference)


def started_from(learner: Learner, reference: Policy, source: str) -> Learner:
    """A learner whose policy begins as `reference`, which `source` names.

    **Raises:** `LogpiError` where that is another kind of policy.
    """
    require_same_form(learner.policy, reference, source)
    arrays, rest = eqx.partition(learner.policy, eqx.is_array)
    parameters = jax.device_put(jax.tree.leaves(eqx.filter(reference, eqx.is_array)))
    policy = eqx.combine(jax.tree.unflatten(jax.tree.structure(arrays), parameters), rest)
    return dataclasses.replace(learner, policy=policy, reference=policy)


def _adam_state(tree: Any) -> optax.OptState:
    """Adam's state before the first step, which is all zeros: made without compiling anything."""
    shapes = jax.eval_shape(lambda: optax.scale_by_adam().init(as_vector(tree)[0]))
    return jax.tree.map(lambda leaf: jax.device_put(np.zeros(leaf.shape, leaf.dtype)), shapes)
