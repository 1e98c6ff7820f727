"""What A2C, PPO, NPG and TRPO share: a rollout, a critic that looks beyond its end, and the loss
[D4.3].

The weight of ∇ log π is an advantage that the critic helps to estimate. A method adds what it makes
larger step by step, its `surrogate`, and the way in which it moves.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key
from numpy.random import Generator

from logpi.core.arrays import (
    AnyArray,
    Number,
    Scalar,
    explained_variance,
    masked_mean,
    masked_share,
)
from logpi.core.checks import require
from logpi.core.options import (
    COUNT,
    FRACTION,
    NAMES,
    NOT_NEGATIVE,
    POSITIVE,
    OneOf,
    Options,
    option,
)
from logpi.core.randomness import Stream, batch_key
from logpi.core.trajectory import Trajectory
from logpi.environments.spec import EnvironmentSpec
from logpi.estimators.returns import advantages
from logpi.estimators.score_function import whiten
from logpi.methods.learner import Learner, Metrics
from logpi.methods.reference import near_reference
from logpi.networks.critic import ValueFunction, make_value_function, restandardise
from logpi.networks.distributions import Distribution
from logpi.networks.options import NetworkOptions
from logpi.networks.policy import Policy, make_policy

# One number for each of some steps.
Steps: TypeAlias = Float[Array, "*steps"]
# How fast the critic's units follow the returns, once the first batches have been averaged.
UNITS_RATE = 0.03


@dataclass(frozen=True, kw_only=True)
class RolloutOptions(Options):
    """Options of methods that play streams of episodes, cut into rollouts.

    The weight of ∇ log π(a_t|s_t) is GAE(λ) (Schulman et al. 2016): A_t = Σ_k (γλ)^k δ_{t+k},
    δ_t = r_{t+1} + γ V(s_{t+1}) - V(s_t), V being 0 after termination and never after truncation.
    BIASED twice, as in every such method: by V where λ < 1 or a rollout is cut, and because γ^t is
    left out where γ < 1.
    """

    rollout_steps: int
    """Steps of each copy between two updates. An episode may go on in the next rollout."""
    anneal: tuple[str, ...] = option(("learning_rate",), NAMES)
    """Options that change linearly over the budget: NAME=VALUE for the last value, NAME for 0."""
    discount: Number = option(0.99, FRACTION, OneOf((0.95, 0.98, 0.99, 0.995, 0.999)))
    """γ of the returns that the critic predicts."""
    environments: int = option(8, COUNT)
    """Environment copies that are stepped side by side."""
    trace_decay: Number = option(0.95, FRACTION, OneOf((0.8, 0.9, 0.95, 0.98, 1.0)))
    """λ of GAE: 1 trusts the rewards of the rollout, 0 the critic."""
    max_gradient_norm: Number = option(0.5, POSITIVE)
    """A longer gradient is shortened to this norm."""
    entropy_coefficient: Number = option(0.0, NOT_NEGATIVE, OneOf((0.0, 0.001, 0.01)))
    """BIASED: how much of the entropy's gradient is added. It keeps the policy random."""
    whiten: bool = option(False)
    """BIASED: shift and scale the advantages of a batch to mean 0 and deviation 1."""
    normalize_returns: bool = option(True)
    """Measure rewards in units of the running deviation of the returns, so that step sizes suit any
    reward."""

    @property
    def copies(self) -> int:
        """Environment copies that are stepped side by side."""
        return self.environments

    @property
    def rows(self) -> int:
        """Steps of each copy in a batch."""
        return self.rollout_steps

    def require_usable(self, learner: Learner) -> None:
        """Nothing in these options can be missing."""


def require_divisor(options: RolloutOptions, name: str) -> None:
    """Refuse a number of minibatches into which a rollout cannot be divided.

    **Raises:** `LogpiError`.
    """
    rows = options.environments * options.rollout_steps
    parts = getattr(options, name)
    expected = f"a divisor of environments * rollout_steps = {rows}"
    require(rows % parts == 0, name, expected, parts)


@runtime_checkable
class RolloutMethod(Protocol):
    """What the functions below need of a method."""

    @property
    def discount(self) -> Number: ...
    @property
    def trace_decay(self) -> Number: ...
    @property
    def entropy_coefficient(self) -> Number: ...
    @property
    def reference_coefficient(self) -> Number: ...
    @property
    def whiten(self) -> bool: ...
    @property
    def normalize_returns(self) -> bool: ...

    def surrogate(self, log_prob: Steps, old_log_prob: Steps, advantage: Steps) -> Steps:
        """What the method makes larger, step by step. At π = π_old its gradient is A ∇ log π."""
        ...


class Rows(NamedTuple):
    """The steps of a rollout, to be divided by columns.

    A column is one step for a policy that is not recurrent, and a whole stream for one that is.
    `value`, `log_prob` and `memory` are those of before the update; `before` is what was remembered
    before the first row of each column.
    """

    observation: AnyArray
    action: AnyArray
    step: Int[AnyArray, "time column"]
    mask: Bool[AnyArray, "time column"]
    advantage: Float[Array, "time column"]
    target: Float[Array, "time column"]
    value: Float[Array, "time column"]
    memory: Float[Array, "time column state"]
    before: Float[Array, "1 column state"]
    log_prob: Float[Array, "time column"]


def make_rollout_policy(
    options: NetworkOptions, spec: EnvironmentSpec, random: Generator
) -> Policy:
    """A policy for the spaces of an environment."""
    spaces = (spec.observation_space, spec.action_space)
    return make_policy(*spaces, options, random, spec.masked, spec.origin, spec.unflattened)


def make_critic(
    options: NetworkOptions, policy: Policy, spec: EnvironmentSpec, random: Generator
) -> ValueFunction:
    """A critic with layers of its own, which reads what the policy remembers."""
    size = policy.memory.state_size
    space = spec.observation_space
    return make_value_function(space, options, random, None, size, spec.unflattened)


def prepare(
    method: RolloutMethod,
    learner: Learner,
    trajectory: Trajectory,
    ratio: Float[Array, "time env"] | float = 1.0,
) -> tuple[Learner, Rows]:
    """The rollout with advantages and targets, and the critic in the units of the targets.

    `ratio` is the ρ of V-trace; 1 for data of the policy itself.
    """
    policy = learner.policy
    memory = policy.memories(trajectory.observation, trajectory.step, trajectory.memory)
    predicted = learner.critic(trajectory.observation, trajectory.step, memory)
    coefficient = method.reference_coefficient
    paid = near_reference(policy, learner.reference, trajectory, coefficient)
    advantage = advantages(paid, predicted, method.discount, method.trace_decay, ratio)
    target = advantage + predicted
    value = learner.value
    assert value is not None
    # the units of before: those of this rollout depend on its actions
    weight = weigh(method, advantage, trajectory.mask, jnp.asarray(value.units.scale))
    if method.normalize_returns:
        rate = jnp.maximum(1 / (learner.batch + 1), UNITS_RATE)
        value = restandardise(value, target, trajectory.mask, rate)
    rows = make_rows(policy, trajectory, weight, target, predicted, memory)
    return learner._replace(value=value), rows


def weigh(
    method: RolloutMethod,
    advantage: Float[Array, "time env"],
    mask: Bool[AnyArray, "time env"],
    scale: Number,
) -> Float[Array, "time env"]:
    """What multiplies ∇ log π: advantages in units of `scale`, or whitened if that is asked for."""
    if method.whiten:
        return whiten(advantage, mask)
    return advantage / scale


def make_rows(
    policy: Policy,
    trajectory: Trajectory,
    advantage: Float[Array, "time env"],
    target: Float[Array, "time env"],
    value: Float[Array, "time env"],
    memory: Float[Array, "time env state"],
) -> Rows:
    """The rollout without its last row, which only says where it was cut.

    The law of all rows is computed, as the critic is: what the two have in common is done once.
    """
    law = policy(trajectory.observation, memory)
    before = jnp.concatenate([jnp.asarray(trajectory.memory)[None], memory[:-1]])

    def columns(x: AnyArray) -> Array:
        steps = jnp.asarray(x)[:-1]
        if policy.memory.recurrent:
            return steps
        time, env = steps.shape[:2]
        return steps.reshape(1, time * env, *steps.shape[2:])

    return Rows(
        observation=columns(trajectory.observation),
        action=columns(trajectory.action),
        step=columns(trajectory.step),
        mask=columns(trajectory.mask),
        advantage=columns(advantage),
        target=columns(target),
        value=columns(value),
        memory=columns(memory),
        before=columns(before)[:1],
        log_prob=columns(law.log_prob(trajectory.action)),
    )


def laws(policy: Policy, rows: Rows) -> Distribution:
    """π in every row."""
    return policy.distributions(rows.observation, rows.step, rows.before[0])


class Gains(NamedTuple):
    """What a policy should gain: the method's surrogate and the entropy bonus."""

    surrogate: Scalar
    bonus: Scalar

    @property
    def loss(self) -> Scalar:
        """What is minimised."""
        return -self.surrogate - self.bonus


def gains(
    method: RolloutMethod,
    log_prob: Float[Array, "time column"],
    old_log_prob: Float[Array, "time column"],
    entropy: Float[Array, "time column"],
    advantage: Float[Array, "time column"],
    mask: Bool[AnyArray, "time column"],
) -> Gains:
    """Means over *rows* of the surrogate and of β H(π(·|s)).

    A mean over steps would be a quotient of two random numbers: how many of the rows are steps
    depends on the actions. Training descends this loss, and `logpi check` is given it.
    """
    surrogate = method.surrogate(log_prob, old_log_prob, advantage)
    bonus = method.entropy_coefficient * entropy
    return Gains(
        surrogate=jnp.mean(jnp.where(mask, surrogate, 0.0)),
        bonus=jnp.mean(jnp.where(mask, bonus, 0.0)),
    )


def gains_on(method: RolloutMethod, law: Distribution, rows: Rows) -> Gains:
    """The gains of a policy whose law in the rows of a rollout is `law`."""
    log_prob = jnp.asarray(law.log_prob(rows.action))
    entropy = jnp.asarray(law.entropy())
    return gains(method, log_prob, rows.log_prob, entropy, rows.advantage, rows.mask)


def squared_error(value: ValueFunction, rows: Rows, clip: Number | None = None) -> Scalar:
    """((V - target) / scale)², mean over steps.

    With `clip` the larger of that and the error of V kept within `clip` of its old prediction.
    """
    scale = value.units.scale
    predicted = value(rows.observation, rows.step, rows.memory) / scale
    target = rows.target / scale
    error = (predicted - target) ** 2
    if clip is not None:
        old = rows.value / scale
        kept = jnp.clip(predicted, old - clip, old + clip)
        error = jnp.maximum(error, (kept - target) ** 2)
    return masked_mean(error, rows.mask)


def mean_kl(old: Policy, new: Policy, rows: Rows) -> Scalar:
    """KL(old, new) averaged over the steps of the rollout."""
    return mean_kl_of_laws(laws(old, rows), laws(new, rows), rows)


def mean_kl_of_laws(old: Distribution, new: Distribution, rows: Rows) -> Scalar:
    """The same of the laws in the rows."""
    return masked_mean(old.kl(new), rows.mask)


def epoch_keys(learner: Learner, epochs: int) -> Key[Array, " epochs"]:
    """A key for the order of the columns in each pass over a rollout."""
    return jax.random.split(batch_key(learner.seed, Stream.MINIBATCHES, learner.batch), epochs)


def rollout_metrics(
    policy: Policy, trajectory: Trajectory, rows: Rows, clip: Number | None = None
) -> Metrics:
    """How far the policy has moved, its entropy, and the episodes that ended in the rollout.

    The distance is KL(π_old, π) by Schulman's estimator ρ - 1 - log ρ on the actions taken. The
    effective sample size is (Σ ρ)² / (n Σ ρ²): 1 where π = π_old, and 1/n where one step has all
    the weight. With `clip` also the share of the steps whose ρ is beyond 1 ± `clip`.
    """
    law = laws(policy, rows)
    log_ratio = law.log_prob(rows.action) - rows.log_prob
    kl = jnp.expm1(log_ratio) - log_ratio
    ratio = jnp.exp(log_ratio)
    size = masked_mean(ratio, rows.mask) ** 2 / masked_mean(ratio**2, rows.mask)
    ended = trajectory.terminated | trajectory.truncated
    count = jnp.sum(ended)
    assert trajectory.paid is not None
    metrics = {
        "kl": masked_mean(kl, rows.mask),
        "effective_sample_size": size,
        "clipped_actions": masked_share(policy.head.is_clipped(rows.action), rows.mask),
        "entropy": masked_mean(law.entropy(), rows.mask),
        "explained_variance": explained_variance(rows.target, rows.value, rows.mask),
        "steps": jnp.sum(trajectory.mask, dtype=jnp.int32),
        "episodes": count,
        "episode_return": jnp.sum(jnp.where(ended, trajectory.paid, 0.0)) / count,
        "episode_length": jnp.sum(jnp.where(ended, trajectory.step + 1, 0)) / count,
    }
    if clip is not None:
        metrics["clip_fraction"] = masked_share(jnp.abs(ratio - 1) > clip, rows.mask)
    return metrics
