"""One update from a rollout: what A2C, PPO, NPG and TRPO add to REINFORCE [D4.3].

The weight of ∇ log π is an advantage that a critic helps to estimate. A2C takes one step along it; PPO several, on a
surrogate that allows for the policy having moved; NPG and TRPO one, measured by how far the policy moves.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from logpi.algorithm import A2C, NPG, PPO, TRPO, ActorCritic, OneLoss
from logpi.descent import adam_step, along_minibatches
from logpi.distributions import Distribution
from logpi.estimator import whiten
from logpi.learner import Learner, Metrics
from logpi.natural import scale_by_natural_gradient
from logpi.policy import Policy, ValueFunction, Vector, as_vector
from logpi.randomness import Stream, batch_key
from logpi.reference import near_reference
from logpi.returns import advantages
from logpi.surrogate import objective
from logpi.trajectory import AnyArray, Number, Scalar, Trajectory, explained_variance, masked_mean
from logpi.value import restandardise

# How fast the critic's units follow the returns, once the first batches have been averaged.
UNITS_RATE = 0.03


class Rows(NamedTuple):
    """The steps of a rollout, to be divided by columns: each a column by itself, or with a memory each stream.

    `value`, `log_prob` and `remembered` are those of before the update; `before` is what was remembered before row 0.
    """

    observation: AnyArray
    action: AnyArray
    step: Int[AnyArray, "time column"]
    mask: Bool[AnyArray, "time column"]
    advantage: Float[Array, "time column"]
    target: Float[Array, "time column"]
    value: Float[Array, "time column"]
    remembered: Float[Array, "time column state"] | None
    before: Float[Array, "1 column state"] | None
    log_prob: Float[Array, "time column"]


def actor_critic_update(config: A2C | PPO | NPG, learner: Learner, trajectory: Trajectory) -> tuple[Learner, Metrics]:
    """Advantages by the old critic, then the algorithm's own step."""
    acting = learner.policy
    learner, rows = _prepared(config, learner, trajectory, 1.0)
    if isinstance(config, NPG):
        learner, metrics = _natural_step(config, learner, rows)
    else:
        learner, metrics = _joint_descent(config, learner, rows)
    if isinstance(config, A2C) and config.epochs > 1:
        old_log_prob = _log_prob(acting, trajectory)

        def again(learner: Learner, _: None) -> tuple[Learner, Metrics]:
            log_ratio = _log_prob(learner.policy, trajectory) - old_log_prob
            return _joint_descent(config, *_prepared(config, learner, trajectory, jnp.minimum(jnp.exp(log_ratio), 1.0)))

        learner, _ = jax.lax.scan(again, learner, length=config.epochs - 1)
    return learner, metrics | _after(learner.policy, rows) | _of_batch(trajectory, rows)


def _prepared(
    config: ActorCritic, learner: Learner, trajectory: Trajectory, ratio: Float[Array, "time env"] | float
) -> tuple[Learner, Rows]:
    """The rollout with advantages and targets, and the critic in the units of the targets.

    Advantages weigh in the units of before: those of this rollout depend on its actions.
    """
    remembered = learner.policy.recall(trajectory.observation, trajectory.step, trajectory.remembered)
    estimated = learner.critic(trajectory.observation, trajectory.step, remembered)
    paid = near_reference(learner.policy, learner.reference, trajectory, config.reference_coefficient)
    advantage = advantages(paid, estimated, config.discount, config.trace_decay, ratio)
    target = advantage + estimated
    value = learner.value
    assert value is not None
    weight = whiten(advantage, trajectory.mask) if config.whiten else advantage / value.units.scale
    if config.normalize_returns:
        rate = jnp.maximum(1 / (learner.batch + 1), UNITS_RATE)
        value = restandardise(value, target, trajectory, rate)
    rows = _rows(learner.policy, trajectory, weight, target, estimated, remembered)
    return eqx.tree_at(lambda x: x.value, learner, value), rows


def _log_prob(policy: Policy, trajectory: Trajectory) -> Float[Array, "time env"]:
    law = policy.along(trajectory.observation, trajectory.step, trajectory.remembered)
    return jnp.asarray(law.log_prob(trajectory.action))


def _rows(
    policy: Policy,
    trajectory: Trajectory,
    weight: Float[Array, "time env"],
    target: Float[Array, "time env"],
    value: Float[Array, "time env"],
    remembered: Float[Array, "time env state"] | None,
) -> Rows:
    """Without the last row of the rollout, which only says where it was cut."""
    flat = lambda x: x[:-1] if policy.memory is not None else x[:-1].reshape(1, -1, *x.shape[2:])
    parts = (trajectory.observation, trajectory.action, trajectory.step, trajectory.mask, weight, target, value)
    known = None if remembered is None else flat(remembered)
    before = None if trajectory.remembered is None else jnp.asarray(trajectory.remembered)[None]
    rows = Rows(*map(flat, parts), known, before, jnp.zeros(()))  # pyright: ignore[reportCallIssue]
    return rows._replace(log_prob=jnp.asarray(_law(policy, rows).log_prob(rows.action)))


def _law(policy: Policy, rows: Rows) -> Distribution:
    """π in every row."""
    return policy.along(rows.observation, rows.step, None if rows.before is None else rows.before[0])


def _loss(config: OneLoss, policy: Policy, value: ValueFunction, rows: Rows) -> tuple[Scalar, Metrics]:
    """What the policy should gain, negative, plus the critic's squared error in units of the returns."""
    surrogate, bonus = _gains(config, policy, rows)
    error = _squared_error(value, rows, getattr(config, "value_clip", None))
    return config.value_coefficient * error - surrogate - bonus, {"surrogate": surrogate, "value_loss": error}


def _gains(config: ActorCritic, policy: Policy, rows: Rows) -> tuple[Scalar, Scalar]:
    """The objective and the entropy bonus, means over *rows*: how many of them are steps depends on the actions."""
    distribution = _law(policy, rows)
    gain = objective(config, distribution.log_prob(rows.action), rows.log_prob, rows.advantage)
    bonus = config.entropy_coefficient * distribution.entropy()
    surrogate, bonus = (jnp.mean(jnp.where(rows.mask, x, 0.0)) for x in (gain, bonus))
    return surrogate, bonus


def _squared_error(value: ValueFunction, rows: Rows, clip: Number | None = None) -> Scalar:
    """((V - target) / scale)², or the larger of that and the one of V kept within `clip` of its old prediction."""
    predicted = value(rows.observation, rows.step, rows.remembered)
    predicted, target, old = (x / value.units.scale for x in (predicted, rows.target, rows.value))
    error = (predicted - target) ** 2
    if clip is not None:
        error = jnp.maximum(error, (jnp.clip(predicted, old - clip, old + clip) - target) ** 2)
    return masked_mean(error, rows.mask)


def _joint_descent(config: A2C | PPO, learner: Learner, rows: Rows) -> tuple[Learner, Metrics]:
    """Policy and critic descend one loss: once, or by minibatches until all epochs are done or KL is past `kl_stop`."""
    assert learner.value is not None
    parameters, whole = as_vector((learner.policy, learner.value))

    def loss(parameters: Vector, rows: Rows) -> tuple[Scalar, Metrics]:
        policy, value = whole(parameters)
        return _loss(config, policy, value.reading(policy), rows)

    step = adam_step(config, loss)
    start = (parameters, learner.policy_optimizer)
    if isinstance(config, A2C):
        (parameters, moments), metrics = step(start, rows)
    else:
        moved = lambda parameters: _mean_kl(learner.policy, whole(parameters)[0], rows)
        limit = config.kl_stop
        stop = None if limit is None else lambda parameters: moved(parameters) > limit
        keys = _epoch_keys(learner, config.epochs)
        (parameters, moments), history = along_minibatches(step, start, rows, keys, config.minibatches, stop)
        metrics = jax.tree.map(jnp.nanmean, history)
    parts = (*whole(parameters), moments)
    return eqx.tree_at(lambda x: (x.policy, x.value, x.policy_optimizer), learner, parts), metrics


def _epoch_keys(learner: Learner, epochs: int) -> Key[Array, " epochs"]:
    return jax.random.split(batch_key(learner.seed, Stream.MINIBATCHES, learner.batch), epochs)


def _natural_step(config: NPG, learner: Learner, rows: Rows) -> tuple[Learner, Metrics]:
    """θ ← θ + β F⁻¹ĝ with KL = `kl_limit`, shortened by TRPO until it holds; then the critic is fitted."""
    old, whole = as_vector(learner.policy)
    surrogate = lambda parameters: sum(_gains(config, whole(parameters), rows))
    kl = lambda parameters: _mean_kl(learner.policy, whole(parameters), rows)
    before, gradient = jax.value_and_grad(surrogate)(old)
    natural = scale_by_natural_gradient(config.kl_limit, config.conjugate_gradient_steps, config.damping)
    step = jnp.asarray(natural.update(gradient, optax.EmptyState(), old, kl=kl)[0])
    scale = _line_search(config, old, step, surrogate, kl, before) if isinstance(config, TRPO) else jnp.ones(())
    moved = eqx.tree_at(lambda x: x.policy, learner, whole(old + scale * step))
    learner, metrics = _fit_critic(config, moved, rows)
    norm = jnp.linalg.norm(gradient)
    return learner, {"surrogate": before, "gradient_norm": norm, "step_scale": scale, **metrics}


def _line_search(config: TRPO, old: Vector, step: Vector, surrogate: Any, kl: Any, before: Scalar) -> Scalar:
    """The largest of 1, ½, ¼, … with which the surrogate grows within the limit; 0 if none does."""

    def accepted(scale: Scalar) -> Bool[Array, ""]:
        parameters = old + scale * step
        return (surrogate(parameters) > before) & (kl(parameters) <= config.kl_limit)

    def search(state: tuple[Scalar, Int[Array, ""]]) -> tuple[Scalar, Int[Array, ""]]:
        scale, tried = state
        return jnp.where(tried + 1 < config.backtracks, scale / 2, 0.0), tried + 1

    unfinished = lambda state: (state[1] < config.backtracks) & ~accepted(state[0])
    return jax.lax.while_loop(unfinished, search, (jnp.ones(()), jnp.int32(0)))[0]


def _fit_critic(config: NPG, learner: Learner, rows: Rows) -> tuple[Learner, Metrics]:
    parameters, whole = as_vector(learner.critic)

    def loss(parameters: Vector, rows: Rows) -> tuple[Scalar, Metrics]:
        error = _squared_error(whole(parameters), rows)
        return error, {"value_loss": error}

    start, keys = (parameters, learner.value_optimizer), _epoch_keys(learner, config.value_epochs)
    step = adam_step(config, loss)
    (parameters, moments), history = along_minibatches(step, start, rows, keys, config.value_minibatches)
    learner = eqx.tree_at(lambda x: (x.value, x.value_optimizer), learner, (whole(parameters), moments))
    return learner, {"value_loss": jnp.mean(history["value_loss"])}


def _mean_kl(old: Policy, new: Policy, rows: Rows) -> Scalar:
    """KL(old, new) averaged over the steps of the rollout."""
    return masked_mean(_law(old, rows).kl(_law(new, rows)), rows.mask)


def _after(policy: Policy, rows: Rows) -> Metrics:
    """How far the policy has moved, by π_old log(π_old/π) of the actions taken in Schulman's estimator, and H(π)."""
    distribution = _law(policy, rows)
    log_ratio = distribution.log_prob(rows.action) - rows.log_prob
    kl = jnp.expm1(log_ratio) - log_ratio
    return {"kl": masked_mean(kl, rows.mask), "entropy": masked_mean(distribution.entropy(), rows.mask)}


def _of_batch(trajectory: Trajectory, rows: Rows) -> Metrics:
    """The critic's explained variance, and the episodes that ended in this rollout."""
    ended = trajectory.terminated | trajectory.truncated
    count = jnp.sum(ended)
    assert trajectory.paid is not None
    return {
        "explained_variance": explained_variance(rows.target, rows.value, rows.mask),
        "steps": jnp.sum(trajectory.mask, dtype=jnp.int32),
        "episodes": count,
        "episode_return": jnp.sum(jnp.where(ended, trajectory.paid, 0.0)) / count,
        "episode_length": jnp.sum(jnp.where(ended, trajectory.step + 1, 0)) / count,
    }
