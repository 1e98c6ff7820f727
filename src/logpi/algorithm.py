"""The named algorithms as plain data: what each adds to ∇ log π, and every option that it has."""

import copy
import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from logpi.errors import as_python_values, real, require, string, whole


def _is_choice(kind: Any) -> bool:
    return getattr(kind, "__origin__", None) is Literal


@dataclass(frozen=True)
class Networks:
    """What every algorithm has: γ, and how its policy and its value function look and what they see.

    **Raises:** `LogpiError` for a value out of its range.
    """

    discount: float = 1.0
    """γ of the objective J = E[Σ γ^t r_{t+1}]; the gradient then carries γ^t."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the hidden tanh layers of policy and value function; none: linear, which on a Discrete observation is
    a table."""
    actions: Literal["normal", "tanh-normal"] = "normal"
    """Law of Box actions: a Gaussian, clipped to the bounds when executed, or a Gaussian squashed by tanh."""
    initial_log_std: float = -0.5
    """Log of the Gaussian's standard deviation at the start, in units of half the range of the box; it is learned."""
    normalize_observations: bool = True
    """Standardise observations by running statistics, frozen within a batch and kept in the policy."""
    network: str | None = None
    """FILE.py:NAME of a function (features, outputs, key) -> Equinox module, in place of the policy's network."""
    memory: Literal["none", "gru", "lstm"] = "none"
    """What the policy remembers of an episode: nothing, or the state of a recurrent layer before its network."""
    memory_size: int = 64
    """Width of that layer."""
    reference: str | None = None
    """Run folder of a policy to start from, and to stay near."""
    reference_coefficient: float = 0.0
    """How much of log(π/π_ref) of each action is taken off its reward: the distance becomes part of J."""
    anneal: tuple[str, ...] = ()
    """Options that change linearly over the budget: NAME=VALUE for its value at the end, NAME alone for 0."""

    # Names of options by the range that they must be in.
    _WHOLE = ("memory_size",)
    _POSITIVE = ()
    _LIMITS = ()  # positive, or infinite for none
    _NOT_NEGATIVE = ("reference_coefficient",)
    _FRACTIONS = ("discount",)
    _STARTS = ("initial_log_std",)  # any number; with nothing to anneal

    def __post_init__(self) -> None:
        as_python_values(self)
        for name in ("hidden", "anneal"):
            value = getattr(self, name)
            require(isinstance(value, list | tuple), name, "a list", value)
            object.__setattr__(self, name, tuple(value))
        require(all(whole(w) and w >= 1 for w in self.hidden), "hidden", "whole numbers >= 1", self.hidden)
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if _is_choice(field.type):
                choices = field.type.__args__  # type: ignore[union-attr]
                require(value in choices, field.name, " or ".join(choices), value)
            if field.type is bool:
                require(isinstance(value, bool), field.name, "true or false", value)
        self._require(self._WHOLE, lambda v: whole(v) and v >= 1, "a whole number >= 1")
        self._require(self._POSITIVE, lambda v: real(v) and 0 < v < math.inf, "a positive number")
        self._require(self._LIMITS, lambda v: real(v) and v > 0, "a positive number")
        self._require(self._NOT_NEGATIVE, lambda v: real(v) and 0 <= v < math.inf, "a number >= 0")
        self._require(self._FRACTIONS, lambda v: real(v) and 0 <= v <= 1, "a number in [0, 1]")
        self._require(self._STARTS, lambda v: real(v) and math.isfinite(v), "a finite number")
        require(self.reference is None or string(self.reference), "reference", "a run folder", self.reference)
        alone = self.reference is None and self.reference_coefficient != 0
        require(not alone, "reference_coefficient", "0 without a reference", self.reference_coefficient)
        self._require_file("network")
        self._check_anneal()

    def _require_file(self, name: str) -> None:
        source = getattr(self, name)
        require(source is None or (string(source) and ".py:" in source), name, "FILE.py:NAME", source)

    def _check_anneal(self) -> None:
        """Every value on the way is valid where the last one is: ranges have no holes."""
        numbers = [field.name for field in dataclasses.fields(self) if field.type is float]
        known = [name for name in numbers if math.isfinite(getattr(self, name)) and name not in self._STARTS]
        for text in self.anneal:
            name, end = _last_value(text)
            require(name in known, "anneal", f"NAME or NAME=VALUE, NAME one of {', '.join(known)}", text)
            require(math.isfinite(end), "anneal", "NAME=VALUE with a finite value", text)
            if end != 0 or name not in (*self._POSITIVE, *self._LIMITS):
                dataclasses.replace(self, anneal=(), **{name: end})

    def _require(self, names: tuple[str, ...], valid: Any, expected: str) -> None:
        for name in names:
            require(valid(getattr(self, name)), name, expected, getattr(self, name))


@dataclass(frozen=True)
class Reinforce(Networks):
    """REINFORCE (Williams 1992): θ ← θ + α Σ_t γ^t (R_t - b(s_t)) ∇ log π(a_t|s_t; θ), mean over episodes [D4.3, D4.4].

    With the defaults the expected gradient is exactly ∇J of the undiscounted return. An option that makes it biased
    says BIASED.

    **Raises:** `LogpiError` for a value out of its range.
    """

    episodes: int = 32
    """Episodes started in a batch, one per environment copy; all are finished and counted."""
    returns: Literal["reward-to-go", "whole"] = "reward-to-go"
    """What weights ∇ log π at t: the rewards after t, or the whole R(τ) (also exact, usually noisier)."""
    baseline: Literal["value", "leave-one-out", "none"] = "value"
    """What is subtracted: a learned V(s, t), the mean of the other episodes' returns at t, or nothing."""
    learning_rate: float = 0.001
    """Adam's step size for the policy."""
    kl_limit: float = 0.006
    """Mean KL(old policy, new policy) of an update beyond which its step is shortened, not turned; inf: no limit."""
    value_learning_rate: float = 0.002
    """Adam's step size for the value function."""
    value_trace_decay: float = 0.97
    """λ of the rewards-to-go that V is fitted to: 1 the rewards alone, less leans on V itself. Any V is exact."""
    value_steps: int = 100
    """Minibatch steps of the value function after each update of the policy."""
    value_batch: int = 512
    """Steps drawn for each of them."""
    estimator: str | None = None
    """FILE.py:NAME of a JAX function as `logpi check` takes it, batch layout, in place of REINFORCE's own weights:
    what is checked is what is trained."""
    whiten: bool = False
    """BIASED: shift and scale the weights of a batch to mean 0 and deviation 1."""
    drop_discount_power: bool = False
    """BIASED where discount < 1: leave out γ^t, as most libraries do. In general not the gradient of any objective
    (Nota & Thomas 2020)."""

    _WHOLE = (*Networks._WHOLE, "value_steps", "value_batch")
    _POSITIVE = ("learning_rate", "value_learning_rate")
    _LIMITS = ("kl_limit",)
    _FRACTIONS = ("discount", "value_trace_decay")

    def __post_init__(self) -> None:
        super().__post_init__()
        least = 2 if self.baseline == "leave-one-out" else 1
        valid = whole(self.episodes) and self.episodes >= least
        require(valid, "episodes", f"a whole number >= {least}", self.episodes)
        self._require_file("estimator")
        for name in ("returns", "whiten", "drop_discount_power") if self.estimator is not None else ():
            value, default = getattr(self, name), getattr(Reinforce, name)
            require(value == default, name, f"{default!r} beside an estimator, which has weights of its own", value)

    @property
    def copies(self) -> int:
        """Environment copies that are stepped side by side."""
        return self.episodes


@dataclass(frozen=True)
class ActorCritic(Networks):
    """What the actor-critic methods share: streams of episodes cut into rollouts, a critic that looks beyond the cut.

    The weight of ∇ log π(a_t|s_t) is GAE(λ) (Schulman et al. 2016): A_t = Σ_k (γλ)^k δ_{t+k},
    δ_t = r_{t+1} + γ V(s_{t+1}) - V(s_t), V being 0 after termination and never after truncation. BIASED twice, as in
    every such method: by V where λ < 1 or a rollout is cut, and because γ^t is left out where γ < 1.
    """

    discount: float = 0.99
    """γ of the returns that the critic predicts."""
    environments: int = 8
    """Environment copies that are stepped side by side."""
    rollout_steps: int = 256
    """Steps of each copy between two updates; an episode may go on in the next rollout."""
    trace_decay: float = 0.95
    """λ of GAE: 1 trusts the rewards of the rollout, 0 the critic."""
    learning_rate: float = 0.0003
    """Adam's step size; for TRPO and NPG that of the critic alone."""
    anneal: tuple[str, ...] = ("learning_rate",)
    """Options that change linearly over the budget: NAME=VALUE for its value at the end, NAME alone for 0."""
    max_gradient_norm: float = 0.5
    """A longer gradient is shortened to this norm."""
    entropy_coefficient: float = 0.0
    """BIASED: how much of the entropy's gradient is added; keeps the policy random."""
    whiten: bool = False
    """BIASED: shift and scale the advantages of a batch to mean 0 and deviation 1."""
    normalize_returns: bool = True
    """Measure rewards in units of the running deviation of the returns, so that step sizes suit any reward."""

    _WHOLE = (*Networks._WHOLE, "environments", "rollout_steps")
    _POSITIVE = ("learning_rate", "max_gradient_norm")
    _NOT_NEGATIVE = (*Networks._NOT_NEGATIVE, "entropy_coefficient")
    _FRACTIONS = ("discount", "trace_decay")

    @property
    def copies(self) -> int:
        """Environment copies that are stepped side by side."""
        return self.environments

    def _require_divisor(self, name: str) -> None:
        rows = self.environments * self.rollout_steps
        expected = f"a divisor of environments * rollout_steps = {rows}"
        require(rows % getattr(self, name) == 0, name, expected, getattr(self, name))


@dataclass(frozen=True)
class OneLoss(ActorCritic):
    """What A2C and PPO share: policy and critic descend one loss."""

    value_coefficient: float = 0.5
    """Weight of the critic's squared error beside the policy's surrogate."""
    shared_trunk: bool = False
    """Policy and critic have all layers but their last in common; for a policy without memory or own network."""

    _NOT_NEGATIVE = (*ActorCritic._NOT_NEGATIVE, "value_coefficient")

    def __post_init__(self) -> None:
        super().__post_init__()
        possible = not self.shared_trunk or (self.memory == "none" and self.network is None)
        require(possible, "shared_trunk", "no, with a memory or an own network", self.shared_trunk)


@dataclass(frozen=True)
class A2C(OneLoss):
    """Advantage actor-critic (Mnih et al. 2016): a step along the mean of A_t ∇ log π(a_t|s_t) for every rollout."""

    rollout_steps: int = 16
    """Steps of each copy between two updates; an episode may go on in the next rollout."""
    learning_rate: float = 0.002
    """Adam's step size."""
    epochs: int = 1
    """Steps along each rollout; from the second on V-trace allows for the policy having moved."""

    _WHOLE = (*OneLoss._WHOLE, "epochs")


@dataclass(frozen=True)
class PPO(OneLoss):
    """PPO (Schulman et al. 2017): several epochs on min(ρ A, clip(ρ, 1 ± ε) A), ρ = π(a|s) / π_old(a|s) [D1.3]."""

    epochs: int = 10
    """Passes over a rollout."""
    minibatches: int = 32
    """Parts into which each pass divides it; with a memory parts of as many whole streams each."""
    clip: float = 0.2
    """ε: how far ρ may move before a step gains nothing; inf: no clipping. BIASED beyond the first step."""
    value_clip: float | None = None
    """How far, in deviations of the returns, the critic may move from its old prediction; by default any distance."""
    kl_stop: float | None = None
    """Mean KL(old, new) beyond which the rest of the epochs is skipped; by default none."""

    _WHOLE = (*OneLoss._WHOLE, "epochs", "minibatches")
    _LIMITS = ("clip",)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("value_clip", "kl_stop"):
            value = getattr(self, name)
            require(value is None or (real(value) and value > 0), name, "a positive number", value)
        self._require_divisor("minibatches")


@dataclass(frozen=True)
class NPG(ActorCritic):
    """Natural policy gradient (Kakade 2002): θ ← θ + β F⁻¹ĝ, F the Fisher matrix, β such that KL = `kl_limit`."""

    rollout_steps: int = 128
    """Steps of each copy between two updates; an episode may go on in the next rollout."""
    learning_rate: float = 0.001
    """Adam's step size for the critic."""
    kl_limit: float = 0.01
    """Mean KL(old, new) of an update, to second order."""
    conjugate_gradient_steps: int = 10
    """Products with the Fisher matrix with which F x = ĝ is solved."""
    damping: float = 0.1
    """Added to the diagonal of the Fisher matrix."""
    value_epochs: int = 10
    """The critic's passes over a rollout."""
    value_minibatches: int = 16
    """Parts into which each pass divides it; with a memory parts of as many whole streams each."""

    _WHOLE = (*ActorCritic._WHOLE, "conjugate_gradient_steps", "value_epochs", "value_minibatches")
    _POSITIVE = (*ActorCritic._POSITIVE, "kl_limit")
    _NOT_NEGATIVE = (*ActorCritic._NOT_NEGATIVE, "damping")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_divisor("value_minibatches")


@dataclass(frozen=True)
class TRPO(NPG):
    """TRPO (Schulman et al. 2015): NPG's step, halved until the surrogate has grown and KL(old, new) <= `kl_limit`."""

    backtracks: int = 10
    """Lengths of the step that are tried, each half of the one before."""

    _WHOLE = (*NPG._WHOLE, "backtracks")


Algorithm: TypeAlias = Reinforce | A2C | PPO | NPG | TRPO
ALGORITHMS: Mapping[str, type[Algorithm]] = {"reinforce": Reinforce, "a2c": A2C, "ppo": PPO, "npg": NPG, "trpo": TRPO}


def name_of_algorithm(algorithm: Algorithm) -> str:
    """Its key in `ALGORITHMS`."""
    return next(name for name, kind in ALGORITHMS.items() if type(algorithm) is kind)


def _last_value(text: str) -> tuple[str, float]:
    name, _, value = str(text).partition("=")
    try:
        return name, float(value or 0)
    except ValueError:
        return text, 0.0


def annealed(algorithm: Algorithm, progress: Any) -> Algorithm:
    """The options as they are at `progress`, from 0 at the start of a budget to 1 at its end; it may be traced."""
    if not algorithm.anneal:
        return algorithm
    now = copy.copy(algorithm)
    for name, end in map(_last_value, algorithm.anneal):
        start = getattr(algorithm, name)
        object.__setattr__(now, name, start + (end - start) * progress)
    return now
