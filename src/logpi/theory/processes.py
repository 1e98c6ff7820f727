"""Finite MDPs with names, random ones, and those that a JSON file describes."""

from pathlib import Path

import numpy as np

from logpi.core.errors import LogpiError
from logpi.theory.mdp import FiniteMDP, RewardLaw


def short_corridor(horizon: int = 1000) -> FiniteMDP:
    """Sutton & Barto (2nd ed.), Example 13.1: three states that look alike, right and left
    exchanged in the second.

    -1 a step. With p the probability of right, J(p) = (2p - 4) / (p (1 - p)); the best p is 2 - √2
    ≈ 0.586 with J = -(6 + 4√2) ≈ -11.66. `horizon` cuts the endless episodes of a policy that is
    nearly deterministic.
    """
    left = 0
    right = 1
    transition = np.zeros((4, 2, 4))
    for state, action, after in [
        (0, left, 0),
        (0, right, 1),
        (1, left, 2),
        (1, right, 0),
        (2, left, 1),
        (2, right, 3),
    ]:
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
    """Where leaving out γ^t leads to the worst policy, in the spirit of Nota & Thomas (2020); all
    states look alike.

    With p the probability of right, J = 1.25 + 0.25 p for γ = ½ and 2.5 + 6.5 p for γ = 1: p = 1 is
    best for both. But the expected update without γ^t is along -0.5 p (1 - p): the first action is
    paid for rewards that it does not earn.
    """
    left = 0
    right = 1
    end = 5
    transition = np.zeros((6, 2, 6))
    reward = np.zeros((6, 2, 6))
    for state, action, after, paid in [
        (0, left, 1, 0.0),
        (0, right, 1, 1.0),
        (1, left, end, 2.5),
        (1, right, 2, 0.0),
        *(
            (state, action, state + 1, 8.0 * (state == 4))
            for state in (2, 3, 4)
            for action in (left, right)
        ),
    ]:
        transition[state, action, after] = 1
        reward[state, action, after] = paid
    transition[end, :, end] = 1
    start = np.eye(6)[0]
    terminal = np.arange(6) == end
    return FiniteMDP(
        start, transition, reward, terminal, horizon=5, discount=0.5, observation=np.zeros(6, int)
    )


def stay_or_leave() -> FiniteMDP:
    """Two places and an exit: the process on which the derivation is shown. 2 actions, at most 3
    steps, γ = 0.9.

    Staying pays a little, leaving the second place pays more or nothing, each with a chance.
    """
    stay = 0
    leave = 1
    exit_ = 2
    transition = np.zeros((3, 2, 3))
    transition[0, stay] = [0.8, 0.2, 0]
    transition[0, leave] = [0.1, 0.7, 0.2]
    transition[1, stay] = [0, 1, 0]
    transition[1, leave] = [0.3, 0, 0.7]
    transition[exit_, :, exit_] = 1
    value = np.zeros((3, 2, 3, 2))
    probability = np.full((3, 2, 3, 2), 0.5)
    value[0, stay] = [1, 0]
    value[1, stay] = [0.5, -0.5]
    value[0, leave] = -0.2
    value[1, leave, exit_] = [3, 0]
    return FiniteMDP(
        [0.75, 0.25, 0], transition, RewardLaw(value, probability), [False, False, True], 3, 0.9
    )


def contextual_bandit() -> FiniteMDP:
    """One decision a time [D2]: three situations, four arms, another arm the best in each; rewards
    plus or minus 1.

    The best policy is paid 2; one arm for all situations at most 1.
    """
    contexts = 3
    arms = 4
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
    """2 to 4 states, 2 to 3 actions, horizon 1 to 4, γ in [0, 1]; at most two next states and two
    rewards a step.

    The last state is terminal and the policy decides when it is entered, or no state is terminal.
    """
    states = int(random.integers(2, 5))
    actions = int(random.integers(2, 4))
    transition = np.zeros((states, actions, states))
    order = np.arange(states)
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
        raise LogpiError(
            f"finite MDP {name!r} is neither a JSON file nor one of {', '.join(NAMED)}"
        )
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise LogpiError(f"{path} cannot be read: {error}") from None
    return FiniteMDP.from_json(text, source=str(path))
