"""Every setting of a run, as plain data: what the command line shows, a file gives, and a run folder records."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from logpi.errors import LogpiError


def whole(value: Any) -> bool:
    """Whether a value is an int; True and False are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def real(value: Any) -> bool:
    """Whether a value is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


def require(valid: bool, name: str, expected: str, value: Any) -> None:
    """**Raises:** `LogpiError` if not `valid`."""
    if not valid:
        raise LogpiError(f"{name} must be {expected}, got {value!r}")


@dataclass(frozen=True)
class Reinforce:
    """REINFORCE (Williams 1992): θ ← θ + α Σ_t γ^t (R_t - b(s_t)) ∇ log π(a_t|s_t; θ), mean over episodes [D4.3, D4.4].

    With the defaults the expected gradient is exactly ∇J of the undiscounted return. An option that makes it biased
    says BIASED.

    **Raises:** `LogpiError` for a value out of its range.
    """

    episodes: int = 32
    """Episodes started in a batch, one per environment copy; all are finished and counted."""
    discount: float = 1.0
    """γ of the objective J = E[Σ γ^t r_{t+1}]; the gradient then carries γ^t."""
    returns: Literal["reward-to-go", "whole"] = "reward-to-go"
    """What weights ∇ log π at t: the rewards after t, or the whole R(τ) (also exact, usually noisier)."""
    baseline: Literal["value", "leave-one-out", "none"] = "value"
    """What is subtracted: a learned V(s, t), the mean of the other episodes' returns at t, or nothing."""
    learning_rate: float = 0.005
    """Adam's step size for the policy."""
    kl_limit: float = 0.003
    """Mean KL(old policy, new policy) of an update beyond which its step is shortened, not turned. 0: no limit."""
    value_learning_rate: float = 0.002
    """Adam's step size for the value function."""
    value_steps: int = 100
    """Minibatch steps of the value function after each update of the policy."""
    value_batch: int = 512
    """Steps drawn for each of them."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the hidden tanh layers of policy and value function; none: linear, which on a Discrete observation is
    a table."""
    actions: Literal["normal", "tanh-normal"] = "normal"
    """Law of Box actions: a Gaussian, clipped to the bounds when executed, or a Gaussian squashed by tanh."""
    estimator: str | None = None
    """FILE.py:NAME of a JAX function as `logpi check` takes it, batch layout, in place of REINFORCE's own weights:
    what is checked is what is trained."""
    whiten: bool = False
    """BIASED: shift and scale the weights of a batch to mean 0 and deviation 1."""
    drop_discount_power: bool = False
    """BIASED where discount < 1: leave out γ^t, as most libraries do. Not the gradient of any objective (Nota & Thomas
    2020)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        least = 2 if self.baseline == "leave-one-out" else 1
        require(
            whole(self.episodes) and self.episodes >= least, "episodes", f"a whole number >= {least}", self.episodes
        )
        require(real(self.discount) and 0 <= self.discount <= 1, "discount", "a number in [0, 1]", self.discount)
        valid = self.estimator is None or ".py:" in str(self.estimator)
        require(valid, "estimator", "FILE.py:NAME", self.estimator)
        for name in ("learning_rate", "value_learning_rate"):
            value = getattr(self, name)
            require(real(value) and 0 < value < math.inf, name, "a positive number", value)
        require(real(self.kl_limit) and 0 <= self.kl_limit < math.inf, "kl_limit", "a number >= 0", self.kl_limit)
        for name in ("value_steps", "value_batch"):
            value = getattr(self, name)
            require(whole(value) and value >= 1, name, "a whole number >= 1", value)
        require(all(whole(w) and w >= 1 for w in self.hidden), "hidden", "whole numbers >= 1", self.hidden)
        for field in dataclasses.fields(self):
            choices = getattr(field.type, "__args__", ())
            value = getattr(self, field.name)
            if getattr(field.type, "__origin__", None) is Literal:
                require(value in choices, field.name, " or ".join(choices), value)
            if field.type is bool:
                require(isinstance(value, bool), field.name, "true or false", value)


Algorithm = Reinforce
ALGORITHMS: Mapping[str, type[Algorithm]] = {"reinforce": Reinforce}


@dataclass(frozen=True)
class Settings:
    """One training run: which environment, which algorithm, how long, from which seed.

    **Raises:** `LogpiError` for a value out of its range.
    """

    environment: str
    algorithm: Algorithm = dataclasses.field(default_factory=Reinforce)
    steps: int = 100_000
    seed: int = 0
    max_episode_steps: int | None = None
    workers: int | None = None
    checkpoint_every: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", step_count(self.steps))
        require(whole(self.seed) and 0 <= self.seed < 2**32, "seed", "a whole number in [0, 2^32)", self.seed)
        for name, least in (("max_episode_steps", 1), ("workers", 0), ("checkpoint_every", 1)):
            value = getattr(self, name)
            valid = value is None or (whole(value) and value >= least)
            require(valid, name, f"a whole number >= {least}", value)

    def to_json(self) -> dict[str, Any]:
        """Flat, as `from_json` and `--config` read it."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        algorithm = fields.pop("algorithm")
        name = next(name for name, kind in ALGORITHMS.items() if isinstance(algorithm, kind))
        return {**fields, "algorithm": name, **dataclasses.asdict(algorithm)}

    @staticmethod
    def from_json(fields: Mapping[str, Any], source: str) -> "Settings":
        """Settings from flat names and values.

        **Raises:** `LogpiError` that names `source` for a name that does not exist or a value that does not fit.
        """
        rest: dict[str, Any] = dict(fields)
        if isinstance(rest.get("hidden"), list):
            rest["hidden"] = tuple(rest["hidden"])
        name = rest.pop("algorithm", "reinforce")
        if name not in ALGORITHMS:
            raise LogpiError(f"{source}: unknown algorithm {name!r}; known: {', '.join(ALGORITHMS)}")
        kind = ALGORITHMS[name]
        own = {field.name for field in dataclasses.fields(kind)}
        general = {field.name for field in dataclasses.fields(Settings)} - {"algorithm"}
        unknown = [key for key in rest if key not in own | general]
        if unknown:
            import difflib

            near = difflib.get_close_matches(unknown[0], sorted(own | general), 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise LogpiError(f"{source}: unknown setting {unknown[0]!r}{hint}")
        if "environment" not in rest:
            raise LogpiError(f"{source}: no environment is named")
        try:
            algorithm = kind(**{key: value for key, value in rest.items() if key in own})
            return Settings(algorithm=algorithm, **{key: value for key, value in rest.items() if key in general})
        except (LogpiError, TypeError) as error:
            raise LogpiError(f"{source}: {error}") from None


def step_count(value: Any) -> int:
    """Environment steps: a whole number from 1 to 10^12, which 3e6 is too.

    **Raises:** `LogpiError` otherwise.
    """
    valid = whole(value) or (isinstance(value, float) and value.is_integer())
    require(valid and 1 <= value <= 10**12, "steps", "a whole number from 1 to 1e12", value)
    return int(value)
