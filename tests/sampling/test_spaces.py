"""Spaces beyond Box and Discrete: what environments receive, what policies see, and which actions
are allowed."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
from helpers import small_policy, untrained_run

import logpi
from logpi import LogpiError
from logpi.environments.host.local import LocalGroup
from logpi.environments.registry import make_environment
from logpi.environments.spec import space_from_json, space_to_json
from logpi.networks.distributions import Categorical, Product
from logpi.sampling.host.episodes import HostEpisodes
from logpi.sampling.host.shares import Shares


class Match(gym.Env):
    """Pays for every choice that matches the observation; refuses what is not in its action
    space."""

    observation_space = gym.spaces.Dict(
        a=gym.spaces.Discrete(3), b=gym.spaces.Box(-1, 1, (2,), np.float32)
    )
    action_space = gym.spaces.MultiDiscrete([3, 2], start=[1, 0])
    best = 20

    def observe(self):
        self.seen = {
            "a": int(self.np_random.integers(3)),
            "b": self.np_random.uniform(-1, 1, 2).astype(np.float32),
        }
        return self.seen

    def matches(self, action):
        assert self.action_space.contains(np.asarray(action, self.action_space.dtype))
        return float(action[0] - 1 == self.seen["a"]) + float(action[1] == (self.seen["b"][0] > 0))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.observe(), {}

    def step(self, action):
        reward = self.matches(action)
        self.t += 1
        return self.observe(), reward, False, self.t == 10, {}


class Copy(Match):
    """The same with bits."""

    observation_space = gym.spaces.MultiBinary(2)
    action_space = gym.spaces.MultiBinary(2)

    def observe(self):
        self.seen = self.np_random.integers(0, 2, 2).astype(np.int8)
        return self.seen

    def matches(self, action):
        assert self.action_space.contains(np.asarray(action, self.action_space.dtype))
        return float((np.asarray(action) == self.seen).sum())


class Masked(gym.Env):
    """Two of four actions are allowed, the larger pays; whatever is not allowed is counted."""

    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(4)
    steps = invalid = 0
    none_at = None

    def observe(self):
        self.mask = np.zeros(4, np.int8)
        self.mask[self.np_random.choice(4, 2, replace=False)] = self.t != self.none_at
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {"action_mask": self.mask}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.observe()

    def step(self, action):
        type(self).steps += 1
        type(self).invalid += not self.mask[action]
        reward = float(action == self.mask.nonzero()[0].max(initial=-1))
        self.t += 1
        observation, info = self.observe()
        return observation, reward, False, self.t == 10, info


class MaskedDict(Masked):
    """The mask in the observation."""

    observation_space = gym.spaces.Dict(
        action_mask=gym.spaces.Box(0, 1, (4,), np.int8), x=Masked.observation_space
    )

    def observe(self):
        observation, info = super().observe()
        return {"x": observation, **info}, {}


class Unmasked(Masked):
    """The control: nobody is told."""

    def observe(self):
        return super().observe()[0], {}


METHODS = [logpi.Reinforce(kl_limit=0.03, episodes=32), logpi.PPO(rollout_steps=64, minibatches=4)]
ALGORITHMS = [
    pytest.param(METHODS[0], marks=pytest.mark.slow),
    pytest.param(METHODS[1], marks=pytest.mark.release),
]


@pytest.mark.release
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("environment", [pytest.param(Match, marks=pytest.mark.release), Copy])
def test_products_of_choices_are_learned(environment, algorithm, tmp_path):
    idle = dataclasses.replace(algorithm, learning_rate=1e-9)
    untrained = logpi.train(environment, idle, steps=1, seed=1, out=tmp_path / "untrained")
    run = logpi.train(environment, algorithm, steps=3e4, seed=1, out=tmp_path / "run")
    assert run.evaluation.mean > 0.9 * Match.best > untrained.evaluation.mean + 2
    same = logpi.evaluate(logpi.load(tmp_path / "run"), environment, episodes=100, seed=1)
    assert same.mean > 0.9 * Match.best


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    "environment", [Masked, pytest.param(MaskedDict, marks=pytest.mark.release)]
)
def test_no_action_is_taken_that_is_not_allowed(environment, algorithm, tmp_path):
    environment.steps = environment.invalid = 0
    run = logpi.train(environment, algorithm, steps=3e4, seed=1, out=tmp_path / "run")
    assert environment.steps > 30_000
    assert environment.invalid == 0
    assert run.evaluation.mean > 9


@pytest.mark.release
def test_ten_million_masked_actions_are_all_allowed():
    environment = make_environment(Masked)
    group = LocalGroup(environment, 256)
    player = HostEpisodes(environment.spec, group, Shares(range(256), 4), 0, lambda: False)
    Masked.steps = Masked.invalid = 0
    while Masked.steps < 10_000_000:
        policy = METHODS[0].make_learner(environment.spec, Masked.steps).policy
        player.sample(policy, Masked.steps)
    assert Masked.invalid == 0


def test_without_the_mask_some_are_taken(tmp_path):
    Unmasked.steps = Unmasked.invalid = 0
    method = logpi.Reinforce(hidden=(8,), baseline="none")
    logpi.train(Unmasked, method, steps=3e3, seed=1, out=tmp_path / "run")
    assert Unmasked.invalid > 0.1 * Unmasked.steps


def test_a_mask_that_allows_nothing_is_named(tmp_path):
    class Stuck(Masked):
        none_at = 3

    for number, algorithm in enumerate(METHODS):
        with pytest.raises(
            LogpiError, match=r"environment 0, episode 0, step 3: action_mask allows no action"
        ):
            logpi.train(Stuck, algorithm, steps=1e3, out=tmp_path / f"{number}")


def test_the_masked_law_is_that_of_the_allowed_actions(random):
    """Sampling, log π, entropy and KL of one law: the softmax over the allowed actions alone."""
    spec = make_environment(Masked).spec

    policy = small_policy(
        spec.observation_space, spec.action_space, (8,), random, masked=spec.masked
    )
    observation = np.concatenate([[1.0, 0.0, 1.0, 0.0], random.normal(size=2)])
    law = policy(observation)
    logits = np.asarray(policy.network(policy.encoder(observation)))[[0, 2]]
    expected = np.exp(logits) / np.exp(logits).sum()
    probability = np.exp([float(law.log_prob(np.asarray(a))) for a in range(4)])
    np.testing.assert_allclose(probability, [expected[0], 0, expected[1], 0], atol=1e-6)
    np.testing.assert_allclose(law.entropy(), -(expected * np.log(expected)).sum(), rtol=1e-5)
    assert float(law.kl(law)) == pytest.approx(0, abs=1e-6)


def test_several_choices_are_a_product(random):
    logits, other = random.normal(size=(2, 5)).astype(np.float32)
    action, parts = np.array([[2, 1]]), (Categorical(logits[:3]), Categorical(logits[3:]))
    theirs = (Categorical(other[:3]), Categorical(other[3:]))
    logits, other = logits[None], other[None]
    joint = Product((Categorical(logits[..., :3]), Categorical(logits[..., 3:])))
    each = [float(p.log_prob(np.array(a))) for p, a in zip(parts, action[0], strict=True)]
    assert joint.log_prob(action) == pytest.approx(sum(each))
    assert joint.entropy() == pytest.approx(sum(float(p.entropy()) for p in parts))
    expected = sum(float(p.kl(q)) for p, q in zip(parts, theirs, strict=True))
    assert joint.kl(
        Product((Categorical(other[..., :3]), Categorical(other[..., 3:])))
    ) == pytest.approx(expected)
    np.testing.assert_array_equal(
        joint.sample(np.zeros((1, 5), np.float32)),
        [[logits[0, :3].argmax(), logits[0, 3:].argmax()]],
    )


class Nested(Match):
    """A choice, bits and a number, each paid where it matches what was seen; refuses what is not in
    its space."""

    action_space = gym.spaces.Dict(
        choice=gym.spaces.Discrete(3, start=1),
        rest=gym.spaces.Tuple([gym.spaces.Box(-1, 1, (2,), np.float32), gym.spaces.MultiBinary(1)]),
    )

    def matches(self, action):
        assert self.action_space.contains(action), action
        number, bit = action["rest"]
        right = float(action["choice"] - 1 == self.seen["a"]) + float(
            bit[0] == (self.seen["b"][0] > 0)
        )
        return right - float(np.square(number - self.seen["b"]).sum())


@pytest.mark.release
@pytest.mark.parametrize("algorithm", METHODS)
def test_nested_actions_are_learned(algorithm, tmp_path):
    run = logpi.train(Nested, algorithm, steps=6e4, seed=1, out=tmp_path / "run")
    assert run.evaluation.mean > 18
    assert logpi.evaluate(logpi.load(tmp_path / "run"), Nested, episodes=100, seed=1).mean > 18


@pytest.mark.parametrize(
    "space",
    [
        gym.spaces.MultiDiscrete([3, 2], start=[1, 0]),
        gym.spaces.MultiBinary(3),
        gym.spaces.MultiBinary([2, 2]),
        Nested.action_space,
        gym.spaces.Dict([("z", gym.spaces.Discrete(2)), ("a", gym.spaces.Discrete(3))]),
    ],
)
def test_spaces_survive_json(space):
    again = space_from_json(space_to_json(space))
    assert again == space
    if isinstance(space, gym.spaces.Dict):  # its parts are the numbers of an action, in this order
        assert isinstance(again, gym.spaces.Dict)
        assert [*again] == [*space]


class Choices(Match):
    """Observations of several whole numbers."""

    observation_space = gym.spaces.MultiDiscrete([3, 2])

    def observe(self):
        self.seen = {"a": int(self.np_random.integers(3)), "b": self.np_random.uniform(-1, 1, 2)}
        return np.array([self.seen["a"], int(self.seen["b"][0] > 0)])


class Pair(Match):
    """A Tuple of parts of several lengths, in which the order counts."""

    observation_space = gym.spaces.Tuple(
        [gym.spaces.Box(-1, 1, (2,), np.float32), gym.spaces.Discrete(3)]
    )

    def observe(self):
        super().observe()
        return self.seen["b"], self.seen["a"]


@pytest.mark.parametrize("environment", [Match, Copy, Choices, Pair, MaskedDict])
def test_a_loaded_policy_takes_what_the_environment_gives(environment, tmp_path):
    """It sees what the policy saw in training: the same actions as for the row of numbers."""
    untrained_run(environment, logpi.PPO(hidden=(8,)), tmp_path / "run")
    policy = logpi.load(tmp_path / "run")
    made = make_environment(environment)
    assert made.make is not None
    seen_by_policies = made.make()
    own = environment()
    actions = set()
    for seed in range(20):
        row, _ = seen_by_policies.reset(seed=seed)
        given, _ = own.reset(seed=seed)
        action = policy.act(given)
        np.testing.assert_array_equal(action, policy.act(row))
        actions.add(str(action))
        own.step(action)
    assert len(actions) > 1, "a policy that does not look would pass"


@pytest.mark.parametrize(
    ("environment", "observation"),
    [
        (Match, {"a": 1}),
        (Match, {"a": 1, "b": np.zeros(3)}),
        (Match, {"a": 7, "b": np.zeros(2)}),
        (Match, {"a": 1, "b": np.full(2, np.nan)}),
        (Match, 3),
        (Pair, (np.zeros(2),)),
        (Choices, np.zeros((4, 2), int)),
    ],
)
def test_what_is_no_observation_of_a_nested_space_is_refused(environment, observation):
    policy = logpi.Reinforce().make_learner(make_environment(environment).spec, 0).policy
    with pytest.raises(LogpiError, match="observation"):
        policy.act(observation)
