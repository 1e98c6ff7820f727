"""What is recorded is what is evaluated; what is imitated is the likeliest policy."""

import gc
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from helpers import learned, same
from hypothesis import given, settings, strategies as st

import logpi
from logpi import Demonstrations, LogpiError, Reinforce
from logpi.cli import main
from logpi.networks.heads import action_head

METHOD = Reinforce(hidden=(8,), episodes=8, baseline="none")


class Two(gym.Env):
    """Two states, three actions, episodes of four steps; the state shown first never comes again,
    so that only who remembers it can name it at the end.
    """

    observation_space = spaces.Discrete(3)
    action_space = spaces.Discrete(3, start=5)
    spec = None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._step = 0
        return int(self.np_random.integers(2)), {}

    def step(self, action):
        self._step += 1
        return 2, 1.0, self._step == 4, False, {}


def demonstrations(observations, actions, length):
    """Episodes of one length, of these rows."""
    count = len(actions) // length
    return Demonstrations(
        observations=np.asarray(observations),
        actions=np.asarray(actions),
        rewards=np.ones(len(actions)),
        lengths=np.full(count, length),
        terminated=np.ones(count, bool),
        spaces={
            "observations": {"kind": "Discrete", "n": 3, "start": 0},
            "actions": {"kind": "Discrete", "n": 3, "start": 5},
            "masks": False,
        },
    )


@pytest.fixture(scope="module")
def expert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("expert") / "run"
    return logpi.train("CartPole-v1", METHOD, steps=500, out=folder)


@pytest.mark.parametrize("deterministic", [False, True])
def test_the_episodes_are_those_of_an_evaluation(expert, deterministic):
    """More of them than copies. Control: another seed plays others."""
    recorded = logpi.record(expert, episodes=20, deterministic=deterministic)
    played = logpi.evaluate(expert, episodes=20, deterministic=deterministic)
    assert np.array_equal(recorded.returns, played.returns)
    assert np.array_equal(recorded.lengths, played.lengths)
    assert recorded.terminated.all()
    others = logpi.record(expert, episodes=20, deterministic=deterministic, seed=1)
    assert not np.array_equal(others.returns, recorded.returns)


def test_what_is_recorded_is_what_the_environment_answers(expert):
    """Its own actions, played again, show the same."""
    recorded = logpi.record(expert, episodes=2)
    first = int(recorded.lengths[0])
    environment = gym.make("CartPole-v1")
    environment.reset(seed=0)
    environment.unwrapped.state = recorded.observations[0].astype(float)
    for step in range(first - 1):
        shown, *_ = environment.step(int(recorded.actions[step]))
        np.testing.assert_allclose(shown, recorded.observations[step + 1], atol=1e-4)


@pytest.mark.slow
def test_episodes_of_compiled_environments_are_those_of_an_evaluation(tmp_path):
    method = Reinforce(hidden=(), episodes=8, baseline="none")
    run = logpi.train("finite:short-corridor", method, steps=100, out=tmp_path / "run")
    recorded = logpi.record(run, episodes=12)
    played = logpi.evaluate(run, episodes=12, deterministic=False)
    assert np.array_equal(recorded.returns, played.returns)
    assert np.array_equal(recorded.lengths, played.lengths)


def test_a_file_holds_all(expert, tmp_path):
    recorded = logpi.record(expert, episodes=3)
    recorded.save(tmp_path / "there" / "demos.npz")
    found = logpi.imitate("CartPole-v1", tmp_path / "there/demos.npz", METHOD, out=tmp_path / "a")
    again = logpi.imitate("CartPole-v1", recorded, METHOD, out=tmp_path / "b")
    assert same(learned(found.run.folder), learned(again.run.folder))
    assert found.log_likelihood == again.log_likelihood


def test_the_likeliest_policy_has_the_frequencies_of_the_actions(tmp_path):
    """Every episode has the same ones: no other policy is likelier on those held out. Control: the
    policy before has others.
    """
    shown = np.repeat([0, 1], [10, 10])
    taken = 5 + np.repeat([0, 1, 2, 0, 1, 2], [5, 3, 2, 1, 1, 8])
    episodes = demonstrations(np.tile(shown, 100), np.tile(taken, 100), 20)
    method = Reinforce(hidden=(), episodes=8, baseline="none")
    found = logpi.imitate(Two, episodes, method, passes=400, out=tmp_path / "run")
    frequencies = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    likeliest = np.mean(np.sum(frequencies * np.log(frequencies), axis=1))
    assert abs(found.log_likelihood - likeliest) < 1e-3
    logits = np.asarray(found.run.policy(np.array([0, 1])).logits)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(odds / odds.sum(axis=1, keepdims=True), frequencies, atol=0.02)
    before = logpi.imitate(Two, episodes, method, passes=1, out=tmp_path / "before")
    assert before.log_likelihood < likeliest - 0.05


@pytest.mark.slow
def test_a_policy_that_remembers_imitates_what_was_shown_before(tmp_path):
    """The last action names the first state. Control: without a memory half of them are guessed."""
    first = np.random.default_rng(0).integers(2, size=300)
    shown = np.stack([first, *[np.full(300, 2)] * 3], axis=1)
    taken = np.stack([*[np.full(300, 7)] * 3, 5 + first], axis=1)
    episodes = demonstrations(shown.ravel(), taken.ravel(), 4)
    found = {}
    for memory in ("gru", "none"):
        method = Reinforce(hidden=(8,), episodes=8, baseline="none", memory=memory, memory_size=8)
        made = logpi.imitate(Two, episodes, method, passes=100, out=tmp_path / memory)
        found[memory] = made.log_likelihood
    assert found["gru"] > -0.05
    # rows of state 2: one in three is a guess between two
    assert found["none"] < np.log(0.5) / 4


def test_a_run_goes_on_from_it(expert, tmp_path):
    """And another begins with it, as its reference. Control: a run that begins by itself."""
    recorded = logpi.record(expert, episodes=5)
    leaning = (recorded.observations[:, 2] > 0).astype(int)
    recorded = replace(recorded, actions=leaning)
    still = replace(METHOD, learning_rate=1e-12, normalize_observations=False)
    made = logpi.imitate("CartPole-v1", recorded, still, steps=300, out=tmp_path / "made")
    cloned = logpi.load(made.run.folder)
    observations = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    expected = np.asarray(cloned(observations).logits)
    near = replace(still, reference=str(made.run.folder))
    begun = logpi.train("CartPole-v1", near, steps=10, out=tmp_path / "near").policy
    np.testing.assert_allclose(np.asarray(begun(observations).logits), expected, atol=1e-5)
    other = logpi.train("CartPole-v1", still, steps=10, out=tmp_path / "alone").policy
    assert not np.allclose(np.asarray(other(observations).logits), expected, atol=1e-2)
    (listed,) = logpi.list_runs(tmp_path / "made")
    assert (listed.state, listed.steps) == ("imitated", 0)
    with pytest.raises(LogpiError, match="has no curve yet"):
        logpi.plot([made.run.folder])
    run = logpi.resume(made.run.folder)
    assert run.steps >= 300
    np.testing.assert_allclose(np.asarray(run.policy(observations).logits), expected, atol=1e-5)


ACTIONS = {
    "choice": spaces.Discrete(3, start=-1),
    "box": spaces.Box(np.array([-1, 2, -np.inf]), np.array([3, 2.5, 0]), dtype=np.float64),
    "choices": spaces.MultiDiscrete(np.array([[2, 3], [4, 5]])),
    "bits": spaces.MultiBinary(3),
    "dict": spaces.Dict(
        {"arm": spaces.Box(-2, 2, (2, 2), np.float32), "gear": spaces.Discrete(4, start=1)}
    ),
}


@pytest.mark.parametrize("law", ["normal", "clipped-normal", "tanh-normal"])
@pytest.mark.parametrize("name", ACTIONS)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_sampled_action_is_found_from_the_executed_one(name, law, seed):
    """Executed again it is the same. Control: the executed numbers are not those that were
    sampled.
    """
    if law != "normal" and name == "box":
        return
    random = np.random.default_rng(seed)
    head = action_head(ACTIONS[name], law)
    action = np.asarray(head(random.normal(size=(6, head.size))).sample(np.zeros((6, head.size))))
    executed = np.asarray(head.execute(action))
    row = executed if action.ndim == 1 else executed.reshape(6, -1)
    found = np.asarray(head.sampled(row))
    assert found.shape == action.shape
    np.testing.assert_allclose(np.asarray(head.execute(found)), executed, atol=1e-6)
    if name in ("choice", "dict"):
        assert not np.allclose(row, action)


def test_a_squashed_action_at_a_bound_is_finite():
    head = action_head(spaces.Box(-1, 1, (1,), np.float32), "tanh-normal")
    found = head.sampled(np.array([[1.0], [-1.0]]))
    assert np.isfinite(found).all()
    assert (np.abs(found) > 7).all()


@pytest.mark.filterwarnings("ignore:.*is set to None.*:UserWarning")
@pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning")
def test_a_data_set_of_minari(tmp_path, monkeypatch):
    minari = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    collector = minari.DataCollector(gym.make("CartPole-v1"))
    shown = []
    taken = []
    for seed in range(4):
        observation, _ = collector.reset(seed=seed)
        done = False
        while not done:
            action = int(observation[2] > 0)
            shown.append(observation)
            taken.append(action)
            observation, _, terminated, truncated, _ = collector.step(action)
            done = terminated or truncated
    collector.create_dataset("test/cartpole-v0")
    collector.close()
    del collector
    gc.collect()  # its folder warns that nobody has removed it
    made = logpi.imitate("CartPole-v1", "minari:test/cartpole-v0", METHOD, out=tmp_path / "run")
    right = [made.run.policy.act(each) == action for each, action in zip(shown, taken, strict=True)]
    assert np.mean(right) > 0.9
    with pytest.raises(
        LogpiError, match="is not of Acrobot-v1|not those|have shape|numbers a step"
    ):
        logpi.imitate("Acrobot-v1", "minari:test/cartpole-v0", METHOD, out=tmp_path / "no")
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(lengths=np.array([4, 5])), "lengths of its episodes"),
        (dict(lengths=np.array([0, 8])), "lengths of its episodes"),
        (dict(lengths=np.array([8.0])), "lengths of its episodes"),
        (dict(lengths=np.array([8]), terminated=np.array([True])), "two demonstrated episodes"),
        (dict(terminated=np.array([True])), "rewards or ends"),
        (dict(actions=np.zeros(8, int)), r"step 0 has the action \[0\], which is none"),
        (dict(actions=np.zeros((8, 2))), "are 1 numbers a step"),
        (dict(observations=np.zeros((8, 2))), "observations of Two have shape"),
        (dict(observations=np.full(8, np.nan)), "not finite"),
        (dict(spaces={}), "its observations are None"),
    ],
)
def test_demonstrations_of_something_else_are_refused(tmp_path, change, message):
    good = demonstrations(np.zeros(8, int), np.full(8, 5), 4)
    bad = Demonstrations(**vars(good) | change)
    with pytest.raises(LogpiError, match=message):
        logpi.imitate(Two, bad, METHOD, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_files_of_something_else_are_refused(tmp_path, capsys):
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    (tmp_path / "text.npz").write_text("this is text")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "other.npz").read_bytes()[:60])
    for name in ("other.npz", "text.npz", "cut.npz", "none.npz", ""):
        source = str(tmp_path / name)
        assert main(["imitate", "CartPole-v1", "--from", source, "--out", str(tmp_path / "r")]) == 2
        told = capsys.readouterr().err
        assert told.count("\n") == 1
        assert name in told
    assert not (tmp_path / "r").exists()
