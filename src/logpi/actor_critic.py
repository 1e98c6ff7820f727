"""One update from a rollout: what A2C, PPO, NPG and TRPO add to REINFORCE [D4.3].

The weight of ∇ log π is an advantage that a critic helps to estimate. A2C takes one step along it; PPO several, on a
surrogate that allows for the policy having moved; NPG and TRPO one, measured by how far the policy moves.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from logpi.algorithm import A2C, NPG, PPO, TRPO, ActorCritic
from logpi.estimator import whiten
from logpi.learner import Learner, Metrics, Scalar
from logpi.natural import scale_by_natural_gradient
from logpi.policy import MLP, Policy, ValueFunction
from logpi.randomness import Stream, batch_key
from logpi.returns import advantages
from logpi.surrogate import clipped_surrogate, importance_surrogate
from logpi.trajectory import AnyArray, Trajectory, masked_mean, masked_variance
from logpi.value import restandardise

# How fast the critic's units follow the returns, once the first batches have been averaged.
UNITS_RATE = 0.03

Parameters: TypeAlias = tuple[Policy, MLP]
History: TypeAlias = dict[str, Float[Array, "*steps"]]


class Rows(NamedTuple):
    """The steps of a rollout, side by side; `value` and `log_prob` are those of before the update."""

    observation: AnyArray
    action: AnyArray
    step: Int[AnyArray, " row"]
    mask: Bool[AnyArray, " row"]
    advantage: Float[Array, " row"]
    target: Float[Array, " row"]
    value: Float[Array, " row"]
    log_prob: Float[Array, " row"]


def actor_critic_update(
    config: ActorCritic, learner: Learner, trajectory: Trajectory, progress: Scalar
) -> tuple[Learner, Metrics]:
    """Advantages by the old critic, the algorithm's own step, then the statistics of the encoders."""
    estimated = learner.critic(trajectory.observation, trajectory.step)
    advantage = advantages(trajectory, estimated, config.discount, config.trace_decay)
    target = advantage + estimated
    value = learner.critic
    if config.normalize_returns:
        rate = jnp.maximum(1 / (learner.batch + 1), UNITS_RATE)
        value = restandardise(value, target, trajectory, rate)
    weight = whiten(advantage, trajectory.mask) if config.whiten else advantage / value.scale
    rows = _rows(learner.policy, trajectory, weight, target, estimated)
    rate = config.learning_rate * (1 - progress if config.anneal else 1.0)
    learner = eqx.tree_at(lambda x: x.value, learner, value)
    learner, metrics = _STEPS[type(config)](config, learner, rows, rate)
    metrics |= _after(learner.policy, rows) | _of_batch(learner, trajectory, target, estimated)
    return _observed(learner, trajectory), metrics | {"learning_rate": rate}


def _rows(
    policy: Policy,
    trajectory: Trajectory,
    weight: Float[Array, "time env"],
    target: Float[Array, "time env"],
    value: Float[Array, "time env"],
) -> Rows:
    """Without the last row of the rollout, which only says where it was cut."""
    flat = lambda x: x[:-1].reshape(-1, *x.shape[2:])
    observation, action = flat(trajectory.observation), flat(trajectory.action)
    log_prob = jnp.asarray(policy(observation).log_prob(action))
    step, mask, weight, target, value = map(flat, (trajectory.step, trajectory.mask, weight, target, value))
    return Rows(observation, action, step, mask, weight, target, value, log_prob)


def _loss(
    config: A2C | PPO, policy: Policy, value: ValueFunction, rows: Rows, objective: Callable[[Array, Rows], Array]
) -> tuple[Scalar, Metrics]:
    """-mean of the surrogate and the entropy bonus, plus the critic's squared error in units of the returns."""
    distribution = policy.statistics_fixed()(rows.observation)
    log_prob, entropy = distribution.log_prob(rows.action), masked_mean(distribution.entropy(), rows.mask)
    surrogate = masked_mean(objective(log_prob, rows), rows.mask)
    error = _squared_error(value, rows, getattr(config, "value_clip", None))
    loss = -surrogate - config.entropy_coefficient * entropy + config.value_coefficient * error
    return loss, {"surrogate": surrogate, "value_loss": error}


def _squared_error(value: ValueFunction, rows: Rows, clip: float | None = None) -> Scalar:
    """((V - target) / scale)², or the larger of that and the one of V kept within `clip` of its old prediction."""
    predicted, target, old = (x / value.scale for x in (value(rows.observation, rows.step), rows.target, rows.value))
    error = (predicted - target) ** 2
    if clip is not None:
        error = jnp.maximum(error, (jnp.clip(predicted, old - clip, old + clip) - target) ** 2)
    return masked_mean(error, rows.mask)


def with_network(value: ValueFunction, network: MLP) -> ValueFunction:
    """The same offset, scale and encoder: statistics, which are not fitted."""
    return eqx.tree_at(lambda v: v.network, value, network)


def _descend(
    config: ActorCritic, loss: Callable[[Any, Rows], tuple[Scalar, Metrics]], rate: Any
) -> Callable[[tuple[Any, Any], Rows], tuple[tuple[Any, Any], Metrics]]:
    """One Adam step of (parameters, moments) down `loss`, its gradient cut to `max_gradient_norm`."""
    limit, adam = optax.clip_by_global_norm(config.max_gradient_norm), optax.scale_by_adam(eps=1e-5)

    def step(state: tuple[Any, Any], rows: Rows) -> tuple[tuple[Any, Any], Metrics]:
        parameters, moments = state
        (_, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(parameters, rows)
        limited, _ = limit.update(gradient, optax.EmptyState())
        change, moments = adam.update(limited, moments)
        parameters = jax.tree.map(lambda p, c: p - rate * c, parameters, change)
        return (parameters, moments), metrics | {"gradient_norm": optax.tree.norm(gradient)}

    return step


def _a2c_step(config: A2C, learner: Learner, rows: Rows, rate: Any) -> tuple[Learner, Metrics]:
    """θ ← θ + α mean of A_t ∇ log π(a_t|s_t; θ)."""
    score = lambda log_prob, rows: rows.advantage * log_prob

    def loss(parameters: Parameters, rows: Rows) -> tuple[Scalar, Metrics]:
        policy, network = parameters
        return _loss(config, policy, with_network(learner.critic, network), rows, score)

    state, metrics = _descend(config, loss, rate)(_state(learner), rows)
    return _with_state(learner, state), metrics


def _ppo_step(config: PPO, learner: Learner, rows: Rows, rate: Any) -> tuple[Learner, Metrics]:
    """Minibatch steps on the clipped surrogate, until all epochs are done or KL has passed `kl_stop`."""
    clipped = lambda log_prob, rows: clipped_surrogate(log_prob - rows.log_prob, rows.advantage, config.clip)

    def loss(parameters: Parameters, rows: Rows) -> tuple[Scalar, Metrics]:
        policy, network = parameters
        return _loss(config, policy, with_network(learner.critic, network), rows, clipped)

    descend = _descend(config, loss, rate)

    def epoch(state: Any, parts: Rows) -> tuple[Any, History]:
        run = lambda state: jax.lax.scan(descend, state, parts)
        if config.kl_stop is None:
            return run(state)
        policy, _ = state[0]
        kl = _mean_kl(learner.policy, policy, rows)
        unchanged = jax.tree.map(lambda x: jnp.full(x.shape, jnp.nan, x.dtype), jax.eval_shape(run, state)[1])
        return jax.lax.cond(kl > config.kl_stop, lambda state: (state, unchanged), run, state)

    state, metrics = _epochs(epoch, _state(learner), rows, config.epochs, config.minibatches, learner)
    return _with_state(learner, state), jax.tree.map(jnp.nanmean, metrics)


def _epochs(
    epoch: Callable[[Any, Rows], tuple[Any, History]],
    state: Any,
    rows: Rows,
    epochs: int,
    minibatches: int,
    learner: Learner,
) -> tuple[Any, History]:
    """`epoch` on the rows in a new order each time, divided into minibatches."""

    def shuffled(state: Any, key: PRNGKeyArray) -> tuple[Any, History]:
        order = jax.random.permutation(key, len(rows.mask)).reshape(minibatches, -1)
        return epoch(state, jax.tree.map(lambda x: x[order], rows))

    keys = jax.random.split(batch_key(learner.seed, Stream.MINIBATCHES, learner.batch), epochs)
    return jax.lax.scan(shuffled, state, keys)


def _natural_step(config: NPG, learner: Learner, rows: Rows, rate: Any) -> tuple[Learner, Metrics]:
    """θ ← θ + β F⁻¹ĝ with KL = `kl_limit`, shortened by TRPO until it holds; then the critic is fitted."""

    def surrogate(policy: Policy) -> Scalar:
        distribution = policy.statistics_fixed()(rows.observation)
        gain = importance_surrogate(distribution.log_prob(rows.action) - rows.log_prob, rows.advantage)
        bonus = config.entropy_coefficient * masked_mean(distribution.entropy(), rows.mask)
        return masked_mean(gain, rows.mask) + bonus

    old = learner.policy
    kl = lambda policy: _mean_kl(old, policy.statistics_fixed(), rows)
    before, gradient = jax.value_and_grad(surrogate)(old)
    natural = scale_by_natural_gradient(config.kl_limit, config.conjugate_gradient_steps, config.damping)
    change, _ = natural.update(gradient, optax.EmptyState(), cast("optax.Params", old), kl=kl)
    step = cast(Policy, change)
    scale = _line_search(config, old, step, surrogate, kl, before) if isinstance(config, TRPO) else jnp.ones(())
    policy = jax.tree.map(lambda p, s: p + scale * s, old, step)
    learner, metrics = _fit_critic(config, eqx.tree_at(lambda x: x.policy, learner, policy), rows, rate)
    norm = optax.tree.norm(gradient)
    return learner, {"surrogate": before, "gradient_norm": norm, "step_scale": scale, **metrics}


def _line_search(config: TRPO, old: Policy, step: Policy, surrogate: Any, kl: Any, before: Scalar) -> Scalar:
    """The largest of 1, ½, ¼, … with which the surrogate grows within the limit; 0 if none does."""

    def accepted(scale: Scalar) -> Bool[Array, ""]:
        policy = jax.tree.map(lambda p, s: p + scale * s, old, step)
        return (surrogate(policy) > before) & (kl(policy) <= config.kl_limit)

    def search(state: tuple[Scalar, Int[Array, ""]]) -> tuple[Scalar, Int[Array, ""]]:
        scale, tried = state
        return jnp.where(tried + 1 < config.backtracks, scale / 2, 0.0), tried + 1

    unfinished = lambda state: (state[1] < config.backtracks) & ~accepted(state[0])
    return jax.lax.while_loop(unfinished, search, (jnp.ones(()), jnp.int32(0)))[0]


def _fit_critic(config: NPG, learner: Learner, rows: Rows, rate: Any) -> tuple[Learner, Metrics]:
    def loss(network: MLP, rows: Rows) -> tuple[Scalar, Metrics]:
        error = _squared_error(with_network(learner.critic, network), rows)
        return error, {"value_loss": error}

    descend = _descend(config, loss, rate)
    epoch = lambda state, parts: jax.lax.scan(descend, state, parts)
    start = (learner.critic.network, learner.value_optimizer)
    (network, moments), metrics = _epochs(epoch, start, rows, config.value_epochs, config.value_minibatches, learner)
    value = with_network(learner.critic, network)
    learner = eqx.tree_at(lambda x: (x.value, x.value_optimizer), learner, (value, moments))
    return learner, {"value_loss": jnp.mean(metrics["value_loss"])}


_STEPS: dict[type[ActorCritic], Any] = {A2C: _a2c_step, PPO: _ppo_step, NPG: _natural_step, TRPO: _natural_step}


def _state(learner: Learner) -> tuple[Parameters, Any]:
    return (learner.policy, learner.critic.network), learner.policy_optimizer


def _with_state(learner: Learner, state: tuple[Parameters, Any]) -> Learner:
    (policy, network), moments = state
    value = with_network(learner.critic, network)
    return eqx.tree_at(lambda x: (x.policy, x.value, x.policy_optimizer), learner, (policy, value, moments))


def _mean_kl(old: Policy, new: Policy, rows: Rows) -> Scalar:
    """KL(old, new) averaged over the steps of the rollout."""
    return masked_mean(old(rows.observation).kl(new(rows.observation)), rows.mask)


def _after(policy: Policy, rows: Rows) -> Metrics:
    """How far the policy has moved, by π_old log(π_old/π) of the actions taken in Schulman's estimator, and H(π)."""
    distribution = policy(rows.observation)
    log_ratio = distribution.log_prob(rows.action) - rows.log_prob
    kl = jnp.expm1(log_ratio) - log_ratio
    return {"kl": masked_mean(kl, rows.mask), "entropy": masked_mean(distribution.entropy(), rows.mask)}


def _of_batch(
    learner: Learner, trajectory: Trajectory, target: Float[Array, "time env"], value: Float[Array, "time env"]
) -> Metrics:
    """The critic's explained variance, and the episodes that ended in this rollout."""
    mask = trajectory.mask
    spread = masked_variance(target, mask)
    ended = trajectory.terminated | trajectory.truncated
    count = jnp.sum(ended)
    assert trajectory.paid is not None
    return {
        "explained_variance": jnp.where(spread > 0, 1 - masked_variance(target - value, mask) / spread, jnp.nan),
        "steps": jnp.sum(mask),
        "episodes": count,
        "episode_return": jnp.sum(jnp.where(ended, trajectory.paid, 0.0)) / count,
        "episode_length": jnp.sum(jnp.where(ended, trajectory.step + 1, 0)) / count,
    }


def _observed(learner: Learner, trajectory: Trajectory) -> Learner:
    """The next batch's statistics and number."""
    encoder = learner.policy.encoder.observe(trajectory.observation, trajectory.mask)
    places = lambda x: (x.policy.encoder, x.value.encoder, x.batch, x.steps)
    steps = learner.steps + jnp.sum(trajectory.mask, dtype=jnp.uint32)
    return eqx.tree_at(places, learner, (encoder, encoder, learner.batch + 1, steps))
