"""What of an observation reaches the policy: its content, or a word."""

import gymnasium as gym
import numpy as np
import pytest

import logpi
from logpi import LogpiError, Reinforce
from logpi.core.quantities import bounds_of
from logpi.environments.doctor import examine
from logpi.environments.registry import make_environment
from logpi.networks.heads import NormalHead

SINCE_1970 = 1.75e9
EPISODE = 8


class Clock(gym.Env):
    """Paid for saying on which side of noon it is: 30 seconds that stand far from zero."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float64)
    action_space = gym.spaces.Discrete(2)
    origin = SINCE_1970

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._look(), {}

    def _look(self):
        self.late = self.np_random.uniform() < 0.5
        seconds = self.origin + (30 if self.late else -30)
        return np.array([seconds])

    def step(self, action):
        reward = float(action == self.late)
        self.t += 1
        return self._look(), reward, self.t == EPISODE, False, {}


class ClockInDict(Clock):
    """As a member of a Dict beside one of single precision."""

    observation_space = gym.spaces.Dict(
        {
            "seconds": gym.spaces.Box(-np.inf, np.inf, (1,), np.float64),
            "nothing": gym.spaces.Box(-1, 1, (2,), np.float32),
        }
    )

    def _look(self):
        return {"seconds": super()._look(), "nothing": np.zeros(2, np.float32)}


class SingleClock(Clock):
    """The control: what declares single precision has lost its signal before anyone sees it."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)

    def _look(self):
        return super()._look().astype(np.float32)


@pytest.mark.parametrize(
    ("kind", "learns"),
    [(Clock, True), pytest.param(ClockInDict, True, marks=pytest.mark.slow), (SingleClock, False)],
)
@pytest.mark.parametrize(
    "method", [Reinforce, pytest.param(logpi.PPO, marks=pytest.mark.slow)], ids=["reinforce", "ppo"]
)
def test_a_signal_far_from_zero_is_learned(kind, learns, method, tmp_path):
    options = {"hidden": (), "learning_rate": 0.05}
    if method is logpi.PPO:
        options |= {"environments": 8, "rollout_steps": 32}
    run = logpi.train(kind, method(**options), steps=6_000, out=tmp_path / "run", workers=0)
    assert (run.evaluation.mean > 0.95 * EPISODE) is learns
    if learns:  # a stored policy acts on what the environment gives, with the origin of its run
        policy = logpi.load(run.folder)
        assert logpi.evaluate(policy, kind, 20).mean > 0.95 * EPISODE
        moved = type("Moved", (kind,), {"origin": SINCE_1970 + 5})
        assert logpi.evaluate(policy, moved, 20).mean > 0.95 * EPISODE


@pytest.mark.slow
def test_act_takes_what_the_environment_gives(tmp_path):
    options = Reinforce(hidden=(), learning_rate=0.05)
    run = logpi.train(Clock, options, steps=6_000, out=tmp_path / "run", workers=0)
    moments = SINCE_1970 + np.array([[-30.0], [30.0]])
    assert run.policy.act(moments).tolist() == [0, 1]
    assert logpi.resume(run.folder, steps=7_000, environment=Clock).steps >= 7_000


@pytest.mark.parametrize("low", [-0.5, 999.0])
def test_what_is_near_zero_has_no_origin(low):
    kind = type("Near", (Clock,), {"origin": low})
    kind._look = lambda self: np.array([low])
    assert make_environment(kind).spec.origin is None


class Extreme(Clock):
    """One field takes a value that is too large, at step 3."""

    field = "observation"
    value = 6e300

    def step(self, action):
        observation, reward, *rest = super().step(action)
        if self.t == 3 and self.field == "observation":
            observation = np.array([self.value])
        if self.t == 3 and self.field == "reward":
            reward = self.value
        return observation, reward, *rest


@pytest.mark.parametrize(
    ("field", "value", "wrong"),
    [
        ("observation", 6e300, "beyond 1e+18, where squares leave single precision: [6.e+300]"),
        ("observation", np.inf, "not finite: [inf]"),
        ("observation", 1e30, "beyond 1e+18, where squares leave single precision: [1.e+30]"),
        ("reward", 1e30, "beyond 1e+18, where squares leave single precision: 1e+30"),
        ("reward", np.nan, "not finite: nan"),
        ("reward", 1e17, None),
    ],
)
@pytest.mark.parametrize("method", [Reinforce, logpi.A2C], ids=["reinforce", "a2c"])
def test_numbers_that_are_no_quantities(field, value, wrong, method, tmp_path):
    """Training and doctor agree. A large reward that can be squared is none of them."""
    kind = type("Kind", (Extreme,), {"field": field, "value": value, "origin": 0.0})
    options = {"hidden": ()}
    if method is Reinforce:
        options |= {"episodes": 2, "baseline": "none"}
    else:
        options |= {"environments": 2, "rollout_steps": 4}
    verdicts = [str(f) for f in examine(kind, 50) if f.status == "wrong"]
    if wrong is None:
        logpi.train(kind, method(**options), steps=50, out=tmp_path / "run")
        assert not verdicts
        return
    with pytest.raises(LogpiError) as error:
        logpi.train(kind, method(**options), steps=50, out=tmp_path / "run")
    step = 3 if field == "observation" else 2
    assert f"environment 0, episode 0, step {step}: {field} is {wrong}" in str(error.value)
    assert len(verdicts) == 1
    assert wrong.split(",")[0].split(":")[0] in verdicts[0]


def test_enormous_bounds_are_none():
    """Actions are executed as they are drawn. Control: bounds that are quantities scale them."""
    largest = np.finfo(np.float32).max
    spaces = [gym.spaces.Box(-bound, bound, (2,), np.float32) for bound in (largest, np.float32(2))]
    drawn = np.array([0.5, -3.0])
    executed = [NormalHead(space, "normal", 0.0).execute(drawn).tolist() for space in spaces]
    assert executed == [[0.5, -3.0], [1.0, -2.0]]
    assert np.isinf(bounds_of(spaces[0])).all()
    with pytest.raises(LogpiError, match="tanh-normal actions need finite bounds"):
        NormalHead(spaces[0], "tanh-normal", 0.0)


class MaskLater(Clock):
    """Its mask comes with steps alone."""

    announced = False

    def reset(self, **options):
        observation, info = super().reset(**options)
        return observation, {"action_mask": np.ones(2)} if self.announced else info

    def step(self, action):
        *answer, _ = super().step(action)
        return *answer, {"action_mask": np.ones(2)}


def test_a_mask_that_only_steps_have(tmp_path):
    options = Reinforce(hidden=(), episodes=2)
    with pytest.raises(
        LogpiError, match="step 0: step's info has an action_mask, reset's has none"
    ):
        logpi.train(MaskLater, options, steps=20, out=tmp_path / "run")
    announced = type("Announced", (MaskLater,), {"announced": True})
    assert make_environment(announced).spec.masked
    assert logpi.train(announced, options, steps=20, out=tmp_path / "other").steps >= 20
