"""A video shows the episode that the evaluation plays."""

import sys

import numpy as np
import pytest
from PIL import Image

import logpi
from logpi import LogpiError
from logpi.artifacts.filming import Film, write_gif
from logpi.cli import main

PPO = logpi.PPO(hidden=(8,), environments=4, rollout_steps=32, epochs=1, minibatches=1)
OWN = """
import gymnasium as gym
import numpy as np

class Counting(gym.Env):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space = gym.spaces.Box(-9, 9, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, render_mode=None, length=7):
        self.render_mode = render_mode
        self.length = length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.step_number = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.step_number += 1
        return np.zeros(1, np.float32), 1.0, self.step_number == self.length, False, {}

    def render(self):
        return np.full((20, 30, 3), 10 * self.step_number, np.uint8)

class Blind(Counting):
    def __init__(self):
        super().__init__()

class Empty(Counting):
    def render(self):
        return None
"""


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)


def train(environment, out="run", **options):
    return logpi.train(environment, PPO, steps=200, out=out, workers=0, **options)


def test_every_step_of_every_episode_is_a_frame():
    """The first before the first step, with the run's arguments of the environment."""
    train("own.py:Counting", env_kwargs={"length": 4})
    film = Film("run")
    shown = [int(frame[0, 0, 0]) // 10 for frame in film.frames(2)]
    film.close()
    assert shown == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]
    assert film.frames_per_second == 10


def test_the_filmed_episode_is_one_of_the_policy():
    """CartPole from the seed of the film, by `act`: as many steps. Control: an untrained choice of
    action 0 falls sooner.
    """
    train("CartPole-v1")
    film = Film("run", seed=3)
    frames = sum(1 for _ in film.frames(1))
    film.close()
    import gymnasium as gym

    policy = logpi.load("run")
    lengths = []
    for act in (lambda row: policy.act(row)[0], lambda row: 0):
        environment = gym.make("CartPole-v1")
        observation, _ = environment.reset(seed=3)
        ended, length = False, 0
        while not ended:
            observation, _, terminated, truncated, _ = environment.step(int(act(observation[None])))
            ended, length = terminated or truncated, length + 1
        lengths.append(length)
    assert frames == lengths[0] + 1
    assert lengths[1] != lengths[0]


def test_videos_are_files_of_their_kind(tmp_path, capsys):
    """A GIF that is read back has the frames in their order and for their time; an MP4 is one."""
    train("own.py:Counting")
    assert main(["video", "run", "--out", "film.gif"]) == 0
    assert capsys.readouterr().out.strip() == "film.gif"
    with Image.open("film.gif") as film:
        assert film.n_frames == 8
        shown = []
        for number in range(film.n_frames):
            film.seek(number)
            shown.append(int(np.asarray(film.convert("RGB"))[0, 0, 0]) // 10)
            assert film.info["duration"] == 100
    assert shown == list(range(8))
    assert main(["video", "run", "--episodes", "2", "--sampled", "--seed", "4"]) == 0
    assert (tmp_path / "run" / "video.mp4").read_bytes()[4:8] == b"ftyp"


@pytest.mark.release
def test_a_policy_of_a_compiled_environment_is_filmed_in_its_twin(capsys):
    logpi.train("gymnax:CartPole-v1", PPO, steps=200, out="compiled")
    assert main(["video", "compiled", "--out", "film.gif"]) == 2
    assert "draws no pictures: name one of Gymnasium with --env" in capsys.readouterr().err
    assert main(["video", "compiled", "--out", "film.gif", "--env", "CartPole-v1"]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--out", "film.avi"], "must end in .mp4 or .gif"),
        (["run", "--out", "missing/film.gif"], "cannot write missing/film.gif"),
        (["run", "--episodes", "0"], "episodes must be a whole number >= 1"),
        (["run", "--env", "own.py:Blind"], "could not be made.*'render_mode'"),
        (["run", "--env", "own.py:Empty"], "draws no pictures, but NoneType"),
        (["run", "--env", "CartPole-v1"], "the policy does not fit CartPole-v1"),
        (["run", "--best"], "has not been evaluated yet"),
    ],
)
def test_what_cannot_be_filmed_is_one_line(words, said, capsys):
    import re

    train("own.py:Counting", evaluate_every=0)
    assert main(["video", *words]) == 2
    found = capsys.readouterr().err
    assert re.search(said, found), found
    assert found.count("\n") == 1


def test_an_mp4_without_its_package_names_the_extra(monkeypatch):
    train("own.py:Counting")
    monkeypatch.delitem(sys.modules, "gymnasium.utils.save_video", raising=False)
    monkeypatch.setitem(sys.modules, "moviepy.video.io.ImageSequenceClip", None)
    with pytest.raises(LogpiError, match=r"pip install 'logpi\[video\]', or name a .gif"):
        logpi.record_video("run", "film.mp4")


def test_frames_are_not_played_faster_than_browsers_can(tmp_path):
    frames = [np.full((4, 4, 3), 50 * number, np.uint8) for number in range(3)]
    write_gif(tmp_path / "fast.gif", frames, 1000)
    with Image.open(tmp_path / "fast.gif") as film:
        assert film.info["duration"] == 20
