"""Training against a number, and runs against their replay."""

import csv
import dataclasses
import json
import logging

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import FiniteEnv, random_mdp

import logpi
from logpi.runs.report import SilentReporter
from logpi.theory.mdp import FiniteMDP, RewardLaw
from logpi.theory.processes import contextual_bandit, short_corridor

pytestmark = pytest.mark.slow


def arrays(folder):
    newest = sorted((folder / "checkpoints").glob("*.npz"))[-1]
    with np.load(newest, allow_pickle=False) as file:
        return {name: file[name] for name in file.files if name != "counters"}


def same(a, b):
    a, b = arrays(a), arrays(b)
    return a.keys() == b.keys() and all(a[name].tobytes() == b[name].tobytes() for name in a)


def test_cartpole_is_solved_by_the_defaults(tmp_path):
    run = logpi.train("CartPole-v1", seed=11, out=tmp_path / "run")
    assert run.evaluation.mean >= 475
    assert len(run.evaluation.returns) == 10  # 5,000 steps, 500 an episode


def test_a_policy_that_cannot_learn_does_not_solve_cartpole(tmp_path):
    """The control: the same program with a step that is too small to matter."""
    hardly = logpi.Reinforce(learning_rate=1e-7)
    run = logpi.train("CartPole-v1", hardly, steps=3e4, seed=11, out=tmp_path / "run")
    assert run.evaluation.mean < 200


class Follow(gym.Env):
    """Answer each observation with itself: -(a - o)² a step, 5 steps; doing nothing costs 5/3 an
    episode."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Box(-2, 2, (1,), np.float32)

    def _observe(self):
        self.target = self.np_random.uniform(-1, 1, 1).astype(np.float32)
        return self.target

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._observe(), {}

    def step(self, action):
        reward = -float(np.sum((action - self.target) ** 2))
        self.t += 1
        return self._observe(), reward, self.t == 5, False, {}


@pytest.mark.release
@pytest.mark.parametrize("actions", ["normal", "clipped-normal", "tanh-normal"])
def test_a_continuous_action_learns(tmp_path, actions):
    algorithm = logpi.Reinforce(actions=actions, learning_rate=0.003, kl_limit=0.03)
    run = logpi.train(Follow, algorithm, steps=4e4, seed=1, out=tmp_path / "run")
    untrained = logpi.train(Follow, algorithm, steps=1, seed=1, out=tmp_path / "untrained")
    assert logpi.evaluate(untrained.policy, Follow, episodes=100).mean < -1
    assert run.evaluation.mean > -0.3


def logits_of(policy):
    observations = np.arange(policy.encoder.size)
    return np.asarray(policy(observations).logits, np.float64)


def test_short_corridor_approaches_the_best_stochastic_policy(tmp_path):
    """Sutton & Barto, Example 13.1: probability of right 2 - √2 ≈ 0.586, value about -11.66."""
    algorithm = logpi.Reinforce(
        hidden=(), baseline="leave-one-out", learning_rate=0.003, episodes=32
    )
    run = logpi.train("finite:short-corridor", algorithm, steps=3e5, seed=2, out=tmp_path / "run")
    logits = logits_of(run.policy)
    right = 1 / (1 + np.exp(logits[0, 0] - logits[0, 1]))
    assert abs(right - (2 - 2**0.5)) < 0.05
    assert logpi.exact_objective(short_corridor(), logits) > -11.75


@pytest.mark.parametrize(
    "baseline",
    [
        "value",
        *(pytest.param(each, marks=pytest.mark.release) for each in ("leave-one-out", "none")),
    ],
)
def test_random_processes_reach_their_optimum(tmp_path, baseline):
    """Stationary policies of a process whose optimum is stationary: within 1 % of the exact optimal
    value."""
    random = np.random.default_rng(4)
    mdp = random_mdp(random, states=3, horizon=1, discount=1.0)
    algorithm = logpi.Reinforce(hidden=(), baseline=baseline, kl_limit=0.05, learning_rate=0.1)
    run = logpi.train(mdp, algorithm, steps=2e4, seed=0, out=tmp_path / "run")
    start = logpi.exact_objective(mdp, np.zeros((3, 2)))
    best = logpi.optimal_objective(mdp)
    assert logpi.exact_objective(mdp, logits_of(run.policy)) > best - 0.01 * (best - start)


@pytest.mark.parametrize(
    "algorithm",
    [
        pytest.param(
            logpi.A2C(hidden=(), learning_rate=0.05, normalize_observations=False),
            marks=pytest.mark.release,
        ),
        logpi.PPO(
            hidden=(),
            learning_rate=0.03,
            rollout_steps=16,
            epochs=4,
            minibatches=1,
            normalize_observations=False,
        ),
        pytest.param(logpi.NPG(hidden=(), kl_limit=0.05), marks=pytest.mark.release),
        pytest.param(logpi.TRPO(hidden=(), kl_limit=0.05), marks=pytest.mark.release),
    ],
)
def test_the_family_reaches_the_optimum_too(tmp_path, algorithm):
    """As above, from streams; the control is a step that is too small to matter.

    Every episode terminates: beyond a truncation these methods look at V, and their optimum is
    another.
    """
    mdp = contextual_bandit()
    run = logpi.train(mdp, algorithm, steps=4e4, seed=0, out=tmp_path / "run")
    start, best = logpi.exact_objective(mdp, np.zeros((4, 4))), logpi.optimal_objective(mdp)
    assert logpi.exact_objective(mdp, logits_of(run.policy)) > best - 0.01 * (best - start)
    slow = {"kl_limit": 1e-12} if hasattr(algorithm, "kl_limit") else {"learning_rate": 1e-9}
    idle = logpi.train(
        mdp, dataclasses.replace(algorithm, **slow), steps=4e3, out=tmp_path / "idle"
    )
    assert logpi.exact_objective(mdp, logits_of(idle.policy)) < best - 0.5 * (best - start)


@pytest.mark.release
@pytest.mark.parametrize("size", [1e-6, pytest.param(1e6, marks=pytest.mark.release)])
def test_rewards_of_any_size_are_learned(tmp_path, size):
    """In running units, from V = 0. Control: as they are, rewards of a millionth are not."""
    plain = contextual_bandit()
    law = RewardLaw(size * plain.reward_value, plain.reward_probability)
    mdp = FiniteMDP(plain.initial, plain.transition, law, plain.terminal, plain.horizon)

    def mean(config, name):
        return logpi.train(mdp, config, steps=2e4, out=tmp_path / name).evaluation.mean / size

    assert mean(logpi.A2C(), "units") > 1.8
    if size < 1:
        assert mean(logpi.A2C(normalize_returns=False), "none") < 1.7


def test_ppo_solves_cartpole(tmp_path):
    run = logpi.train("CartPole-v1", logpi.PPO(whiten=True), seed=1, out=tmp_path / "run")
    assert run.evaluation.mean >= 475


RESUMED = [
    ("CartPole-v1", logpi.Reinforce()),
    pytest.param("gymnax:CartPole-v1", logpi.Reinforce(), marks=pytest.mark.release),
    pytest.param(
        "CartPole-v1", logpi.PPO(anneal=(), epochs=2, minibatches=4), marks=pytest.mark.release
    ),
    pytest.param("gymnax:CartPole-v1", logpi.A2C(anneal=()), marks=pytest.mark.release),
    pytest.param("CartPole-v1", logpi.TRPO(anneal=()), marks=pytest.mark.release),
]


@pytest.mark.parametrize(("environment", "algorithm"), RESUMED)
def test_a_resumed_run_is_the_run_that_was_never_interrupted(tmp_path, environment, algorithm):
    """Bit for bit, parameters, optimiser states, episodes under way and counters."""

    def train(name, steps, seed=3):
        return logpi.train(environment, algorithm, steps=steps, seed=seed, out=tmp_path / name)

    train("whole", 20_000)
    train("parts", 6_000)
    logpi.resume(tmp_path / "parts", steps=13_000)
    resumed = logpi.resume(tmp_path / "parts", steps=20_000)
    assert same(tmp_path / "whole", tmp_path / "parts")
    train("other", 20_000, seed=4)
    assert not same(tmp_path / "whole", tmp_path / "other")  # the control
    rows = [
        list(csv.DictReader((tmp_path / name / "metrics.csv").read_text().splitlines()))
        for name in ("whole", "parts")
    ]

    def column(rows, tag):
        return [row[tag] for row in rows if float(row["time/total_timesteps"]) > 13_000]

    assert resumed.steps == int(float(rows[0][-1]["time/total_timesteps"]))
    for tag in ("time/total_timesteps", "rollout/ep_rew_mean"):
        assert set(column(rows[1], tag)) & set(column(rows[0], tag))


def test_the_evaluation_is_replayed_by_its_seed(tmp_path):
    run = logpi.train("CartPole-v1", steps=2_000, seed=9, out=tmp_path / "run")
    episodes = len(run.evaluation.returns)
    again = logpi.evaluate(logpi.load(tmp_path / "run"), "CartPole-v1", episodes, seed=9)
    stored = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert stored["mean"] == run.evaluation.mean
    assert abs(again.mean - run.evaluation.mean) < 5 * run.evaluation.returns.std() / episodes**0.5


@pytest.mark.release
def test_a_policy_of_gymnax_balances_the_pole_of_gymnasium(tmp_path):
    logpi.train("gymnax:CartPole-v1", steps=1.5e5, seed=1, out=tmp_path / "run")
    policy = logpi.load(tmp_path / "run")
    assert logpi.evaluate(policy, "CartPole-v1", episodes=100).mean >= 475
    with pytest.raises(logpi.LogpiError, match="does not fit Acrobot-v1"):
        logpi.evaluate(policy, "Acrobot-v1")


def test_act_answers_one_observation_or_many(tmp_path):
    run = logpi.train("CartPole-v1", steps=500, out=tmp_path / "run")
    policy = logpi.load(tmp_path / "run")
    observations = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    many = policy.act(observations)
    assert many.shape == (50,)
    assert [int(policy.act(observation)) for observation in observations] == many.tolist()
    np.testing.assert_array_equal(many, run.policy.act(observations))
    with pytest.raises(logpi.LogpiError, match=r"shape \(3,\), the policy was made for \(4,\)"):
        policy.act(np.zeros(3))
    drawn = policy.act(np.zeros((5000, 4), np.float32), np.random.default_rng(0))
    assert 0 < drawn.mean() < 1
    probability = float(jax.nn.softmax(jnp.asarray(policy(np.zeros(4, np.float32)).logits))[1])
    assert abs(drawn.mean() - probability) < 5 * (probability * (1 - probability) / 5000) ** 0.5


@pytest.mark.parametrize("environment", ["CartPole-v1", "gymnax:CartPole-v1"])
def test_every_program_is_compiled_once(tmp_path, environment, caplog):
    """However the lengths of the episodes vary."""
    jax.clear_caches()
    # for every thread: the update is compiled beside the first batch
    jax.config.update("jax_log_compiles", True)
    try:
        with caplog.at_level(logging.WARNING, logger="jax"):
            logpi.train(environment, steps=20_000, seed=0, out=tmp_path / "run")
    finally:
        jax.config.update("jax_log_compiles", False)
    names = [
        record.getMessage().split()[1]
        for record in caplog.records
        if record.getMessage().startswith("Compiling")
    ]
    updates = [name for name in names if "update" in name]
    assert len(updates) == 1, names
    assert len(names) <= 8, names


@pytest.mark.release
def test_a_gymnasium_factory_trains_to_the_same_value_as_the_compiled_process(tmp_path):
    """One algorithm, two samplers: host and compiled runs of a process agree within 5 standard
    errors."""
    mdp = random_mdp(np.random.default_rng(8), horizon=4, discount=1.0)
    algorithm = logpi.Reinforce(hidden=(), learning_rate=0.05)
    host = logpi.train(
        lambda: FiniteEnv(mdp),
        algorithm,
        steps=2e4,
        out=tmp_path / "host",
        max_episode_steps=mdp.horizon,
    )
    compiled = logpi.train(mdp, algorithm, steps=2e4, out=tmp_path / "compiled")
    values = [logpi.exact_objective(mdp, logits_of(run.policy)) for run in (host, compiled)]
    start, best = logpi.exact_objective(mdp, np.zeros((3, 2))), logpi.optimal_objective(mdp)
    assert min(values) > start + 0.5 * (best - start)
    assert abs(values[0] - values[1]) < 0.1 * (best - start)


class Living(SilentReporter):
    """How many arrays are alive after each update."""

    def __init__(self, keep=False):
        self.counts, self.kept = [], [] if keep else None

    def progress(self, settings, counters, update):
        self.counts.append(len(jax.live_arrays()))
        if self.kept is not None:
            self.kept.append(jnp.zeros(3))


@pytest.mark.parametrize(
    "algorithm", [logpi.Reinforce(episodes=4), logpi.A2C(environments=4, rollout_steps=8)]
)
def test_a_run_keeps_nothing_of_its_past(tmp_path, algorithm):
    """A learner of each batch kept alive would be 100 kB an update. The control keeps an array of
    each."""
    living, keeping = Living(), Living(keep=True)
    for name, reporter in (("run", living), ("control", keeping)):
        logpi.train(
            "CartPole-v1", algorithm, steps=1000, seed=0, out=tmp_path / name, reporter=reporter
        )
    assert len(living.counts) > 5
    assert max(living.counts[2:]) == min(living.counts[2:])
    assert max(keeping.counts[2:]) > min(keeping.counts[2:])
