"""An environment that breaks its word is named with its place: environment, episode, step,
field."""

import os
import sys

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import small_policy

from logpi import LogpiError, Reinforce
from logpi.core.randomness import Stream, batch_key
from logpi.environments.host.local import LocalGroup
from logpi.environments.options import EnvironmentOptions
from logpi.environments.registry import make_environment
from logpi.environments.spec import CompiledEnvironment, EnvironmentSpec, HostEnvironment
from logpi.sampling.compiled.episodes import sample_episodes
from logpi.sampling.host.episodes import HostEpisodes
from logpi.sampling.host.sampler import HostSampler
from logpi.sampling.host.shares import Shares
from logpi.sampling.seam import Rollouts
from logpi.sampling.validity import how_wrong


class Faulty(gym.Env):
    """Behaves for three steps, then does what `fault` says."""

    observation_space = gym.spaces.Box(-10, 10, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)
    fault = ""

    def reset(self, *, seed=None, options=None):
        self.t = 0
        if self.fault == "reset":
            raise RuntimeError("no map loaded")
        if self.fault == "old reset":
            return np.zeros(2, np.float32)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.t += 1
        observation, reward, now = np.zeros(2, np.float32), 1.0, self.t == 3
        if now and self.fault == "exception":
            raise RuntimeError("the motor\nburnt out")
        observation = {
            "nan": np.array([0.0, np.nan], np.float32),
            "shape": np.zeros(3, np.float32),
            "broadcast": np.float32(1.0),
            "dtype": np.array(["a", "b"]),
            "complex": np.zeros(2, complex),
        }.get(self.fault if now else "", observation)
        rewards = {
            "reward": np.inf,
            "no reward": None,
            "text": "1",
            "an array": np.array([1.0]),
            "NumPy": np.float32(1),
        }
        reward = rewards.get(self.fault if now else "", reward)
        flags = {
            "said": "False",
            "nan flag": float("nan"),
            "flags": np.array([False]),
            "two": 2,
            "NumPy": np.False_,
        }
        terminated = flags.get(self.fault if now else "", self.t == 6)
        if now and self.fault == "four":
            return observation, reward, terminated, {}
        return observation, reward, terminated, False, {}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("nan", r"environment 0, episode 4, step 3: observation is not finite: \[ 0. nan\]"),
        ("reward", "environment 0, episode 4, step 2: reward is not finite: inf"),
        ("no reward", "environment 0, episode 4, step 2: reward is None, it must be a number"),
        ("text", "environment 0, episode 4, step 2: reward is '1', it must be a number"),
        (
            "an array",
            r"environment 0, episode 4, step 2: reward has shape \(1,\), it must be a number",
        ),
        ("said", "episode 4, step 2: terminated is 'False', it must be True or False"),
        ("nan flag", "episode 4, step 2: terminated is nan, it must be True or False"),
        ("flags", r"episode 4, step 2: terminated is array\(\[False\]\), it must be True or False"),
        ("two", "episode 4, step 2: terminated is 2, it must be True or False"),
        (
            "four",
            r"episode 4, step 2: step raised ValueError: not enough values .*expected 5, got 4",
        ),
        (
            "old reset",
            r"episode 4, step 0: reset returned a ndarray, it must be \(observation, info",
        ),
        ("NumPy", None),
        (
            "shape",
            r"environment 0, episode 4, step 2: observation has shape \(3,\), its space declares \(2,\)",
        ),
        (
            "broadcast",
            r"environment 0, episode 4, step 2: observation has shape \(\), its space declares \(2,\)",
        ),
        (
            "dtype",
            "environment 0, episode 4, step 2: observation has dtype <U1, its space declares"
            " float32",
        ),
        (
            "complex",
            "environment 0, episode 4, step 2: observation has dtype complex128, its space"
            " declares float32",
        ),
        (
            "exception",
            "environment 0, episode 4, step 2: step raised RuntimeError: the motor burnt out",
        ),
        ("reset", "environment 0, episode 4, step 0: reset raised RuntimeError: no map loaded"),
        ("", None),
    ],
)
def test_faults_are_named(fault, message):
    environment = make_environment(type("Faulty", (Faulty,), {"fault": fault}))
    spaces = environment.spec.observation_space, environment.spec.action_space
    policy = small_policy(*spaces, (4,), np.random.default_rng(0))
    group = LocalGroup(environment, 3)
    player = HostEpisodes(environment.spec, group, Shares(range(3), 4), 0, lambda: False)
    if message is None:
        assert player.sample(policy, 4).trajectory.mask.sum() == 18
    else:
        with pytest.raises(LogpiError, match=message):
            player.sample(policy, 4)


def test_a_discrete_observation_outside_its_space_is_named():
    class Outside(Faulty):
        observation_space = gym.spaces.Discrete(3)

        def reset(self, *, seed=None, options=None):
            return 0, {}

        def step(self, action):
            return 3, 0.0, False, False, {}

    environment = make_environment(Outside, EnvironmentOptions(5))
    spaces = environment.spec.observation_space, environment.spec.action_space
    policy = small_policy(*spaces, (4,), np.random.default_rng(0))
    group = LocalGroup(environment, 3)
    player = HostEpisodes(environment.spec, group, Shares(range(3), 4), 0, lambda: False)
    with pytest.raises(LogpiError, match=r"step 1: observation lies outside Discrete\(3\): 3"):
        player.sample(policy, 0)


FILE = """
import gymnasium as gym, numpy as np, os
class Dies(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)
    def reset(self, *, seed=None, options=None):
        print("noise on standard output")
        self.t = 0
        return np.zeros(1, np.float32), {}
    def step(self, action):
        self.t += 1
        if self.t == 2 and MODE == "raise" and os.getpid() != TRAINING:
            raise ValueError("inside the worker")
        if self.t == 2 and MODE == "die" and os.getpid() != TRAINING:
            os._exit(7)
        if self.t == 2 and MODE == "kill" and os.getpid() != TRAINING:
            os.kill(os.getpid(), 9)
        return np.zeros(1, np.float32), 1.0, self.t == 3, False, {}
"""


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("raise", "environment 4, episode 0, step 1: step raised ValueError: inside the worker"),
        ("die", r"environment 4, episode 0, step 1: step raised SystemExit: os\._exit\(7\)"),
        pytest.param(
            "kill",
            "copies 4 to 7: its worker process was ended by SIGKILL; lost 3 times in a row",
            marks=pytest.mark.slow,
        ),
        ("", None),
    ],
)
def test_workers_report_as_the_process_itself(tmp_path, mode, message):
    path = tmp_path / "mine.py"
    path.write_text(f"MODE, TRAINING = {mode!r}, {os.getpid()}\n{FILE}")
    environment = make_environment(f"{path}:Dies")
    spaces = environment.spec.observation_space, environment.spec.action_space
    policy = small_policy(*spaces, (4,), np.random.default_rng(0))
    sampler = HostSampler(environment, 12, 0, Rollouts(workers=2), lambda: False)
    try:
        if message is None:
            assert (
                sampler._placement._places.sample(policy, None, 0, None, 1000)[0].mask.sum() == 36
            )
        else:
            with pytest.raises(LogpiError, match=message):
                sampler._placement._places.sample(policy, None, 0, None, 1000)
    finally:
        sampler.close()


def not_an_environment():
    return 3


def broken():
    raise RuntimeError("no licence")


def overflowing(key):
    return (jnp.float32(1.0), jnp.int32(0)), jnp.ones(1)


def step_that_overflows(key, state, action):
    """One step to the end; what would come after it is infinite, then not a number."""
    _, t = state
    after = (jnp.where(t == 0, jnp.inf, jnp.nan), t + 1)
    return after, jnp.full(1, after[0]), jnp.float32(1.0), t == 0, jnp.bool_(False)


def test_what_lies_beyond_an_end_is_not_learned_from():
    """Compiled copies that have ended are stepped on. Control: the same observation while an
    episode runs."""
    box, two = gym.spaces.Box(-1, 1, (1,)), gym.spaces.Discrete(2)
    key = batch_key(jnp.uint32(0), Stream.TRAINING, jnp.int32(0))
    spec = EnvironmentSpec("overflowing", box, two, 5, None, {})
    ends = CompiledEnvironment(spec, overflowing, step_that_overflows)

    def on(*a):
        return (*step_that_overflows(*a)[:3], jnp.bool_(False), jnp.bool_(False))

    for environment, finite in ((ends, True), (CompiledEnvironment(spec, overflowing, on), False)):
        policy = Reinforce(episodes=3, baseline="none").make_learner(spec, 0).policy
        batch = sample_episodes(environment, policy, key, 3)
        assert bool(jnp.isfinite(batch.observation).all()) is finite


@pytest.mark.parametrize(
    ("source", "limit", "message"),
    [
        (
            "finite:short-corridor",
            20,
            "the time limit of finite:short-corridor is part of it, 1000 steps",
        ),
        (make_environment("finite:short-corridor"), 20, "is part of it, 1000 steps"),
    ],
)
def test_time_limits_that_cannot_be_replaced(source, limit, message):
    with pytest.raises(LogpiError, match=message):
        make_environment(source, EnvironmentOptions(limit))
    assert make_environment(source, EnvironmentOptions(1000)).spec.max_episode_steps == 1000


@pytest.mark.parametrize("source", ["ALE/Pong-v5", "CartPole-v1", "gymnax:CartPole-v1"])
def test_a_time_limit_is_one_of_steps(source):
    """Not of frames, of which Atari has four a step."""
    environment = make_environment(source, EnvironmentOptions(7))
    assert environment.spec.max_episode_steps == 7
    if isinstance(environment, CompiledEnvironment):
        (state, _), key = environment.reset(jax.random.key(0)), jax.random.key(1)
        for t in range(1, 8):
            state, *_, truncated = environment.step(key, state, jnp.int32(t % 2))
            assert bool(truncated) is (t == 7)
        return
    assert environment.make is not None
    copy = environment.make()
    copy.reset(seed=0)
    for t in range(1, 8):
        *_, truncated, _ = copy.step(t % 2)
        assert truncated is (t == 7)
    copy.close()


def test_atari_has_its_own_limit_in_steps():
    environment = make_environment("ALE/Pong-v5")
    assert isinstance(environment, HostEnvironment)
    assert environment.make is not None
    copy = environment.make()
    assert copy.spec.max_episode_steps == 27_000
    assert isinstance(copy, gym.wrappers.TimeLimit)
    copy.close()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("CartPole-v9", "unknown environment 'CartPole-v9'; near: CartPole-v1"),
        ("Cartpole-v1", "near: CartPole-v1"),
        ("nowhere/mine.py:Env", "nowhere/mine.py is not a file"),
        ("gymnax:CartPole-v7", "gymnax has no environment 'CartPole-v7'; near: CartPole-v1"),
        ("finite:tall-corridor", "neither a JSON file nor one of short-corridor"),
        (not_an_environment, "not_an_environment gives a int, not a gymnasium.Env"),
        (broken, "broken could not be made: RuntimeError: no licence"),
    ],
)
def test_unknown_environments_are_answered_with_what_to_do(source, message):
    with pytest.raises(LogpiError, match=message):
        make_environment(source)


@pytest.mark.parametrize(
    ("package", "source", "extra"),
    [
        ("ale_py", "ALE/Pong-v5", "atari"),
        ("minigrid", "MiniGrid-Empty-5x5-v0", "minigrid"),
        ("brax", "brax:ant", "brax"),
        ("jumanji", "jumanji:Snake-v1", "jumanji"),
        ("envpool", "envpool:CartPole-v1", "envpool"),
    ],
)
def test_a_missing_package_is_named_by_its_extra(package, source, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(LogpiError, match=rf"pip install 'logpi\[{extra}\]'"):
        make_environment(source)


def test_files_without_the_name_or_with_errors(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("class Corridor: pass\n")
    with pytest.raises(LogpiError, match="has no 'Coridor'; did you mean 'Corridor'"):
        make_environment(f"{path}:Coridor")
    other = tmp_path / "other.py"
    other.write_text("import nothing_of_that_name\n")
    with pytest.raises(LogpiError, match="does not import: ModuleNotFoundError"):
        make_environment(f"{other}:Env")


def test_a_missing_package_names_its_extra(monkeypatch):
    def missing(name, **_):
        raise gym.error.DependencyNotInstalled("Box2D is not installed")

    monkeypatch.setattr(gym, "make", missing)
    with pytest.raises(
        LogpiError, match=r"LunarLander-v3 needs a package .*: pip install 'logpi\[box2d\]'"
    ):
        make_environment("LunarLander-v3")


def test_an_error_about_an_image_shows_its_first_wrong_number():
    """In one line; the control has few numbers, which stand there as they are."""
    image = np.zeros((84, 84, 3))
    image[2, 5, 1:] = np.nan
    assert how_wrong(image) == "is not finite: nan at [2, 5, 1], 2 of 21168 numbers"
    image[np.isnan(image)] = 1e300
    assert how_wrong(image).endswith(": 1e+300 at [2, 5, 1], 2 of 21168 numbers")
    assert how_wrong(np.array([0.0, np.inf])) == "is not finite: [ 0. inf]"
