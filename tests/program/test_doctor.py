"""`logpi doctor`: sound environments have nothing wrong, and each fault is found by its own
finding."""

import json

import gymnasium as gym
import numpy as np
import pytest

import logpi
from logpi.cli import main
from logpi.environments.doctor import examine
from logpi.environments.registry import make_environment


def found(environment, status):
    return {finding.what for finding in examine(environment, steps=300) if finding.status == status}


@pytest.mark.parametrize(
    "name", ["CartPole-v1", "gymnax:CartPole-v1", "finite:stay-or-leave", "Blackjack-v1"]
)
def test_sound_environments_have_nothing_wrong(name):
    assert found(name, "wrong") == set()
    assert {"observations", "actions", "rewards", "episodes", "seeds", "speed", "policy"} >= found(
        name, "ok"
    )


class Pictured(gym.Env):
    """A picture beside a number, which is as large as its class says."""

    observation_space = gym.spaces.Dict(
        picture=gym.spaces.Box(0, 255, (36, 36, 3), np.uint8),
        number=gym.spaces.Box(-1000, 1000, (1,), np.float32),
    )
    action_space = gym.spaces.Discrete(2)
    largest = 1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 9
        return self.seen(), {}

    def seen(self):
        picture = self.np_random.integers(0, 256, (36, 36, 3)).astype(np.uint8)
        return {"picture": picture, "number": np.array([self.largest], np.float32)}

    def step(self, action):
        self.left -= 1
        return self.seen(), 1.0, self.left == 0, False, {}


class LargelyPictured(Pictured):
    largest = 900


def test_pixels_are_no_large_numbers():
    """They are scaled. Control: a number beside them is named."""
    findings = examine(Pictured, steps=300)
    assert "(36, 36, 3)" in findings[0].text
    assert found(Pictured, "note") == set()
    assert found(LargelyPictured, "note") == {"observations"}


@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [
        pytest.param("ALE/Pong-v5", (4, 84, 84), np.uint8, marks=pytest.mark.slow),
        ("MiniGrid-Empty-5x5-v0", (151,), np.int64),
    ],
)
def test_environments_of_packages_come_with_their_wrappers(name, shape, dtype):
    spec = make_environment(name).spec
    assert (spec.observation_space.shape, spec.observation_space.dtype) == (shape, dtype)
    assert found(name, "wrong") == set()


class Sound(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.observe(), {}

    def observe(self):
        return self.np_random.uniform(-1, 1, 2).astype(np.float32)

    def reward(self):
        return 1.0

    def step(self, action):
        self.t += 1
        return self.observe(), self.reward(), self.t == 5, False, {}


class Shape(Sound):
    def observe(self):
        return np.zeros(3, np.float32)


class NotFinite(Sound):
    def observe(self):
        return np.full(2, np.nan, np.float32)


class RewardNotFinite(Sound):
    def reward(self):
        return np.inf


class Unseeded(Sound):
    def observe(self):
        return np.random.default_rng().uniform(-1, 1, 2).astype(np.float32)


@pytest.mark.parametrize(
    ("environment", "what"),
    [
        (Shape, "observations"),
        (NotFinite, "observations"),
        (RewardNotFinite, "rewards"),
        (Unseeded, "seeds"),
    ],
)
def test_what_is_wrong_is_found(environment, what):
    assert found(Sound, "wrong") == set()
    assert what in found(environment, "wrong")


class Outside(Sound):
    def observe(self):
        return 3 * super().observe()


class Large(Sound):
    observation_space = gym.spaces.Box(-1e4, 1e4, (2,), np.float32)

    def observe(self):
        return 1e3 * super().observe()


class Unpaid(Sound):
    def reward(self):
        return 0.0


class Endless(Sound):
    def step(self, action):
        return (*super().step(action)[:2], False, False, {})


@pytest.mark.parametrize(
    ("environment", "what"),
    [
        (Outside, "observations"),
        (Large, "observations"),
        (Unpaid, "rewards"),
        (Endless, "episodes"),
    ],
)
def test_what_one_should_know_is_noted(environment, what):
    assert what not in found(Sound, "note")
    assert what in found(environment, "note")


class Fails(Sound):
    def step(self, action):
        raise RuntimeError("the wheel came off")


def test_an_environment_that_fails_is_one_line():
    with pytest.raises(logpi.LogpiError, match="failed: RuntimeError: the wheel came off"):
        examine(Fails)


def test_the_command(tmp_path, capsys):
    assert main(["doctor", "CartPole-v1", "--steps", "100", "--json"]) == 0
    assert {row["status"] for row in json.loads(capsys.readouterr().out)} == {"ok"}
    file = tmp_path / "mine.py"
    file.write_text("from test_doctor import Unseeded as Mine\n")
    assert main(["doctor", f"{file}:Mine", "--steps", "100"]) == 1
    assert main(["doctor", "CartPole-v7"]) == 2
    assert "near: CartPole-v1" in capsys.readouterr().err
