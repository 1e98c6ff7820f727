"""Environments as people write them: limits, bounds, numbers, files, and what is wrong with them in
one line."""

import gc

import gymnasium as gym
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.envs.classic_control.cartpole import CartPoleEnv, CartPoleVectorEnv
from helpers import small_policy

import logpi
from logpi import LogpiError, Reinforce
from logpi.environments.doctor import examine
from logpi.environments.host.group import EnvironmentFailure
from logpi.environments.host.local import LocalGroup
from logpi.environments.host.vector import VectorGroup
from logpi.environments.options import EnvironmentOptions
from logpi.environments.registry import make_environment
from logpi.environments.spec import HostEnvironment
from logpi.runs.evaluation import require_fitting

BOX, TWO = gym.spaces.Box(-1, 1, (2,), np.float32), gym.spaces.Discrete(2)


class Plain(gym.Env):
    """Never ends."""

    observation_space, action_space = BOX, TWO

    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), 1.0, False, False, {}


LAWS = ["normal", "clipped-normal", "tanh-normal"]


def policy_for(spec, random, **options):
    return small_policy(
        spec.observation_space, spec.action_space, (4,), random, masked=spec.masked, **options
    )


@pytest.mark.parametrize(
    "factory",
    [
        lambda: gym.wrappers.TimeLimit(Plain(), 50),
        lambda: gym.wrappers.TransformReward(gym.wrappers.TimeLimit(Plain(), 50), lambda r: r),
    ],
)
def test_a_time_limit_of_its_own_is_kept_and_can_be_replaced(factory):
    for asked, limit in ((None, 50), (7, 7)):
        environment = make_environment(factory, EnvironmentOptions(asked))
        assert environment.spec.max_episode_steps == limit
        assert isinstance(environment, HostEnvironment)
        assert environment.make is not None
        copy = environment.make()
        copy.reset()
        assert [copy.step(0)[3] for _ in range(limit)] == [False] * (limit - 1) + [True]
    assert make_environment(Plain).spec.max_episode_steps == 1000


@pytest.mark.parametrize(
    ("low", "high"),
    [(0, np.inf), (-np.inf, 0.5), (0.1, 0.3), (-0.7, 0.1), (-3, 5), (-np.inf, np.inf)],
)
@pytest.mark.parametrize("law", LAWS)
def test_executed_actions_lie_in_their_box(low, high, law, random):
    """Even where only one bound is finite, and where rounding passes it; for NumPy and for JAX."""
    space = gym.spaces.Box(np.float32(low), np.float32(high), (3,), np.float32)
    if law != "normal" and not (np.isfinite(low) and np.isfinite(high)):
        with pytest.raises(LogpiError, match=f"{law} actions need finite bounds"):
            small_policy(BOX, space, (4,), random, actions=law)
        return
    policy = small_policy(BOX, space, (4,), random, actions=law)
    sampled = np.concatenate([random.normal(size=(200, 3)) * 3, [[9.0] * 3, [-9.0] * 3]]).astype(
        np.float32
    )
    for array in (sampled, jnp.asarray(sampled)):
        assert all(
            space.contains(np.asarray(row)) for row in np.asarray(policy.execute(array), np.float32)
        )


class Big(Plain):
    """Numbers of which 32 bits know only the remainder."""

    observation_space = gym.spaces.Box(0, 2**40, (2,), np.int64)

    def reset(self, *, seed=None, options=None):
        return np.array([2**33, 5]), {}


def test_integers_of_64_bits_keep_their_size():
    group = LocalGroup(make_environment(Big), 1)
    group.reset([0], [0])
    assert group.observation.astype(np.float32).tolist() == [[2**33, 5]]


def test_numbers_of_another_kind_than_declared_are_named():
    small = type("Small", (Big,), {"observation_space": gym.spaces.Box(0, 9, (2,), np.int64)})
    small.reset = lambda self, *, seed=None, options=None: (np.array([0.5, 1.5]), {})
    for kind in (small, type("Large", (small,), {"observation_space": Big.observation_space})):
        with pytest.raises(EnvironmentFailure, match="dtype float64, its space declares int64"):
            LocalGroup(make_environment(kind), 1).reset([0], [0])


def spaces(observation, action):
    return type("Mine", (Plain,), {"observation_space": observation, "action_space": action})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (gym.spaces.MultiDiscrete([2, 3]), gym.spaces.MultiDiscrete([3, 2])),
        (gym.spaces.Discrete(3), gym.spaces.Discrete(3, start=5)),
        (gym.spaces.Box(-1, 1, (2,)), gym.spaces.Box(-5, -3, (2,))),
        (gym.spaces.Box(-1, 1, (2,)), gym.spaces.Box(-1, 1, (2, 1))),
    ],
)
def test_a_policy_fits_the_spaces_it_was_made_for_alone(one, other, random):
    specs = [make_environment(spaces(BOX, space)).spec for space in (one, other)]
    for spec, wrong in (specs, specs[::-1]):
        policy = policy_for(spec, random)
        require_fitting(policy, spec)
        with pytest.raises(LogpiError, match="the policy does not fit Mine, whose actions are"):
            require_fitting(policy, wrong)


@pytest.mark.parametrize(
    "space", [gym.spaces.Box(-1, 1, (2,)), gym.spaces.Tuple([TWO, gym.spaces.Box(-1, 1, (2,))])]
)
@pytest.mark.parametrize("law", LAWS)
def test_a_policy_fits_whatever_the_law_of_its_actions(space, law, random):
    spec = make_environment(spaces(BOX, space)).spec
    require_fitting(policy_for(spec, random, actions=law), spec)


EMPTY = gym.spaces.Box(0, 1, (0,))


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (spaces(EMPTY, TWO), "has no numbers"),
        (spaces(BOX, EMPTY), "leaves nothing to choose"),
        (spaces(None, TWO), "Mine has no observation_space"),
        (
            spaces(gym.spaces.Dict(action_mask=BOX, x=BOX), gym.spaces.MultiDiscrete([2, 2])),
            "needs Discrete actions",
        ),
        (lambda: gym.make("CartPole-v1").spec, "not a gymnasium.Env"),
    ],
)
def test_what_cannot_be_learned_on_is_one_line(environment, message, tmp_path):
    with pytest.raises(LogpiError, match=message):
        logpi.train(environment, steps=10, out=tmp_path / "run")


FILE = """
from __future__ import annotations
import sys
from dataclasses import dataclass
import equinox as eqx, gymnasium as gym, jax, jax.numpy as jnp, numpy as np
from logpi.environments.spec import CompiledEnvironment, EnvironmentSpec

@dataclass
class Settings:
    length: int = 3

class Network(eqx.Module):
    layer: eqx.nn.Linear
    def __call__(self, x): return self.layer(x)

def network(features, outputs, key): return Network(eqx.nn.Linear(features, outputs, key=key))

class Mine(gym.Env):
    observation_space, action_space = gym.spaces.Box(-1, 1, (1,)), gym.spaces.Discrete(2)
    fault = ""
    def reset(self, *, seed=None, options=None):
        self.t = 0
        return np.zeros(1, np.float32), {}
    def step(self, action):
        self.t += 1
        if self.fault == "exit": sys.exit(0)
        ended = np.zeros(2, bool) if self.fault == "flags" else self.t == Settings().length
        seen = [[0.0], [0.0, 1.0]] if self.fault == "ragged" else np.zeros(1, np.float32)
        return seen, 1.0, ended, False, {}
    def close(self):
        if self.fault == "close": raise RuntimeError("already closed")

def of(fault): return type("Mine", (Mine,), {"fault": fault})
Exits, Flags, Ragged, Closes = map(of, ("exit", "flags", "ragged", "close"))

SPEC = EnvironmentSpec("mine", Mine.observation_space, Mine.action_space, 4, None, {})
reset = lambda key: (jnp.int32(0), jnp.zeros(1))
step = lambda key, state, action: (state + 1, jnp.zeros(1), 1.0, state == 3, False)
def compiled(**other):
    answer = dict(state=jnp.int32(0), observation=jnp.zeros(1), reward=1.0 * jnp.ones(()))
    answer |= dict(ended=jnp.bool_(True), cut=jnp.bool_(False))
    return CompiledEnvironment(SPEC, reset, lambda key, state, action: tuple((answer | other).values()))
Sound, Wide = compiled(), compiled(observation=jnp.zeros(2))
Row, Real = compiled(reward=jnp.ones(1)), compiled(state=jnp.ones(()))
Whole = compiled(observation=jnp.zeros(1, jnp.int32))
class Opaque:
    def __init__(self, t): self.t = t
jax.tree_util.register_pytree_node(Opaque, lambda x: ((x.t,), None), lambda _, parts: Opaque(*parts))
PAIR = EnvironmentSpec("pair", Mine.observation_space, gym.spaces.Tuple([gym.spaces.Discrete(2)] * 2), 4, None, {})
Pair = CompiledEnvironment(
    PAIR,
    lambda key: (Opaque(jnp.int32(0)), jnp.zeros(1)),
    lambda key, state, action: [Opaque(state.t + 1), jnp.zeros(1), 1.0 * action[1], state.t == 1, False],
)
Four = CompiledEnvironment(SPEC, reset, lambda key, state, action: (state, jnp.zeros(1), 1.0, False))
Raises = CompiledEnvironment(SPEC, reset, lambda key, state, action: jnp.zeros(2) @ jnp.zeros(3))
"""


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "mine.py").write_text(FILE)
    return lambda name: f"{tmp_path / 'mine.py'}:{name}"


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["none", "gru"])
def test_a_file_with_postponed_annotations_gives_environment_and_network(mine, tmp_path, memory):
    """Dataclasses look their module up by its name; an own network may stand behind a memory."""
    config = logpi.A2C(network=mine("network"), memory=memory, environments=2, rollout_steps=4)
    run = logpi.train(mine("Mine"), config, steps=40, out=tmp_path / "run")
    assert run.evaluation.mean == 3
    assert (
        logpi.train(
            mine("Closes"),
            logpi.Reinforce(episodes=4, baseline="none"),
            steps=20,
            out=tmp_path / "b",
        ).evaluation.mean
        == 3
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Exits", "environment 0, episode 0, step 0: step raised SystemExit: 0"),
        ("Flags", "environment 0, episode 0, step 0: terminated is array"),
        ("Ragged", "environment 0, episode 0, step 0: observation is no array: ValueError"),
        ("Wide", r"step gives an observation of shape \(2,\), its space has \(1,\)"),
        ("Row", r"step gives reward as .*\(1,\).*, not as a number"),
        ("Whole", "observations are float32 from reset, int32 from step"),
        ("Real", "step must give a state like that of reset"),
        ("Four", "step must return state, observation, reward, terminated, truncated"),
        ("Raises", "step raised TypeError"),
    ],
)
def test_faults_of_files_are_one_line(mine, tmp_path, name, message):
    with pytest.raises(LogpiError, match=message):
        logpi.train(
            mine(name), logpi.A2C(environments=1), steps=100, workers=0, out=tmp_path / "run"
        )


@pytest.mark.slow
@pytest.mark.parametrize(("name", "most"), [("Sound", 1), ("Pair", 2)])
def test_a_sound_compiled_environment_of_a_file_trains(mine, tmp_path, name, most):
    """Also with a state of any class, and with nested actions, which come as numbers in one row."""
    config = logpi.A2C(environments=2, rollout_steps=4)
    assert logpi.train(mine(name), config, steps=40, out=tmp_path / "run").evaluation.mean <= most
    assert not [finding for finding in examine(mine(name), 20) if finding.status == "wrong"]


class Switches(Plain):
    observation_space = gym.spaces.Box(0, 1, (3,), np.bool_)

    def reset(self, *, seed=None, options=None):
        return np.zeros(3, bool), {}

    def step(self, action):
        return np.ones(3, bool), 1.0, True, False, {}


@pytest.mark.parametrize(
    "config",
    [
        logpi.Reinforce(episodes=4, baseline="none"),
        pytest.param(logpi.A2C(environments=2, rollout_steps=4), marks=pytest.mark.slow),
    ],
)
def test_observations_of_true_and_false(config, tmp_path):
    assert logpi.train(Switches, config, steps=20, out=tmp_path / "run").evaluation.mean == 1


def test_a_file_that_does_not_import_names_the_line(tmp_path):
    (tmp_path / "bad.py").write_text("x = 1\n\nassert x == 2\n")
    with pytest.raises(LogpiError, match=r"bad.py does not import: AssertionError.*\(line 3\)"):
        make_environment(f"{tmp_path / 'bad.py'}:x")


class Counting(gym.Env):
    """Ends after three steps, and is paid its number."""

    observation_space, action_space = BOX, TWO

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.t += 1
        return np.full(2, self.t / 4, np.float32), self.reward(), self.t >= 3, False, {}

    def reward(self):
        return float(self.t)


class Game(Counting):
    """Two of three moves are allowed; when it is over none is."""

    action_space = gym.spaces.Discrete(3)
    observation_space = gym.spaces.Dict({"action_mask": gym.spaces.MultiBinary(3), "board": BOX})
    ends = 3

    def reset(self, *, seed=None, options=None):
        board, info = super().reset(seed=seed)
        return self.seen(board), info

    def step(self, action):
        assert action < 2
        board, *rest = super().step(action)
        return self.seen(board), *rest

    def seen(self, board):
        return {"action_mask": np.array([1, 1, 0], np.int8) * (self.t < self.ends), "board": board}


class Stuck(Game):
    """No move is allowed before the end."""

    ends = 2


SHORT = dict(environments=2, rollout_steps=8, hidden=(4,))


@pytest.mark.parametrize(
    "config",
    [
        logpi.A2C(**SHORT),
        pytest.param(logpi.PPO(**SHORT, minibatches=4), marks=pytest.mark.slow),
        pytest.param(logpi.Reinforce(episodes=2), marks=pytest.mark.slow),
    ],
)
def test_a_game_that_is_over_needs_no_move(config, tmp_path):
    """Control: a game that goes on does, and its place is said."""
    logpi.train(Game, config, steps=40, out=tmp_path / "run")
    with pytest.raises(
        LogpiError, match=r"Stuck: environment 0, episode 0, step 2: action_mask allows no action"
    ):
        logpi.train(Stuck, config, steps=40, out=tmp_path / "stuck")


def test_the_place_of_a_fault_in_a_stream(tmp_path):
    """Each episode takes three steps and a row for its reset."""
    broken = {"left": 7}

    class Broken(Counting):
        def reward(self):
            broken["left"] -= 1
            return np.nan if broken["left"] == 0 else 1.0

    with pytest.raises(
        LogpiError, match=r"environment 0, episode 2, step 0: reward is not finite: nan"
    ):
        logpi.train(
            Broken, logpi.A2C(environments=1, rollout_steps=12), steps=40, out=tmp_path / "run"
        )


def test_the_place_of_a_fault_in_a_compiled_stream(tmp_path):
    from logpi.environments.spec import CompiledEnvironment, EnvironmentSpec

    def step(key, t, action):
        return t + 1, jnp.zeros(2), jnp.where(t == 2, jnp.nan, 1.0), jnp.array(False), t >= 4

    spec = EnvironmentSpec("nan-at-2", BOX, TWO, 5, None, {})
    environment = CompiledEnvironment(spec, lambda key: (jnp.int32(0), jnp.zeros(2)), step)
    with pytest.raises(
        LogpiError, match=r"nan-at-2: environment 0, rollout 0, step 2: reward is not finite"
    ):
        logpi.train(
            environment, logpi.A2C(environments=2, rollout_steps=8), steps=40, out=tmp_path / "run"
        )


def test_actions_have_the_type_of_their_space(tmp_path, random):
    """In training, and from `act`, drawn or not."""

    class Half(Counting):
        action_space = gym.spaces.Box(-1, 1, (2,), np.float16)

        def step(self, action):
            assert self.action_space.contains(action)
            return super().step(action)

    run = logpi.train(
        Half,
        logpi.Reinforce(episodes=2, hidden=(4,), baseline="none"),
        steps=10,
        out=tmp_path / "run",
    )
    space = gym.spaces.Box(-1, 1, (2,), np.float32)
    for generator in (None, random):
        assert space.contains(run.policy.act(np.zeros(2), generator))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[0.0], [0.0, 1.0]],), "is no array"),
        (([np.nan, 0.0],), "finite numbers"),
        ((["a", "b"],), "finite numbers"),
        ((np.zeros(3),), "has shape"),
    ],
)
def test_what_a_policy_cannot_answer(arguments, message, random):
    policy = policy_for(make_environment(Plain).spec, random).on_host()
    with pytest.raises(LogpiError, match=message):
        policy.act(*arguments)


@pytest.mark.parametrize("shape", [(3, 2, 3), (8, 2, 8), (1, 60, 2), (60, 2, 60)])
def test_a_thin_box_of_three_dimensions_is_no_image(shape, random):
    space = gym.spaces.Box(0, 1, shape, np.float32)
    policy = small_policy(space, TWO, (4,), random).on_host()
    assert policy.encoder.images == ()
    assert policy.act(space.sample()) in (0, 1)
    image = gym.spaces.Box(0, 1, (3, 8, 8), np.float32)
    assert len(small_policy(image, TWO, (4,), random).encoder.images) == 1


def test_a_mask_of_other_than_discrete_actions_is_refused():
    class Masked(Counting):
        action_space = gym.spaces.MultiDiscrete([3, 3])

        def reset(self, *, seed=None, options=None):
            return super().reset(seed=seed)[0], {"action_mask": np.ones(6, np.int8)}

    with pytest.raises(LogpiError, match="an action_mask needs Discrete actions"):
        make_environment(Masked)


def test_a_factory_that_leaves_is_named():
    def leaving():
        raise SystemExit(0)

    with pytest.raises(LogpiError, match="leaving could not be made: SystemExit"):
        make_environment(leaving)


@pytest.mark.parametrize(
    "source", ["finite:short-corridor", pytest.param("vector:CartPole-v1", marks=pytest.mark.slow)]
)
def test_workers_are_refused_where_there_are_none(source, tmp_path):
    with pytest.raises(LogpiError, match="leave out --workers"):
        logpi.train(source, logpi.A2C(), steps=10, workers=2, out=tmp_path / "run")
    logpi.train(source, logpi.A2C(hidden=(4,)), steps=10, workers=0, out=tmp_path / "run0")


@pytest.mark.parametrize(
    ("name", "group", "kind"),
    [
        ("CartPole-v1", LocalGroup, CartPoleEnv),
        ("vector:CartPole-v1", VectorGroup, CartPoleVectorEnv),
    ],
)
def test_a_run_that_ends_lets_its_copies_go(name, group, kind, tmp_path, monkeypatch):
    """Some hold memory of their own until then: those of ALE complain where the process ends
    before. The control is a group that keeps them."""

    def left(out):
        gc.collect()
        gc.disable()
        try:
            logpi.train(name, Reinforce(episodes=4), steps=50, out=tmp_path / out, workers=0)
            return sum(type(each) is kind for each in gc.get_objects())
        finally:
            gc.enable()

    assert left("released") == 0
    monkeypatch.setattr(group, "close", lambda self: None)
    assert left("kept") > 0
