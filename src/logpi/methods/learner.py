"""What learning carries from one batch to the next."""

from typing import NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int, PyTree, UInt32

from logpi.core.arrays import Scalar
from logpi.core.trajectory import Trajectory
from logpi.methods.reference import require_same_form
from logpi.networks.critic import ValueFunction
from logpi.networks.encoder import Encoder
from logpi.networks.options import NetworkOptions
from logpi.networks.parameters import as_vector
from logpi.networks.policy import Policy

Metrics: TypeAlias = dict[str, Scalar]


class Learner(NamedTuple):
    """What the next update needs, and nothing else.

    `policy_optimizer` and `value_optimizer` are the moments of Adam; where policy and critic
    descend one loss, the first holds those of both. `environment` is the sampler's, which leaves
    its unfinished episodes there; None where episodes end with the batch. `reference` is the policy
    that training started from and stays near, if the options name one. `method_state` is what a
    method itself carries on.
    """

    policy: Policy
    value: ValueFunction | None
    policy_optimizer: optax.OptState
    value_optimizer: optax.OptState
    batch: Int[Array, ""]
    steps: UInt32[Array, "2"]
    seed: UInt32[Array, ""]
    environment: PyTree = None
    reference: Policy | None = None
    method_state: PyTree = ()

    @property
    def critic(self) -> ValueFunction:
        """The value function of a learner that has one."""
        assert self.value is not None
        return self.value.reading(self.policy)


def make_learner(
    options: NetworkOptions,
    policy: Policy,
    value: ValueFunction | None,
    optimizers: tuple[optax.OptState, optax.OptState],
    seed: int,
) -> Learner:
    """The learner before its first batch."""
    policy_optimizer, value_optimizer = optimizers
    return Learner(
        policy=policy,
        value=value,
        policy_optimizer=policy_optimizer,
        value_optimizer=value_optimizer,
        batch=jax.device_put(np.int32(0)),
        steps=jax.device_put(np.zeros(2, np.uint32)),
        seed=jax.device_put(np.uint32(seed)),
        reference=None if options.reference is None else policy,
    )


def adam_state(tree: PyTree) -> optax.OptState:
    """Adam's state before the first step, which is all zeros: made without compiling anything."""
    shapes = jax.eval_shape(lambda: optax.scale_by_adam().init(as_vector(tree)[0]))
    return jax.tree.map(lambda leaf: jax.device_put(np.zeros(leaf.shape, leaf.dtype)), shapes)


def observed(learner: Learner, trajectory: Trajectory) -> Learner:
    """The learner with the observations of a batch in the statistics of its encoders."""

    def is_encoder(x: PyTree) -> bool:
        return isinstance(x, Encoder)

    def observe(x: PyTree) -> PyTree:
        if is_encoder(x):
            return x.observe(trajectory.observation, trajectory.mask)
        return x

    networks = (learner.policy, learner.value)
    policy, value = jax.tree.map(observe, networks, is_leaf=is_encoder)
    return learner._replace(policy=policy, value=value)


def count_batch(learner: Learner, trajectory: Trajectory) -> Learner:
    """The learner for the next batch: this batch is counted, and its observations are in the
    statistics of the encoders.
    """
    learner = observed(learner, trajectory)
    low = learner.steps[0] + jnp.sum(trajectory.mask, dtype=jnp.uint32)
    carried = low < learner.steps[0]
    steps = jnp.stack([low, learner.steps[1] + carried])
    return learner._replace(batch=learner.batch + 1, steps=steps)


def start_from(learner: Learner, reference: Policy, source: str) -> Learner:
    """A learner whose policy begins as `reference`, which `source` names.

    **Raises:** `LogpiError` where that is another kind of policy.
    """
    require_same_form(learner.policy, reference, source)
    arrays, rest = eqx.partition(learner.policy, eqx.is_array)
    parameters = jax.device_put(jax.tree.leaves(eqx.filter(reference, eqx.is_array)))
    policy = eqx.combine(jax.tree.unflatten(jax.tree.structure(arrays), parameters), rest)
    return learner._replace(policy=policy, reference=policy)
