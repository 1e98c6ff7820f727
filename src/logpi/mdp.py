"""Finite Markov decision processes: small enough that every expectation is a finite sum."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from numpy.typing import ArrayLike

from logpi.errors import LogpiError

_FIELDS = ("initial", "transition", "reward", "terminal", "horizon", "discount")


class RewardLaw(NamedTuple):
    """r is `value[s,a,s',k]` with `probability[s,a,s',k]`."""

    value: ArrayLike
    probability: ArrayLike


class FiniteMDP:
    """μ(s), p(s'|s,a), r(s,a,s') over S states and A actions; an episode ends in a terminal state or at `horizon`.

    `reward` is [S, A, S], or a `RewardLaw` of K outcomes for each; the attribute `reward` is the mean in both cases.
    `observation[s]` is the number that a policy sees in state s: by default s itself; equal numbers make states look
    alike. Reaching `horizon` *truncates* an episode, entering a terminal state *terminates* it.

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
        self.horizon, self.discount = horizon, discount
        seen = np.arange(self.initial.size) if observation is None else observation
        self.observation = _array("observation", seen, np.int64)
        self._check()

    def _check(self) -> None:
        states, actions = self.transition.shape[0], self.transition.shape[1] if self.transition.ndim == 3 else 0
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
                    f"FiniteMDP.{field} has shape {getattr(self, field).shape}, expected {shape} [S, A, S]"
                )
        for field in ("initial", "transition", "reward_value"):
            if not np.isfinite(getattr(self, field)).all():
                raise LogpiError(f"FiniteMDP.{field} holds a value that is not finite")
        for field in ("initial", "transition", "reward_probability"):
            law = getattr(self, field)
            if (law < 0).any() or not np.allclose(law.sum(-1), 1, rtol=0, atol=1e-9):
                raise LogpiError(f"FiniteMDP.{field} must be non-negative and sum to 1 over its last axis")
        if self.terminal @ self.initial > 0:
            raise LogpiError("FiniteMDP.initial starts an episode in a terminal state")
        if self.observation.min() < 0 or set(self.observation) != set(range(self.observation.max() + 1)):
            raise LogpiError("FiniteMDP.observation must number what is seen from 0 without gaps")
        if not isinstance(self.horizon, int) or isinstance(self.horizon, bool) or self.horizon < 1:
            raise LogpiError(f"FiniteMDP.horizon must be a whole number of at least 1, got {self.horizon!r}")
        number = isinstance(self.discount, int | float) and not isinstance(self.discount, bool)
        if not number or not 0 <= self.discount <= 1:
            raise LogpiError(f"FiniteMDP.discount must lie in [0, 1], got {self.discount!r}")

    def replace(self, **changes: Any) -> "FiniteMDP":
        """The same process with other values of some parameters of the constructor; a law of rewards as its mean."""
        return FiniteMDP(**{field: getattr(self, field) for field in (*_FIELDS, "observation")} | changes)

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
        return json.dumps({k: v.tolist() if isinstance(v, ndarray) else v for k, v in fields.items()})

    @staticmethod
    def from_json(text: str, source: str = "FiniteMDP") -> "FiniteMDP":
        """Read what `to_json` wrote.

        **Raises:** `LogpiError` that names `source` for text that is not JSON, or lacks or does not know a field.
        """
        try:
            fields: Any = json.loads(text)
        except json.JSONDecodeError as error:
            raise LogpiError(f"{source} is not JSON: {error}") from None
        if not isinstance(fields, Mapping):
            raise LogpiError(f"{source} must hold a JSON object with the fields {', '.join(_FIELDS)}")
        missing = [field for field in _FIELDS[:5] if field not in fields]
        unknown = [field for field in fields if field not in (*_FIELDS, "observation")]
        if missing or unknown:
            wrong = f"lacks {', '.join(missing)}" if missing else f"has the unknown field {unknown[0]!r}"
            raise LogpiError(f"{source} {wrong}; a finite MDP has the fields {', '.join(_FIELDS)}")
        reward = fields["reward"]
        if isinstance(reward, Mapping):
            if set(reward) != set(RewardLaw._fields):
                raise LogpiError("FiniteMDP.reward as a law has exactly the fields value and probability")
            reward = RewardLaw(**reward)
        return FiniteMDP(**{**fields, "reward": reward})


def _reward_law(reward: Any) -> tuple[ndarray, ndarray]:
    """Values and probabilities [S, A, S, K]; a plain array is one certain value for each (s, a, s')."""
    if isinstance(reward, RewardLaw):
        return _array("reward_value", reward.value, np.float64), _array(
            "reward_probability", reward.probability, np.float64
        )
    certain = _array("reward", reward, np.float64)
    return certain[..., None], np.ones((*certain.shape, 1))


def _array(field: str, value: Any, dtype: type) -> ndarray:
    try:
        array, given = np.array(value, dtype), np.array(value)
        if given.dtype.kind not in "fiub" or not np.array_equal(array, given, equal_nan=True):
            raise ValueError
        array.flags.writeable = False
        return array
    except (TypeError, ValueError):
        raise LogpiError(f"FiniteMDP.{field} is not an array of numbers") from None


def short_corridor(horizon: int = 1000) -> FiniteMDP:
    """Sutton & Barto (2nd ed.), Example 13.1: three states that look alike, right and left exchanged in the second.

    -1 a step. With p the probability of right, J(p) = (2p - 4) / (p (1 - p)); the best p is 2 - √2 ≈ 0.586 with
    J = -(6 + 4√2) ≈ -11.66. `horizon` cuts the endless episodes of a policy that is nearly deterministic.
    """
    left, right = 0, 1
    transition = np.zeros((4, 2, 4))
    for state, action, after in [(0, left, 0), (0, right, 1), (1, left, 2), (1, right, 0), (2, left, 1), (2, right, 3)]:
        transition[state, action, after] = 1
    transition[3, :, 3] = 1
    return FiniteMDP(
        initial=np.array([1.0, 0, 0, 0]),
        transition=transition,
        reward=np.full((4, 2, 4), -1.0),
        terminal=np.array([False, False, False, True]),
        horizon=horizon,
        observation=np.zeros(4, int),
    )


def discount_trap() -> FiniteMDP:
    """Where leaving out γ^t leads to the worst policy, in the spirit of Nota & Thomas (2020); all states look alike.

    With p the probability of right, J = 1.25 + 0.25 p for γ = ½ and 2.5 + 6.5 p for γ = 1: p = 1 is best for both. But
    the expected update without γ^t is along -0.5 p (1 - p): the first action is paid for rewards that it does not earn.
    """
    left, right, end = 0, 1, 5
    transition, reward = np.zeros((6, 2, 6)), np.zeros((6, 2, 6))
    for state, action, after, paid in [
        (0, left, 1, 0.0),
        (0, right, 1, 1.0),
        (1, left, end, 2.5),
        (1, right, 2, 0.0),
        *((state, action, state + 1, 8.0 * (state == 4)) for state in (2, 3, 4) for action in (left, right)),
    ]:
        transition[state, action, after], reward[state, action, after] = 1, paid
    transition[end, :, end] = 1
    start, terminal = np.eye(6)[0], np.arange(6) == end
    return FiniteMDP(start, transition, reward, terminal, horizon=5, discount=0.5, observation=np.zeros(6, int))


def stay_or_leave() -> FiniteMDP:
    """Two places and an exit: the process on which the derivation is shown. 2 actions, at most 3 steps, γ = 0.9.

    Staying pays a little, leaving the second place pays more or nothing, each with a chance.
    """
    stay, leave, exit_ = 0, 1, 2
    transition = np.zeros((3, 2, 3))
    transition[0, stay], transition[0, leave] = [0.8, 0.2, 0], [0.1, 0.7, 0.2]
    transition[1, stay], transition[1, leave] = [0, 1, 0], [0.3, 0, 0.7]
    transition[exit_, :, exit_] = 1
    value, probability = np.zeros((3, 2, 3, 2)), np.full((3, 2, 3, 2), 0.5)
    value[0, stay], value[1, stay] = [1, 0], [0.5, -0.5]
    value[0, leave], value[1, leave, exit_] = -0.2, [3, 0]
    return FiniteMDP([0.75, 0.25, 0], transition, RewardLaw(value, probability), [False, False, True], 3, 0.9)


def contextual_bandit() -> FiniteMDP:
    """One decision a time [D2]: three situations, four arms, another arm the best in each; rewards plus or minus 1.

    The best policy is paid 2; one arm for all situations at most 1.
    """
    contexts, arms = 3, 4
    end = contexts
    mean = np.array([[2.0, 1.0, 0.0, 1.0], [0.0, 2.0, 1.0, 1.0], [1.0, 0.0, 2.0, 1.0]])
    transition = np.zeros((end + 1, arms, end + 1))
    transition[:, :, end] = 1
    value = np.zeros((end + 1, arms, end + 1, 2))
    value[:end, :, end] = mean[..., None] + [-1.0, 1.0]
    start = np.append(np.full(contexts, 1 / contexts), 0.0)
    law = RewardLaw(value, np.full(value.shape, 0.5))
    return FiniteMDP(start, transition, law, np.arange(end + 1) == end, horizon=1)


def random_mdp(random: np.random.Generator) -> FiniteMDP:
    """2 to 4 states, 2 to 3 actions, horizon 1 to 4, γ in [0, 1]; at most two next states and two rewards a step.

    The last state is terminal and the policy decides when it is entered, or no state is terminal.
    """
    states, actions = int(random.integers(2, 5)), int(random.integers(2, 4))
    transition, order = np.zeros((states, actions, states)), np.arange(states)
    for row in transition.reshape(-1, states):
        row[random.choice(states, 2, replace=False)] = random.dirichlet([1, 1])
    terminal = (order == states - 1) & (random.random() < 0.7)
    starts = random.choice(states - 1, min(2, states - 1), replace=False)
    initial = np.zeros(states)
    initial[starts] = random.dirichlet(np.ones(len(starts)))
    value = random.normal(size=(states, actions, states, 2))
    law = RewardLaw(value, random.dirichlet([1, 1], (states, actions, states)))
    discount = float(random.choice([0, 1, random.uniform(), random.uniform()]))
    return FiniteMDP(initial, transition, law, terminal, int(random.integers(1, 5)), discount)


NAMED = {
    "short-corridor": short_corridor,
    "discount-trap": discount_trap,
    "stay-or-leave": stay_or_leave,
    "contextual-bandit": contextual_bandit,
}


def load_mdp(name: str) -> FiniteMDP:
    """A named process, or one read from a JSON file.

    **Raises:** `LogpiError` where it is neither.
    """
    if name in NAMED:
        return NAMED[name]()
    path = Path(name)
    if not path.is_file():
        raise LogpiError(f"finite MDP {name!r} is neither a JSON file nor one of {', '.join(NAMED)}")
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise LogpiError(f"{path} cannot be read: {error}") from None
    return FiniteMDP.from_json(text, source=str(path))
