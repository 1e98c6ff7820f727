"""REINFORCE: θ ← θ + α γ^t R_t ∇ log π(a_t|s_t; θ), on whole episodes [D4.3].

From a batch of episodes: their returns, a baseline, the weights of ∇ log π, the gradient, a step of
Adam that is shortened to a limit in KL. Then the baseline is fitted to the returns it has met.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, final

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from logpi.core.arrays import AnyArray, Number, Scalar, explained_variance, masked_share
from logpi.core.checks import require
from logpi.core.errors import LogpiError
from logpi.core.options import (
    COUNT,
    FILE_SOURCE,
    FRACTION,
    LIMIT,
    POSITIVE,
    Between,
    OneOf,
    option,
)
from logpi.core.randomness import Stream, numpy_generator
from logpi.core.trajectory import Trajectory, sum_over_time
from logpi.environments.spec import EnvironmentSpec
from logpi.estimators.baselines import leave_one_out, measure_trust, shrunk_value, value_baseline
from logpi.estimators.returns import discount_power, lambda_return, reward_to_go, whole_return
from logpi.estimators.score_function import reinforce_weight, score_function_surrogate, whiten
from logpi.methods.learner import Learner, Metrics, adam_state, make_learner
from logpi.methods.reference import near_reference
from logpi.methods.update import trajectory_shapes
from logpi.methods.user_estimator import load_estimator, user_gradient
from logpi.methods.value_fitting import fit_value
from logpi.networks.critic import ValueFunction, make_value_function
from logpi.networks.options import NetworkOptions
from logpi.networks.parameters import Vector, as_vector
from logpi.networks.policy import Policy, make_policy

# Rounding can make a KL negative.
LEAST_KL = 1e-30


@final
@dataclass(frozen=True, kw_only=True)
class Reinforce(NetworkOptions):
    """REINFORCE (Williams 1992): θ ← θ + α Σ_t γ^t (R_t - b(s_t)) ∇ log π(a_t|s_t; θ), mean over
    episodes [D4.3, D4.4].

    With the defaults the expected gradient is exactly ∇J of the undiscounted return. An option that
    makes it biased says BIASED.

    **Raises:** `LogpiError` for a value out of its range.
    """

    target: ClassVar[str] = "discounted"

    discount: Number = option(1.0, FRACTION)
    """γ of the objective J = E[Σ γ^t r_{t+1}]; the gradient then carries γ^t."""
    episodes: int = option(8, COUNT, OneOf((8, 16, 32, 64)))
    """Episodes started in a batch, one per environment copy. All of them are finished and counted.
    """
    returns: Literal["reward-to-go", "whole"] = option("reward-to-go")
    """What weights ∇ log π at t: the rewards after t, or the whole R(τ), which is exact too and
    usually noisier."""
    baseline: Literal["value", "leave-one-out", "none"] = option(
        "value", search=OneOf(("value", "leave-one-out"))
    )
    """What is subtracted: a learned V(s, t), the mean of the other episodes' returns at t, or
    nothing."""
    learning_rate: Number = option(0.003, POSITIVE, Between(3e-4, 3e-2))
    """Adam's step size for the policy, where `kl_limit` does not shorten the step."""
    kl_limit: Number = option(0.0005, LIMIT, Between(1e-4, 5e-2))
    """Mean KL(old policy, new policy) of an update beyond which its step is shortened, not turned;
    inf: no limit."""
    value_learning_rate: Number = option(0.002, POSITIVE, Between(5e-4, 1e-2))
    """Adam's step size for the value function."""
    value_trace_decay: Number = option(0.97, FRACTION)
    """λ of the λ-returns that V is fitted to: 1 uses rewards only, smaller values bootstrap from V.
    The policy gradient is unbiased whatever V is."""
    value_steps: int = option(100, COUNT)
    """Minibatch steps of the value function after each update of the policy; a batch of few steps
    gets fewer, at most a hundred passes over it."""
    value_batch: int = option(512, COUNT)
    """Environment steps in each minibatch of the value function."""
    estimator: str | None = option(None, FILE_SOURCE)
    """FILE.py:NAME of a JAX function as `logpi check` takes it, in the batch layout, which replaces
    REINFORCE's own weights: what is checked is what is trained."""
    whiten: bool = option(False)
    """BIASED: shift and scale the weights of a batch to mean 0 and deviation 1."""
    drop_discount_power: bool = option(False)
    """BIASED where discount < 1: leave out γ^t, as most libraries do. In general not the gradient
    of any objective (Nota & Thomas 2020)."""

    def _require_consistent(self) -> None:
        super()._require_consistent()
        if self.baseline == "leave-one-out":
            require(self.episodes >= 2, "episodes", "a whole number >= 2", self.episodes)
        if self.estimator is not None:
            for name in ("returns", "whiten", "drop_discount_power"):
                value = getattr(self, name)
                default = getattr(Reinforce, name)
                expected = f"{default!r} beside an estimator, which has weights of its own"
                require(value == default, name, expected, value)

    @property
    def copies(self) -> int:
        return self.episodes

    @property
    def rows(self) -> None:
        return None

    def require_usable(self, learner: Learner) -> None:
        if self.estimator is None:
            return
        load_estimator(
            self.estimator,
            has_value=self.baseline == "value",
            has_reference=self.reference is not None,
            has_memory=self.memory != "none",
        )
        example = trajectory_shapes(learner.policy, learner.policy.encoder.example(2), 2, False)
        try:
            jax.eval_shape(self.update, learner, example)
        except LogpiError as error:
            reason = str(error).splitlines()[0]
            where = "training calls it in a JAX program"
            raise LogpiError(f"{self.estimator}: {reason} ({where})") from error

    def make_learner(self, spec: EnvironmentSpec, seed: int) -> Learner:
        random = numpy_generator(seed, Stream.INITIALISATION)
        spaces = (spec.observation_space, spec.action_space)
        policy = make_policy(*spaces, self, random, spec.masked, spec.origin, spec.unflattened)
        value = None
        if self.baseline == "value":
            space = spec.observation_space
            horizon = spec.max_episode_steps
            value = make_value_function(space, self, random, horizon, unflattened=spec.unflattened)
        optimizers = (adam_state(policy), adam_state(value))
        return make_learner(self, policy, value, optimizers, seed)

    def update(self, learner: Learner, trajectory: Trajectory) -> tuple[Learner, Metrics]:
        """θ ← θ + α · 1/N Σ_i Σ_t γ^t (R_t - b_t) ∇ log π(a_t|s_t; θ), then b is fitted.

        The baseline is used before it sees the batch: a baseline that is fitted to a return is not
        independent of the action.
        """
        coefficient = self.reference_coefficient
        paid = near_reference(learner.policy, learner.reference, trajectory, coefficient)
        predicted = None
        trust = 0.0
        if learner.value is not None:
            predicted = value_baseline(learner.value, trajectory)
            trust = jnp.asarray(learner.value.units.trust)
        return_, baseline, weight = self.weigh(paid, predicted, trust)
        if self.estimator is None:
            gradient, sums = policy_gradient(learner.policy, trajectory, weight)
        else:
            value = None if predicted is None else baseline
            policies = (learner.policy, learner.reference)
            gradient, sums = user_gradient(self.estimator, self.discount, *policies, paid, value)
        learner, metrics = self._policy_step(learner, trajectory, gradient, sums)
        metrics |= batch_metrics(trajectory, return_, baseline)
        clipped = learner.policy.head.is_clipped(trajectory.action)
        metrics["clipped_actions"] = masked_share(clipped, trajectory.mask)
        if predicted is not None:
            target = self._value_target(paid, return_, predicted)
            trust = measure_trust(predicted, return_, trajectory.mask)
            learner, metrics["value_loss"] = self._fit_value(learner, trajectory, target, trust)
        return learner, metrics

    def weigh(
        self, trajectory: Trajectory, value: Float[Array, "time env"] | None, trust: Number
    ) -> "Weighed":
        """What multiplies ∇ log π, from V(s_t, t) and how far it counts. Training and the check
        call it.
        """
        return_ = self.return_of(trajectory)
        baseline = self.baseline_of(return_, trajectory.mask, value, trust)
        return Weighed(return_, baseline, self.weight_of(trajectory, return_, baseline))

    def return_of(self, trajectory: Trajectory) -> Float[Array, "time env"]:
        """R_t [D4.2], or R(τ) at every step [D3.5]."""
        if self.returns == "whole":
            return whole_return(trajectory, self.discount)
        return reward_to_go(trajectory, self.discount)

    def baseline_of(
        self,
        return_: Float[Array, "time env"],
        mask: Bool[AnyArray, "time env"],
        value: Float[Array, "time env"] | None,
        trust: Number,
    ) -> Float[Array, "time env"]:
        """b_t of the kind that is chosen, `value` being V(s_t, t) and `trust` how far it counts."""
        if value is not None:
            return shrunk_value(value, trust, return_, mask)
        if self.baseline == "leave-one-out":
            return leave_one_out(return_, mask)
        return jnp.zeros_like(return_)

    def weight_of(
        self,
        trajectory: Trajectory,
        return_: Float[Array, "time env"],
        baseline: Float[Array, "time env"],
    ) -> Float[Array, "time env"]:
        """What multiplies ∇ log π at each step, with the deliberate biases that are asked for."""
        power = discount_power(trajectory.step, self.discount)
        if self.returns == "whole" or self.drop_discount_power:
            power = jnp.ones_like(power)
        weight = reinforce_weight(return_, baseline, power)
        if self.whiten:
            return whiten(weight, trajectory.mask)
        return weight

    def _policy_step(
        self, learner: Learner, trajectory: Trajectory, gradient: Vector, sums: Metrics
    ) -> tuple[Learner, Metrics]:
        """One step of Adam uphill, shortened to the KL limit: KL grows with the square of a small
        step.
        """
        parameters, rebuild = as_vector(learner.policy)
        moments = learner.policy_optimizer
        direction, moments = optax.scale_by_adam().update(-gradient, moments)  # Optax minimises
        step = -self.learning_rate * jnp.asarray(direction)
        kl = mean_kl_of_episodes(learner.policy, rebuild(parameters + step), trajectory)
        scale = jnp.minimum(1.0, jnp.sqrt(self.kl_limit / jnp.maximum(kl, LEAST_KL)))
        metrics = sums | {
            "entropy": sums["entropy"] / jnp.sum(trajectory.mask),
            "gradient_norm": jnp.linalg.norm(gradient),
            "kl": kl * scale**2,
            "step_scale": scale,
        }
        policy = rebuild(parameters + scale * step)
        return learner._replace(policy=policy, policy_optimizer=moments), metrics

    def _value_target(
        self,
        paid: Trajectory,
        return_: Float[Array, "time env"],
        predicted: Float[Array, "time env"],
    ) -> Float[Array, "time env"]:
        """What V is fitted to: λ-returns, or R(τ) where that is what weighs."""
        if self.returns == "whole":
            return return_
        return lambda_return(paid, predicted, self.discount, self.value_trace_decay)

    def _fit_value(
        self,
        learner: Learner,
        trajectory: Trajectory,
        target: Float[Array, "time env"],
        trust: Scalar,
    ) -> tuple[Learner, Scalar]:
        assert learner.value is not None
        value: ValueFunction = eqx.tree_at(lambda v: v.units.trust, learner.value, trust)
        minibatches = (self.value_steps, self.value_batch)
        moments = learner.value_optimizer
        rate = self.value_learning_rate
        value, moments, loss = fit_value(value, moments, trajectory, target, rate, minibatches)
        return learner._replace(value=value, value_optimizer=moments), loss


class Weighed(NamedTuple):
    """R_t, b_t, and w_t, which multiplies ∇ log π(a_t|s_t; θ)."""

    return_: Float[Array, "time env"]
    baseline: Float[Array, "time env"]
    weight: Float[Array, "time env"]


def policy_gradient(
    policy: Policy, trajectory: Trajectory, weight: Float[Array, "time env"]
) -> tuple[Vector, Metrics]:
    """ĝ = 1/N Σ_i Σ_t w_{t,i} ∇ log π(a_{t,i}|s_{t,i}; θ), with the surrogate and summed entropy.

    It is computed as (ĝ_1 + ĝ_2) / 2, of the two halves of the episodes, which tells of its
    signal-to-noise ratio ‖∇J‖² / tr Cov(ĝ): ĝ_1·ĝ_2 / (‖ĝ_1 - ĝ_2‖² / 4), whose numerator and
    denominator have these expectations. An odd number of episodes is left whole.
    """
    parameters, rebuild = as_vector(policy)
    episodes = trajectory.mask.shape[1]
    parts = 1 if episodes % 2 else 2

    def surrogate(
        parameters: Vector, part: tuple[Array, ...], memory: Float[Array, "env state"]
    ) -> tuple[Scalar, Metrics]:
        observation, action, step, mask, weight = part
        distribution = rebuild(parameters).distributions(observation, step, memory)
        objective = score_function_surrogate(distribution.log_prob(action), weight, mask)
        entropy = jnp.sum(jnp.where(mask, distribution.entropy(), 0.0))
        return objective, {"surrogate": objective, "entropy": jax.lax.stop_gradient(entropy)}

    def in_parts(x: Array) -> Array:
        time, env, *rest = x.shape
        return jnp.moveaxis(x.reshape(time, parts, env // parts, *rest), 1, 0)

    state = trajectory.memory.shape[1]
    memories = jnp.reshape(trajectory.memory, (parts, episodes // parts, state))
    gradients_of = jax.vmap(jax.grad(surrogate, has_aux=True), in_axes=(None, 0, 0))

    def gradients(
        chunk: tuple[Array, ...],
    ) -> tuple[Float[Array, "part parameters"], dict[str, Float[Array, " part"]]]:
        return gradients_of(parameters, jax.tree.map(in_parts, chunk), memories)

    steps = (trajectory.observation, trajectory.action, trajectory.step, trajectory.mask, weight)
    if policy.memory.recurrent:  # chunks would cut what it remembers
        found, sums = gradients(jax.tree.map(jnp.asarray, steps))
    else:
        found, sums = sum_over_time(gradients, steps, trajectory.used)
    metrics = {
        "surrogate": jnp.mean(sums["surrogate"]),
        "entropy": jnp.sum(sums["entropy"]),
    }
    if parts == 2:
        noise = jnp.sum((found[0] - found[1]) ** 2) / 4
        metrics["gradient_snr"] = jnp.where(noise > 0, found[0] @ found[1] / noise, jnp.nan)
    return jnp.mean(found, axis=0), metrics


def mean_kl_of_episodes(old: Policy, new: Policy, trajectory: Trajectory) -> Scalar:
    """KL(old, new) averaged over the steps of the batch."""

    def summed_kl(chunk: tuple[AnyArray, ...]) -> Scalar:
        observation, step, mask = chunk
        before = old.distributions(observation, step, trajectory.memory)
        after = new.distributions(observation, step, trajectory.memory)
        return jnp.sum(jnp.where(mask, before.kl(after), 0.0))

    steps = (trajectory.observation, trajectory.step, trajectory.mask)
    if old.memory.recurrent:
        total = summed_kl(steps)
    else:
        total = sum_over_time(summed_kl, steps, trajectory.used)
    return total / jnp.sum(trajectory.mask)


def batch_metrics(
    trajectory: Trajectory, return_: Float[Array, "time env"], baseline: Float[Array, "time env"]
) -> Metrics:
    """What the batch shows before anything is changed.

    The return here is the plain sum of rewards [D0.2].
    """
    mask = trajectory.mask
    episodes = mask.shape[1]
    return {
        "episode_return": jnp.sum(jnp.where(mask, trajectory.reward, 0.0)) / episodes,
        "episode_length": jnp.sum(mask) / episodes,
        "explained_variance": explained_variance(return_, baseline, mask),
        "steps": jnp.sum(mask, dtype=jnp.int32),
        "episodes": jnp.asarray(episodes),
    }
