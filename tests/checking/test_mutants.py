"""Biases that nobody listed: random mutants of correct estimators, judged by an expectation written
out here."""

import ast
import copy
import inspect
import itertools
import textwrap

import numpy as np
import pytest

import logpi
from logpi import FiniteMDP, LogpiError, exact_gradient
from logpi.theory.enumeration import enumerate_trajectories
from logpi.theory.exact import softmax

VALUE = np.array([0.7, -1.1, 0.4, 0.9])


def to_go(log_prob, reward, value, discount, step, mask):
    weight = np.zeros_like(reward)
    later = np.zeros(reward.shape[0])
    for t in range(reward.shape[1] - 1, -1, -1):
        later = reward[:, t] + discount * later
        weight[:, t] = discount**t * (later - value[:, t])
    return weight * mask


def leave_one_out(log_prob, reward, value, discount, step, mask):
    whole = np.sum(discount**step * reward * mask, axis=1)
    others = (np.sum(whole) - whole) / (len(whole) - 1)
    return (whole - others)[:, None] * mask


def cumulative(log_prob, reward, value, discount, step, mask):
    power = discount ** (1 * step) * mask
    total = np.cumsum(power * reward, axis=1)
    return (total[:, -1:] - total + power * reward - 0.5 * power * value) * mask


OPERATORS = [ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow]


def mutate(tree, random):
    """One random change of an operator, a constant, a name, or an index."""
    tree = copy.deepcopy(tree)
    nodes = [
        node
        for node in ast.walk(tree.body[0])
        if isinstance(node, ast.BinOp | ast.Constant | ast.UnaryOp | ast.Name)
    ]
    node = nodes[random.integers(len(nodes))]
    match node:
        case ast.BinOp():
            if random.random() < 0.25:
                node.left, node.right = node.right, node.left
            else:
                node.op = OPERATORS[random.integers(5)]()
        case ast.Constant(value=int() | float()):
            node.value = random.choice([node.value + 1, node.value - 1, 0.5 * node.value, 2.0])
        case ast.UnaryOp():
            node.op = ast.UAdd()
        case ast.Name(ctx=ast.Load()):
            node.id = str(
                random.choice(["reward", "value", "discount", "step", "mask", "log_prob"])
            )
    return ast.fix_missing_locations(tree)


def compiled(tree):
    space = {"np": np}
    exec(compile(tree, "mutant.py", "exec"), space)
    return next(value for name, value in space.items() if inspect.isfunction(value))


def arrays(mdp, every, chosen, discount, logits):
    length = every.mask[:, chosen].sum(0).max()
    state = every.state[:length, chosen].T
    action = every.action[:length, chosen].T
    return {
        "log_prob": np.log(softmax(logits))[state, action],
        "reward": every.reward[:length, chosen].T,
        "value": VALUE[state],
        "discount": discount,
        "step": np.where(every.mask[:length, chosen].T, np.arange(length), 0),
        "mask": every.mask[:length, chosen].T,
    }, (state, action)


def worst_bias(estimator, cases):
    """Relative bias of the mean over all pairs of trajectories, over several processes."""
    worst = 0.0
    for mdp, logits, discount in cases:
        every, policy = enumerate_trajectories(mdp), softmax(logits)
        probability, mean = every.probability(policy), np.zeros_like(logits)
        for pair in itertools.product(range(len(probability)), repeat=2):
            given, (state, action) = arrays(mdp, every, list(pair), discount, logits)
            weight = np.broadcast_to(estimator(**given), state.shape)
            for i, t in np.ndindex(*state.shape):
                share = (
                    probability[pair[0]]
                    * probability[pair[1]]
                    * weight[i, t]
                    * given["mask"][i, t]
                    / 2
                )
                mean[state[i, t]] -= share * policy[state[i, t]]
                mean[state[i, t], action[i, t]] += share
        exact = exact_gradient(mdp, logits)
        worst = max(worst, np.linalg.norm(mean - exact) / np.linalg.norm(exact))
    return worst


def small_process(random, actions, horizon):
    """Action 0 ends the episode, the others lead to two places; the third state is the end."""
    transition = np.zeros((3, actions, 3))
    transition[:, 0, 2] = transition[2, :, 2] = 1.0
    transition[:2, 1, 0] = transition[:2, 2:, 1] = 1.0
    reward = random.normal(size=(3, actions, 3)) + 0.5
    return FiniteMDP([1, 0, 0], transition, reward, [False, False, True], horizon, 0.9)


@pytest.mark.parametrize(
    ("part", "mutants"),
    [
        (0, 3),
        pytest.param(1, 10, marks=pytest.mark.slow),
        pytest.param(2, 500, marks=pytest.mark.release),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::SyntaxWarning")
def test_no_biased_mutant_is_called_exact(part, mutants):
    random = np.random.default_rng(part)
    shapes = [(2, 3), (3, 2)]
    cases = [
        (small_process(random, *shape), random.normal(size=(3, shape[0])), 0.9) for shape in shapes
    ]
    sources = [
        ast.parse(textwrap.dedent(inspect.getsource(f))) for f in (to_go, leave_one_out, cumulative)
    ]
    for tree in sources:
        assert worst_bias(compiled(tree), cases) < 1e-12
    counted, caught, called_exact, tried = 0, 0, 0, 0
    while counted < mutants:
        tried += 1
        assert tried < 40 * mutants
        tree = sources[random.integers(3)]
        for _ in range(1 + int(random.random() < 0.3)):
            tree = mutate(tree, random)
        try:
            mutant = compiled(tree)
            given, _ = arrays(
                cases[0][0], enumerate_trajectories(cases[0][0]), [0, 1, 3], 0.9, cases[0][1]
            )
            values = [
                np.broadcast_to(f(**given), given["mask"].shape) * 1.0
                for f in (mutant, compiled(sources[0]))
            ]
        except Exception:  # a mutant that does not run is no estimator
            continue
        if any(
            np.allclose(values[0], np.broadcast_to(compiled(s)(**given), values[0].shape))
            for s in sources
        ):
            continue
        counted += 1
        try:
            verdict = logpi.check(mutant, framework="numpy").verdict
        except LogpiError:
            verdict = "refused"
        try:
            bias = worst_bias(mutant, cases)
        except Exception:
            bias = np.inf
        if not bias < 1e-8:
            caught += 1
            assert verdict != "exact", ast.unparse(tree)
        called_exact += verdict == "exact"
    assert caught > 0.5 * counted
    assert called_exact > 0  # some mutants only change the baseline
