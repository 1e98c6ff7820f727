"""Memories, images, own networks and annealing in training, against a number and against their
control."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
from test_training import same

import logpi
from logpi import LogpiError
from logpi.core.options import options_at
from logpi.theory.processes import discount_trap

pytestmark = pytest.mark.slow


class Recall(gym.Env):
    """Shows a sign once, then nothing; the last of four actions is paid if it repeats the sign. By
    chance 0."""

    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.sign = 0, int(self.np_random.integers(2))
        return np.array([2 * self.sign - 1, 0], np.float32), {}

    def step(self, action):
        self.t += 1
        ended = self.t == 4
        reward = float(2 * (action == self.sign) - 1) if ended else 0.0
        return np.array([0, self.t / 4], np.float32), reward, ended, False, {}


STREAMS = dict(environments=16, rollout_steps=32, learning_rate=5e-3, minibatches=4, epochs=4)
REMEMBERING = logpi.PPO(memory="gru", memory_size=16, **STREAMS)
OTHERS = [
    logpi.Reinforce(memory="gru", memory_size=16, kl_limit=0.02, episodes=64),
    logpi.PPO(memory="lstm", memory_size=16, **STREAMS),
    logpi.TRPO(
        memory="gru", memory_size=16, environments=16, rollout_steps=32, value_minibatches=4
    ),
]


@pytest.mark.parametrize(
    "algorithm",
    [REMEMBERING, *(pytest.param(other, marks=pytest.mark.release) for other in OTHERS)],
)
def test_what_was_seen_before_is_remembered(algorithm, tmp_path):
    run = logpi.train(Recall, algorithm, steps=5e4, seed=1, out=tmp_path / "run")
    assert run.evaluation.mean > 0.9
    assert logpi.evaluate(logpi.load(tmp_path / "run"), Recall, episodes=100).mean > 0.9


def test_without_a_memory_it_is_not(tmp_path):
    algorithm = dataclasses.replace(REMEMBERING, memory="none")
    run = logpi.train(Recall, algorithm, steps=5e4, seed=1, out=tmp_path / "run")
    # ± 1 by chance: 5 standard errors
    assert abs(run.evaluation.mean) < 5 / len(run.evaluation.returns) ** 0.5


@pytest.mark.parametrize(
    "environment", [pytest.param("gymnax:MemoryChain-bsuite", marks=pytest.mark.release), Recall]
)
def test_a_run_with_a_memory_is_resumed_bit_for_bit(environment, tmp_path):
    algorithm = logpi.PPO(memory="gru", memory_size=8, anneal=(), **STREAMS)
    logpi.train(environment, algorithm, steps=2000, seed=3, out=tmp_path / "whole")
    logpi.train(environment, algorithm, steps=900, seed=3, out=tmp_path / "cut")
    logpi.resume(tmp_path / "cut", steps=2000, environment=environment)
    assert same(tmp_path / "whole", tmp_path / "cut")


def test_a_policy_with_a_memory_acts_by_hand(tmp_path):
    """The loop of the docstring of `act`, and the message where what is remembered is missing."""
    run = logpi.train(Recall, REMEMBERING, steps=5e4, seed=1, out=tmp_path / "run")
    policy, paid = logpi.load(run.folder), []
    with pytest.raises(LogpiError, match="has a memory"):
        policy.act(np.zeros((1, 2)))
    for seed in range(20):
        environment, memory, ended, reward = Recall(), policy.initial_memory(1), False, 0.0
        observation, _ = environment.reset(seed=seed)
        while not ended:
            memory = policy.next_memory(observation[None], memory)
            action = policy.act(observation[None], memory=memory)[0]
            observation, reward, ended, *_ = environment.step(action)
        paid.append(reward)
    assert np.mean(paid) > 0.8


class Spot(gym.Env):
    """An image with one bright square, left or right, which is the right action; 5 steps."""

    observation_space = gym.spaces.Box(0, 255, (6, 6, 1), np.uint8)
    action_space = gym.spaces.Discrete(2)

    def observe(self):
        self.side = int(self.np_random.integers(2))
        image = np.zeros((6, 6, 1), np.uint8)
        image[self.np_random.integers(6), 3 * self.side + self.np_random.integers(3)] = 255
        return image

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.observe(), {}

    def step(self, action):
        self.t += 1
        reward = float(action == self.side)
        return self.observe(), reward, self.t == 5, False, {}


NETWORKS = """
import equinox as eqx

def net(features, outputs, key):
    return eqx.nn.MLP(features, outputs, 32, 1, key=key)

class Pixels(eqx.Module):
    layer: eqx.nn.Linear
    def __call__(self, image):
        return self.layer(image.ravel())

def pixels(shape, outputs, key):
    height, width, channels = shape
    return Pixels(eqx.nn.Linear(height * width * channels, outputs, key=key))

def too_wide(features, outputs, key):
    return eqx.nn.MLP(features, outputs + 1, 32, 1, key=key)

def fails(features, outputs, key):
    raise ValueError("no such layer")
"""


@pytest.fixture
def networks(tmp_path):
    path = tmp_path / "networks.py"
    path.write_text(NETWORKS)
    return path


@pytest.mark.release
@pytest.mark.parametrize("own", [False, pytest.param(True, marks=pytest.mark.release)])
def test_images_are_learned_from(own, networks, tmp_path):
    """With the library's convolutions, and with a network of the user's own on the pixels; 2.5 by
    chance."""
    algorithm = logpi.PPO(network=f"{networks}:pixels" if own else None, **STREAMS)
    run = logpi.train(Spot, algorithm, steps=2e4, seed=1, out=tmp_path / "run")
    assert run.evaluation.mean > 4.5
    idle = logpi.train(
        Spot, dataclasses.replace(algorithm, learning_rate=1e-9), steps=1e3, out=tmp_path / "idle"
    )
    assert idle.evaluation.mean < 3.5


@pytest.mark.release
def test_an_own_network_is_trained_and_loaded(networks, tmp_path):
    algorithm = logpi.Reinforce(network=f"{networks}:net")
    run = logpi.train("CartPole-v1", algorithm, steps=5e4, seed=1, out=tmp_path / "run")
    assert run.evaluation.mean > 100
    again = logpi.evaluate(logpi.load(tmp_path / "run"), "CartPole-v1", episodes=32, seed=1)
    assert again.mean > 100


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "too_wide",
            r"maps an array of shape \(4,\) to one of shape \(2,\); its output has shape \(3,\)",
        ),
        ("fails", "raised ValueError: no such layer"),
        ("nat", "did you mean 'net'"),
    ],
)
def test_a_network_that_does_not_fit_is_named(name, message, networks, tmp_path):
    with pytest.raises(LogpiError, match=message):
        logpi.train(
            "CartPole-v1",
            logpi.Reinforce(network=f"{networks}:{name}"),
            steps=1,
            out=tmp_path / "run",
        )


def test_any_option_may_change_over_the_budget():
    config = logpi.PPO(anneal=("learning_rate", "clip=0.05", "entropy_coefficient=0.01"), clip=0.25)
    half = options_at(config, 0.5)
    assert half.learning_rate == pytest.approx(0.5 * config.learning_rate)
    assert half.clip == pytest.approx(0.15)
    assert half.entropy_coefficient == pytest.approx(0.005)
    assert options_at(config, 0.0) == config
    for wrong in ("clip=-1", "rate", "epochs=3", "learning_rate=x", "trace_decay=2"):
        with pytest.raises(LogpiError):
            logpi.PPO(anneal=(wrong,))


@pytest.mark.release
def test_the_discount_power_decides_between_the_best_and_the_worst(tmp_path):
    """Nota & Thomas (2020): with γ^t the optimum of both objectives, without it the worst policy of
    both."""
    mdp = discount_trap()
    for right in (0.1, 0.5, 0.9):
        logits = np.log([[1 - right, right]])
        assert logpi.exact_objective(mdp, logits) == pytest.approx(1.25 + 0.25 * right)
    for drop, expected in ((False, 9.0), (True, 2.5)):
        algorithm = logpi.Reinforce(discount=0.5, hidden=(), drop_discount_power=drop)
        run = logpi.train(mdp, algorithm, steps=5e4, seed=1, out=tmp_path / str(drop))
        assert run.evaluation.mean == expected
