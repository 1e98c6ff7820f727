"""What several layers of tests share."""

from pathlib import Path

import equinox as eqx
import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from logpi.core.trajectory import Trajectory
from logpi.environments.registry import make_environment
from logpi.methods.update import update
from logpi.networks.options import NetworkOptions
from logpi.networks.parameters import split_statistics
from logpi.networks.policy import Policy, make_policy
from logpi.runs.checkpoint import Counters
from logpi.runs.folder import RunFolder
from logpi.runs.settings import Settings
from logpi.theory.mdp import FiniteMDP, RewardLaw

SEED_VARIABLE = "LOGPI_TEST_SEED"
# How many samples a law is tested with; a correct sampler fails a test at this level once in a
# million runs.
SAMPLES, LEVEL = 20_000, 1e-6
# Compiled, as runs call it: called as it is, its loops are compiled again every time.
compiled_update = jax.jit(update, static_argnames=("method", "budget"))
# An environment whose actions have two parts, for a file `own.py`.
OWN = """
import gymnasium as gym, numpy as np

class Both(gym.Env):
    observation_space = gym.spaces.Box(-9, 9, (3,), np.float32)
    action_space = gym.spaces.Dict(
        {"jump": gym.spaces.Discrete(2), "push": gym.spaces.Box(-1, 1, (2,), np.float32)}
    )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.np_random.normal(size=3).astype(np.float32)
        return self.x, {}

    def step(self, action):
        self.x = np.clip(self.x + 0.1 * action["push"].sum() + action["jump"], -9, 9)
        self.x = self.x.astype(np.float32)
        return self.x, float(-abs(self.x).sum()), bool(self.np_random.random() < 0.1), False, {}
"""
# For the file of an environment: of all processes that come to a flag, the first.
IS_FIRST = """
def is_first(flag):
    try:
        open(flag, "x").close()
    except FileExistsError:
        return False
    return True
"""
BOX, TWO = gym.spaces.Box(-1, 1, (3,), np.float32), gym.spaces.Discrete(2)


def one_in(step, cases):
    """The cases of a test, each a tuple of its arguments: one in `step` of them is quick, the others
    are slow.
    """
    parameters = []
    for number, case in enumerate(cases):
        marks = [pytest.mark.slow] if number % step else []
        parameters.append(pytest.param(*case, marks=marks))
    return parameters


def random_mdp(random, states=3, actions=2, horizon=3, discount=0.9, rewards=1):
    """Random transitions, and `rewards` possible rewards a step; the last state is terminal.

    So the policy controls the length of an episode.
    """
    transition = random.dirichlet(np.full(states, 0.5), (states, actions))
    initial = np.append(random.dirichlet(np.ones(states - 1)), 0.0)
    terminal = np.arange(states) == states - 1
    value = random.normal(size=(states, actions, states, rewards)) + 1.0
    reward = RewardLaw(value, np.full(value.shape, 1 / rewards))
    return FiniteMDP(initial, transition, reward, terminal, horizon, discount)


mdps = st.builds(
    lambda seed, states, actions, horizon, discount: random_mdp(
        np.random.default_rng(seed), states, actions, horizon, discount
    ),
    seed=st.integers(0, 2**32 - 1),
    states=st.integers(2, 4),
    actions=st.integers(2, 3),
    horizon=st.integers(1, 3),
    discount=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
)


def small_policy(
    observation_space, action_space, hidden, random, masked=False, **options
) -> Policy:
    """A policy with hidden layers of these widths, which sees observations as they are."""
    chosen = plain_networks(hidden, **options)
    return make_policy(observation_space, action_space, chosen, random, masked)


def plain_networks(hidden, **options) -> NetworkOptions:
    """Networks that see observations as they are, unless the options say otherwise."""
    return NetworkOptions(**dict(hidden=hidden, normalize_observations=False) | options)


def untrained_run(environment, method, folder, seed=0) -> Policy:
    """The policy of a run folder that no training has made: all its numbers are random, those of
    what was observed too.
    """
    made = make_environment(environment)
    name = environment if isinstance(environment, str) else made.spec.name
    stored = RunFolder.create(Path(folder), Settings(name, method), made.spec.to_json())
    learner = method.make_learner(made.spec, seed)
    random = np.random.default_rng(seed)

    def moved(x):
        return x + 0.5 * random.normal(size=x.shape).astype(x.dtype)

    trained, statistics = split_statistics(learner.policy.on_host())
    enlarged = jax.tree.map(lambda x: x + random.random(x.shape).astype(x.dtype), statistics)
    policy = eqx.combine(jax.tree.map(moved, trained), enlarged)
    stored.save(learner._replace(policy=policy), Counters())
    return policy


def tabular_policy(logits) -> Policy:
    """π(a|o) = softmax(logits[o])_a as a policy of the library: a linear network on one-hot
    observations."""
    observations, actions = logits.shape
    spaces = gym.spaces.Discrete(observations), gym.spaces.Discrete(actions)
    policy = small_policy(*spaces, (), np.random.default_rng(0))
    return eqx.tree_at(lambda p: p.network.weights[0], policy, jnp.asarray(logits))


def as_trajectory(enumeration, mdp) -> Trajectory:
    """Enumerated trajectories as the library's own, one column each."""
    time, count = enumeration.mask.shape
    return Trajectory(
        observation=jnp.asarray(mdp.observation[enumeration.state]),
        action=jnp.asarray(enumeration.action),
        reward=jnp.asarray(enumeration.reward),
        terminated=jnp.asarray(enumeration.terminated),
        truncated=jnp.asarray(enumeration.truncated),
        mask=jnp.asarray(enumeration.mask),
        step=jnp.broadcast_to(jnp.arange(time)[:, None], (time, count)),
        memory=jnp.zeros((count, 0)),
    )


def columns_of(trajectory, columns) -> Trajectory:
    """Some of the trajectories side by side."""
    by_time = trajectory._replace(memory=None)
    chosen = jax.tree.map(lambda x: x[:, columns], by_time)
    return chosen._replace(memory=trajectory.memory[columns])


class FiniteEnv(gym.Env):
    """A finite MDP as a Gymnasium environment; truncation is left to a TimeLimit."""

    def __init__(self, mdp):
        self.mdp = mdp
        self.observation_space = gym.spaces.Discrete(mdp.observations)
        self.action_space = gym.spaces.Discrete(mdp.actions)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = self.np_random.choice(self.mdp.states, p=self.mdp.initial)
        return int(self.mdp.observation[self.state]), {}

    def step(self, action):
        before = self.state
        self.state = self.np_random.choice(self.mdp.states, p=self.mdp.transition[before, action])
        law = self.mdp.reward_probability[before, action, self.state]
        reward = float(
            self.np_random.choice(self.mdp.reward_value[before, action, self.state], p=law)
        )
        return (
            int(self.mdp.observation[self.state]),
            reward,
            bool(self.mdp.terminal[self.state]),
            False,
            {},
        )


def random_trajectory(random, time=7, env=4, discrete=True):
    lengths = random.integers(1, time + 1, env)
    step = np.arange(time)[:, None]
    mask, last = step < lengths, step == lengths - 1
    cut = random.random(env) < 0.5
    return Trajectory(
        observation=jnp.asarray(random.normal(size=(time, env, 3))),
        action=jnp.asarray(
            random.integers(0, 2, (time, env)) if discrete else random.normal(size=(time, env, 2))
        ),
        reward=jnp.asarray(
            random.normal(size=(time, env))
        ),  # junk after the end, which nothing may see
        terminated=jnp.asarray(last & ~cut),
        truncated=jnp.asarray(last & cut),
        mask=jnp.asarray(mask),
        step=jnp.broadcast_to(jnp.asarray(step), mask.shape),
        memory=jnp.zeros((env, 0)),
    )


def learned(folder):
    """All arrays of a run's last checkpoint, but for the counters, which hold seconds."""
    found = dict(np.load(RunFolder.open(Path(folder)).checkpoints()[0]))
    del found["counters"]
    return found


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)
