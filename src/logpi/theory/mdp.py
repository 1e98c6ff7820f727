"""Finite Markov decision processes: small enough that every expectation is a finite sum."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from numpy.typing import ArrayLike

from logpi.core.errors import LogpiError

_FIELDS = ("initial", "transition", "reward", "terminal", "horizon", "discount")


class RewardLaw(NamedTuple):
    """r is `value[s,a,s',k]` with `probability[s,a,s',k]`."""

    value: ArrayLike
    probability: ArrayLike


class FiniteMDP:
    """μ(s), p(s'|s,a), r(s,a,s') over S states and A actions; an episode ends in a terminal state
    or at `horizon`.

    `reward` is [S, A, S], or a `RewardLaw` of K outcomes for each; the attribute `reward` is the
    mean in both cases. `observation[s]` is the number that a policy sees in state s: by default s
    itself; equal numbers make states look alike. Reaching `horizon` *truncates* an episode,
    entering a terminal state *terminates* it.

    **Raises:** `LogpiError` naming the field that does not fit.
    """

    initial: Float[ndarray, " S"]
    transition: Float[ndarray, "S A S"]
    reward: Float[ndarray, "S A S"]
    reward_value: Float[ndarray, "S A S K"]
    reward_probability: Float[ndarray, "S A S K"]
    terminal: Bool[ndarray, " S"]
    horizon: int
    discount: float
    observation: Int[ndarray, " S"]

    def __init__(
        self,
        initial: ArrayLike,
        transition: ArrayLike,
        reward: ArrayLike | RewardLaw,
        terminal: ArrayLike,
        horizon: int,
        discount: float = 1.0,
        observation: ArrayLike | None = None,
    ):
        self.initial = _array("initial", initial, np.float64)
        self.transition = _array("transition", transition, np.float64)
        self.reward_value, self.reward_probability = _reward_law(reward)
        self.reward = np.sum(self.reward_value * self.reward_probability, axis=-1)
        self.terminal = _array("terminal", terminal, np.bool_)
        self.horizon = horizon
        self.discount = discount
        if observation is None:
            seen = np.arange(self.initial.size)
        else:
            seen = observation
        self.observation = _array("observation", seen, np.int64)
        self._check()

    def _check(self) -> None:
        states = self.transition.shape[0]
        if self.transition.ndim == 3:
            actions = self.transition.shape[1]
        else:
            actions = 0
        shapes = {
            "initial": (states,),
            "transition": (states, actions, states),
            "reward": (states, actions, states),
            "reward_value": (states, actions, states, self.reward_value.shape[-1]),
            "reward_probability": self.reward_value.shape,
            "terminal": (states,),
            "observation": (states,),
        }
        for field, shape in shapes.items():
            if getattr(self, field).shape != shape or 0 in shape:
                raise LogpiError(
                    f"FiniteMDP.{field} has shape {getattr(self, field).shape}, expected {shape}"
                    " [S, A, S]"
                )
        for field in ("initial", "transition", "reward_value"):
            if not np.isfinite(getattr(self, field)).all():
                raise LogpiError(f"FiniteMDP.{field} holds a value that is not finite")
        for field in ("initial", "transition", "reward_probability"):
            law = getattr(self, field)
            if (law < 0).any() or not np.allclose(law.sum(-1), 1, rtol=0, atol=1e-9):
                raise LogpiError(
                    f"FiniteMDP.{field} must be non-negative and sum to 1 over its last axis"
                )
        if self.terminal @ self.initial > 0:
            raise LogpiError("FiniteMDP.initial starts an episode in a terminal state")
        if self.observation.min() < 0 or set(self.observation) != set(
            range(self.observation.max() + 1)
        ):
            raise LogpiError("FiniteMDP.observation must number what is seen from 0 without gaps")
        if not isinstance(self.horizon, int) or isinstance(self.horizon, bool) or self.horizon < 1:
            raise LogpiError(
                f"FiniteMDP.horizon must be a whole number of at least 1, got {self.horizon!r}"
            )
        number = isinstance(self.discount, int | float) and not isinstance(self.discount, bool)
        if not number or not 0 <= self.discount <= 1:
            raise LogpiError(f"FiniteMDP.discount must lie in [0, 1], got {self.discount!r}")

    def replace(self, **changes: Any) -> "FiniteMDP":
        """The same process with other values of some parameters of the constructor; a law of
        rewards as its mean.
        """
        return FiniteMDP(
            **{field: getattr(self, field) for field in (*_FIELDS, "observation")} | changes
        )

    @property
    def states(self) -> int:
        """S."""
        return self.transition.shape[0]

    @property
    def actions(self) -> int:
        """A."""
        return self.transition.shape[1]

    @property
    def observations(self) -> int:
        """How many different observations there are."""
        return int(self.observation.max()) + 1

    def to_json(self) -> str:
        """The process as JSON text that `from_json` reads back exactly."""
        fields = {field: getattr(self, field) for field in (*_FIELDS, "observation")}
        if self.reward_value.shape[-1] > 1:
            law = {"value": self.reward_value, "probability": self.reward_probability}
            fields["reward"] = {name: array.tolist() for name, array in law.items()}
        return json.dumps(
            {k: v.tolist() if isinstance(v, ndarray) else v for k, v in fields.items()}
        )

    @staticmethod
    def from_json(text: str, source: str = "FiniteMDP") -> "FiniteMDP":
        """Read what `to_json` wrote.

        **Raises:** `LogpiError` that names `source` for text that is not JSON, or lacks or does not
        know a field.
        """
        try:
            fields: Any = json.loads(text)
        except json.JSONDecodeError as error:
            raise LogpiError(f"{source} is not JSON: {error}") from None
        if not isinstance(fields, Mapping):
            raise LogpiError(
                f"{source} must hold a JSON object with the fields {', '.join(_FIELDS)}"
            )
        missing = [field for field in _FIELDS[:5] if field not in fields]
        unknown = [field for field in fields if field not in (*_FIELDS, "observation")]
        if missing or unknown:
            if missing:
                wrong = f"lacks {', '.join(missing)}"
            else:
                wrong = f"has the unknown field {unknown[0]!r}"
            raise LogpiError(f"{source} {wrong}; a finite MDP has the fields {', '.join(_FIELDS)}")
        reward = fields["reward"]
        if isinstance(reward, Mapping):
            if set(reward) != set(RewardLaw._fields):
                raise LogpiError(
                    "FiniteMDP.reward as a law has exactly the fields value and probability"
                )
            reward = RewardLaw(**reward)
        return FiniteMDP(**{**fields, "reward": reward})


def _reward_law(reward: Any) -> tuple[ndarray, ndarray]:
    """Values and probabilities [S, A, S, K]; a plain array is one certain value for each (s, a,
    s').
    """
    if isinstance(reward, RewardLaw):
        return _array("reward_value", reward.value, np.float64), _array(
            "reward_probability", reward.probability, np.float64
        )
    certain = _array("reward", reward, np.float64)
    return certain[..., None], np.ones((*certain.shape, 1))


def _array(field: str, value: Any, dtype: type) -> ndarray:
    try:
        array = np.array(value, dtype)
        given = np.array(value)
        if given.dtype.kind not in "fiub" or not np.array_equal(array, given, equal_nan=True):
            raise ValueError
        array.flags.writeable = False
        return array
    except (TypeError, ValueError):
        raise LogpiError(f"FiniteMDP.{field} is not an array of numbers") from None
