"""A policy in another program acts as it does here."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import learned, untrained_run

import logpi
from logpi import LogpiError
from logpi.artifacts import exporting
from logpi.artifacts.converting import describe
from logpi.cli import main
from logpi.environments.spec import space_from_json

OWN = """
import equinox as eqx
import gymnasium as gym
import jax
import numpy as np

class Base(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gym.spaces.Discrete(4)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 9
        return self.seen(), {}

    def seen(self):
        self.observation_space.seed(int(self.np_random.integers(1000)))
        return self.observation_space.sample()

    def step(self, action):
        self.left -= 1
        return self.seen(), 1.0, self.left == 0, False, {}

class Masked(Base):
    observation_space = gym.spaces.Dict(
        {"x": Base.observation_space, "action_mask": gym.spaces.MultiBinary(4)}
    )

    def seen(self):
        return super().seen() | {"action_mask": np.array([1, 0, 1, 1], np.int8)}

class Both(Base):
    observation_space = gym.spaces.Dict({"x": Base.observation_space, "k": gym.spaces.Discrete(3)})
    action_space = gym.spaces.Dict(
        {"jump": gym.spaces.Discrete(2), "push": gym.spaces.Box(-3, 1, (2,), np.float32)}
    )

class Image(Base):
    observation_space = gym.spaces.Box(0, 255, (12, 12, 3), np.uint8)

class Camera(Base):
    observation_space = gym.spaces.Dict(
        {"camera": gym.spaces.Box(0, 255, (36, 36, 3), np.uint8), "x": Base.observation_space}
    )

class Far(Base):
    observation_space = gym.spaces.Box(1e9, 2e9, (3,), np.float64)

def network(features, outputs, key):
    return eqx.nn.MLP(features, outputs, 8, 1, key=key, activation=jax.nn.relu)
"""
KINDS = {
    "a choice": ("CartPole-v1", {}),
    "a squashed number, with a memory": (
        "Pendulum-v1",
        {"actions": "tanh-normal", "memory": "lstm"},
    ),
    "a number": ("Pendulum-v1", {}),
    "a mask": ("own.py:Masked", {}),
    "parts": ("own.py:Both", {"memory": "gru"}),
    "an image": ("own.py:Image", {}),
    "an image and numbers": ("own.py:Camera", {}),
    "a table": ("finite:short-corridor", {}),
    "a network of one's own": ("CartPole-v1", {"network": "own.py:network"}),
}


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)


def make_run(environment, folder="run", seed=0, **options):
    return untrained_run(environment, logpi.PPO(hidden=(8,), **options), folder, seed)


def session(path):
    import onnxruntime

    return onnxruntime.InferenceSession(path)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A policy of every kind and its model, all converted by one process: it starts slowly."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "own.py").write_text(OWN)
    program = "from logpi.artifacts.converting import main\n"
    with contextlib.chdir(folder):
        for kind, (environment, options) in KINDS.items():
            make_run(environment, kind, **options)
            program += f"main({kind!r}, 'latest', 'false', {kind + '.onnx'!r})\n"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.xdist_group("models")
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_acts_as_the_policy(kind, models):
    """On 1,000 observations to rounding. Control: the policy of another seed does not."""
    environment, options = KINDS[kind]
    found = describe(models / kind)["environment"]["observation_space"]
    model = (models / f"{kind}.onnx").read_bytes()
    same = logpi.load(models / kind)
    other = make_run(environment, "other", seed=1, **options)
    assert exporting.difference(same, space_from_json(found), model) <= exporting.TOLERANCE
    if kind != "a table":  # one state: both take the same action there, or not
        assert exporting.difference(other, space_from_json(found), model) > exporting.TOLERANCE


@pytest.mark.release
def test_a_model_plays_an_episode_as_the_policy_does(capsys):
    """From observations as the environment gives them, by ONNX Runtime alone: the same lengths. And
    what the converter replaces is another process's: with its `jax.numpy` the last call fails.
    """
    make_run("CartPole-v1")
    assert main(["export", "run", "model.onnx"]) == 0
    assert "differ from the policy's by 0.0e+00 at most" in capsys.readouterr().out
    model = session("model.onnx")
    policy = logpi.load("run")
    for seed in range(3):
        lengths = []
        for act in (
            lambda row: np.asarray(model.run(["action"], {"observation": row})[0]),
            lambda row: policy.act(row),
        ):
            environment = gym.make("CartPole-v1")
            observation, _ = environment.reset(seed=seed)
            ended, length = False, 0
            while not ended:
                row = np.asarray(observation, np.float32)[None]
                observation, _, terminated, truncated, _ = environment.step(int(act(row)[0]))
                ended, length = terminated or truncated, length + 1
            lengths.append(length)
        assert lengths[0] == lengths[1]
    assert "jax2onnx" not in sys.modules
    assert jnp.cumsum(jnp.ones((2, 3)), 1).shape == (2, 3)


def test_arrays_are_those_of_the_checkpoint(tmp_path):
    """By their names there, with settings and spaces as metadata."""
    import safetensors

    make_run("CartPole-v1")
    logpi.export("run", "model.safetensors")
    with safetensors.safe_open("model.safetensors", "np") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    stored = learned(Path("run"))
    kept = {name: array for name, array in stored.items() if name.startswith("policy.")}
    assert {f"policy.{name}" for name in found} == kept.keys()
    assert all(np.array_equal(found[name], kept[f"policy.{name}"]) for name in found)
    assert json.loads(metadata["settings"])["environment"] == "CartPole-v1"
    assert json.loads(metadata["environment"])["action_space"]["n"] == 2


def test_what_cannot_be_exported_is_one_line(tmp_path, monkeypatch, capsys):
    make_run("own.py:Far")
    for words in (
        ["run", "model.onnx"],  # sees from an origin
        ["run", "model.pt"],
        ["run", "missing/model.safetensors"],
        ["nothing", "model.onnx"],
    ):
        assert main(["export", *words]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert main(["export", "run", "model.safetensors"]) == 0
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(LogpiError, match=r"pip install 'logpi\[export\]'"):
        logpi.export("run", "again.safetensors")


def test_a_model_that_acts_otherwise_is_not_written(tmp_path, monkeypatch):
    """As if the converter had a fault: the actions are one more than they should be."""
    make_run("CartPole-v1")
    monkeypatch.setattr(exporting, "difference", lambda *_: 1.0)
    monkeypatch.setattr(exporting, "to_onnx", lambda *_: b"")
    with pytest.raises(LogpiError, match="differ from the policy's by 1"):
        logpi.export("run", "model.onnx")
    assert not (tmp_path / "model.onnx").exists()
