"""Where copies are played changes nothing: in this process, in workers, and in those that take the
place of workers that died."""

import csv
import itertools
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import IS_FIRST, OWN, learned, same

import logpi
from logpi import PPO, LogpiError, Reinforce
from logpi.core.programs import compile_program
from logpi.core.trajectory import Trajectory
from logpi.environments.options import EnvironmentOptions
from logpi.environments.registry import make_environment
from logpi.networks.heads import CategoricalHead
from logpi.runs.folder import RunFolder
from logpi.runs.report import LineReporter
from logpi.sampling.host import choice, kernels, placement, process, program
from logpi.sampling.host.choice import Choice
from logpi.sampling.host.kernels import Arithmetic, arithmetic_digest
from logpi.sampling.host.place import Outcome, PlaceLost, Request
from logpi.sampling.host.places import Places
from logpi.sampling.host.player import Part
from logpi.sampling.host.sampler import HostSampler
from logpi.sampling.host.shares import Shares, by_share, noise_of_shares, side_by_side
from logpi.sampling.host.unfinished import Standing
from logpi.sampling.seam import Faults, Rollouts
from logpi.sampling.validity import EnvironmentFault

SMALL = {"hidden": (8,)}
METHODS = {
    "reinforce": Reinforce(**SMALL, episodes=14, baseline="none"),
    "a2c": logpi.A2C(**SMALL, environments=14, rollout_steps=7),
    "ppo": PPO(**SMALL, environments=14, rollout_steps=16, epochs=1, minibatches=1),
    "trpo": logpi.TRPO(**SMALL, environments=14, rollout_steps=16),
    "gru": PPO(memory="gru", memory_size=4, environments=14, rollout_steps=16, minibatches=2),
}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """An environment of Dict actions, in a file."""
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)
    return "own.py:Both"


# Environment, method, and the workers that play the four shares beside this process.
EVERYWHERE = [("own", "ppo", 2)]
SLOW = [
    ("CartPole-v1", "reinforce", 3),
    ("Pendulum-v1", "a2c", 1),
    ("CartPole-v1", "gru", 2),
    ("Pendulum-v1", "trpo", 3),
    ("own", "reinforce", 1),
]
OTHERS = [
    (environment, method, workers)
    for environment in ("CartPole-v1", "Pendulum-v1", "own")
    for method in METHODS
    for workers in (1, 2, 3)
    if (environment, method, workers) not in (*EVERYWHERE, *SLOW)
]


@pytest.mark.parametrize(
    ("environment", "method", "workers"),
    [
        *EVERYWHERE,
        *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW),
        *(pytest.param(*case, marks=pytest.mark.release) for case in OTHERS),
    ],
)
def test_a_run_is_the_same_wherever_it_is_played(own, environment, method, workers):
    """All four shares in this process, or some or all of them elsewhere. Control: shares of another
    size.
    """
    name = own if environment == "own" else environment
    steps = 2300 if environment == "Pendulum-v1" else 700
    options = {"steps": steps, "seed": 5}
    run = logpi.train(name, METHODS[method], workers=0, out="alone", **options)
    alone = learned(run.folder)
    played = logpi.train(name, METHODS[method], workers=workers, out="with_workers", **options)
    assert same(alone, learned(played.folder))
    assert np.array_equal(played.drawn_evaluation.returns, run.drawn_evaluation.returns)
    if method == "reinforce":
        other = logpi.train(name, METHODS[method], workers=0, share_size=3, out="other", **options)
        assert not same(alone, learned(other.folder))


def test_shares_are_split_without_a_remainder():
    shares = Shares(range(10), 4)
    assert list(shares.numbers) == [0, 1, 2]
    for parts in range(1, 6):
        split = shares.split(parts)
        assert len(split) == min(parts, 3)
        assert [copy for part in split for copy in part.copies] == list(range(10))
        assert [number for part in split for number in part.numbers] == [0, 1, 2]


def test_a_share_is_multiplied_as_if_it_were_alone():
    """Bit for bit, for the shapes of layers. Control: all rows in one product are not."""
    random = np.random.default_rng(0)
    differ = 0
    for into, out in ((4, 64), (64, 64), (64, 2), (128, 17), (256, 256), (512, 6)):
        weight = random.normal(size=(into, out)).astype(np.float32)
        x = random.normal(size=(510, into)).astype(np.float32)
        stacked = side_by_side(by_share(x, 4) @ weight, len(x))
        for first in (0, 4, 200, 508):
            alone = side_by_side(by_share(x[first : first + 4], 4) @ weight, len(x) - first)
            assert np.array_equal(alone, stacked[first : first + 4])
        differ += not np.array_equal(stacked, x @ weight)
    assert differ


def test_every_share_draws_noise_of_its_own():
    """The same whoever plays beside it. Control: two shares draw different numbers."""
    head = CategoricalHead(2, 0)
    both = noise_of_shares(head, Shares(range(7), 4), seed=3, batch=5)
    second = noise_of_shares(head, Shares(range(4, 7), 4), seed=3, batch=5)
    for row, own in zip(itertools.islice(both, 40), second, strict=False):
        assert row.shape == (7, 2)
        assert np.array_equal(row[4:], own)
        assert not np.array_equal(row[:3], own)


DIES = (
    IS_FIRST
    + """
import os, signal
from gymnasium.envs.classic_control import CartPoleEnv

class Dies(CartPoleEnv):
    def step(self, action):
        self.met = getattr(self, "met", 0) + 1
        if os.getpid() != TRAINING and self.met >= 40 and is_first("died"):
            HOW
        return super().step(action)
"""
)


@pytest.mark.parametrize(
    "method",
    [
        "ppo",
        pytest.param("reinforce", marks=pytest.mark.slow),
        pytest.param("gru", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    ("how", "step_limit", "message"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", 300.0, "was ended by SIGKILL"),
        pytest.param(
            "os.kill(os.getpid(), signal.SIGSTOP)",
            1.0,
            "gave no sign of life for 6 s",
            marks=pytest.mark.release,
        ),
    ],
)
def test_a_worker_that_is_lost_is_replaced(
    tmp_path, monkeypatch, capfd, method, how, step_limit, message
):
    """Its part of the batch is played again, and nothing else changes; it is counted and told."""
    monkeypatch.chdir(tmp_path)
    Path("dies.py").write_text(DIES.replace("HOW", how).replace("TRAINING", str(os.getpid())))
    options = {"steps": 1200, "max_episode_steps": 60, "seed": 1, "step_limit": step_limit}
    alone = logpi.train("dies.py:Dies", METHODS[method], out="alone", workers=0, **options)
    assert not Path("died").exists()
    run = logpi.train("dies.py:Dies", METHODS[method], out="run", workers=2, **options)
    assert Path("died").exists()
    assert same(learned(alone.folder), learned(run.folder))
    told = capfd.readouterr().err
    assert message in told
    assert "their part of the batch is played again" in told
    counters = json.loads(
        np.load(RunFolder.open(run.folder).checkpoints()[0])["counters"].tobytes()
    )
    assert counters["lost"] == 1
    assert counters["faults"] == 0


class Noted:
    """A place that notes what is asked of it; the first of each shares is lost at once."""

    def __init__(self, notes, shares, is_lost):
        self.shares = shares
        self._notes = notes
        self._is_lost = is_lost

    def ask(self, request):
        self._request = request
        self._notes.append(("ask", request.method))

    def answer(self):
        self._notes.append(("answer", self._request.method))
        if self._is_lost:
            raise PlaceLost("gone")
        return self.shares.copies.start

    def close(self):
        self._notes.append(("close", ""))


def test_what_is_lost_together_is_replaced_together():
    """Three places of a machine that is gone: all start before one of them is waited for. The
    fourth is asked once.
    """
    notes = []
    opened = []
    told = []

    def open_place(shares):
        opened.append(shares)
        notes.append(("open", ""))
        return Noted(notes, shares, is_lost=shares.copies.start > 0 and opened.count(shares) == 1)

    parts = Shares(range(16), 4).split(4)
    places = Places([(open_place, part) for part in parts], told.append)
    assert notes == 4 * [("open", "")]
    notes.clear()

    def request(method):
        return lambda place: Request(method, None, ())

    answers = places._all(places._places, request("sample"), request("restore"))
    assert answers == [0, 4, 8, 12]
    assert len(told) == 3
    assert notes[:8] == 4 * [("ask", "sample")] + 4 * [("answer", "sample")]
    assert notes[8:14] == 3 * [("close", ""), ("open", "")]
    assert notes[14:20] == 3 * [("ask", "restore")] + 3 * [("answer", "restore")]
    assert notes[20:] == 3 * [("ask", "sample")] + 3 * [("answer", "sample")]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="signals of Unix")
def test_a_worker_that_stands_still_while_it_is_idle_is_replaced(monkeypatch):
    """The parameters of wide networks are more than its pipe holds: nobody reads them. Control:
    one that goes on is not replaced.
    """
    monkeypatch.setattr(process, "GRACE", 1.0)
    environment = replace(make_environment("CartPole-v1"), step_limit=1.0)
    method = PPO(hidden=(256, 256), environments=8, rollout_steps=8)
    learner = method.make_learner(environment.spec, 7)
    told = []
    played = []
    for is_stopped in (False, True):
        faults = Faults(tell=told.append)
        sampler = HostSampler(environment, 8, 7, Rollouts(1), lambda: False, faults)
        try:
            advance = sampler.advance(method, sampler.begin(method, learner), 10**6)
            after, _ = advance(sampler.begin(method, learner), 1)
            assert not told
            if is_stopped:
                os.kill(sampler._placement._places._places[1]._process.pid, signal.SIGSTOP)
            after, metrics = advance(after, 1)
            played.append(jax.tree.leaves(after.policy))
            assert metrics[0]["lost"] == is_stopped
        finally:
            sampler.close()
    assert "gave no sign of life for 2 s" in told[0]
    assert all(map(np.array_equal, *played))


FAILS_AND_DIES = (
    IS_FIRST
    + """
import os, signal
from gymnasium.envs.classic_control import CartPoleEnv

class Fails(CartPoleEnv):
    def step(self, action):
        self.met = getattr(self, "met", 0) + 1
        if os.getpid() != TRAINING and self.met == 20 and is_first("died"):
            os.kill(os.getpid(), signal.SIGKILL)
        if os.getpid() == TRAINING and self.met == 30 and is_first("failed"):
            raise RuntimeError("broken")
        return super().step(action)
"""
)


@pytest.mark.slow
def test_losses_are_counted_beside_faults(tmp_path, monkeypatch, capsys):
    """A worker dies, and then the environment fails in the same batch: one of each, in the metrics
    and in the summary.
    """
    monkeypatch.chdir(tmp_path)
    Path("fails.py").write_text(FAILS_AND_DIES.replace("TRAINING", str(os.getpid())))
    run = logpi.train(
        "fails.py:Fails",
        PPO(**SMALL, environments=8, rollout_steps=40, minibatches=1),
        out="run",
        workers=1,
        steps=1000,
        on_fault="replay",
        reporter=LineReporter(),
    )
    assert Path("died").exists()
    assert Path("failed").exists()
    rows = list(csv.DictReader((run.folder / "metrics.csv").read_text().splitlines()))
    assert {(row["time/lost_workers"], row["time/faults"]) for row in rows} == {("1", "1")}
    assert "lost     1 workers" in capsys.readouterr().out


@pytest.mark.slow
def test_a_worker_that_is_lost_again_and_again_ends_the_run(tmp_path, monkeypatch):
    """The run is saved, and says what was lost."""
    monkeypatch.chdir(tmp_path)
    how = 'os.remove("died"); os.kill(os.getpid(), signal.SIGKILL)'
    Path("dies.py").write_text(DIES.replace("HOW", how).replace("TRAINING", str(os.getpid())))
    with pytest.raises(LogpiError, match=r"copies 8 to 13: .* SIGKILL; lost 3 times in a row"):
        logpi.train("dies.py:Dies", METHODS["ppo"], out="run", workers=1, steps=1200)
    assert RunFolder.open(Path("run")).saved_steps() is not None


@pytest.mark.slow
def test_a_factory_travels_to_workers(tmp_path):
    """An environment of this process, with what it refers to. Control: one that cannot travel."""
    from gymnasium.envs.classic_control import CartPoleEnv

    length = 0.7

    class Long(CartPoleEnv):
        def __init__(self):
            super().__init__()
            self.length = length

    runs = [
        logpi.train(Long, METHODS["a2c"], steps=500, workers=workers, out=tmp_path / str(workers))
        for workers in (0, 1)
    ]
    assert same(learned(runs[0].folder), learned(runs[1].folder))

    lock = threading.Lock()  # no process can send it

    def bound():
        assert lock
        return CartPoleEnv()

    with pytest.raises(LogpiError, match="cannot be sent to another process"):
        logpi.train(bound, METHODS["a2c"], steps=500, workers=1, out=tmp_path / "bound")


@pytest.mark.slow
def test_a_network_of_the_user_travels_to_workers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(
        "import equinox as eqx, jax\n"
        "def build(features, outputs, key):\n"
        "    return eqx.nn.MLP(features, outputs, 8, 2, activation=lambda x: jax.nn.silu(x),"
        " key=key)\n"
    )
    method = logpi.A2C(network="net.py:build", environments=10, rollout_steps=7)
    runs = [
        logpi.train("CartPole-v1", method, steps=500, workers=workers, out=f"run{workers}")
        for workers in (0, 1)
    ]
    assert same(learned(runs[0].folder), learned(runs[1].folder))


def test_a_worker_that_computes_otherwise_is_refused(tmp_path, monkeypatch):
    """Control: allowed where the run may have mixed hardware."""
    monkeypatch.setattr(kernels, "arithmetic_digest", lambda rows: "another")
    options = {"steps": 100, "workers": 1}
    with pytest.raises(LogpiError, match="computes with other last bits"):
        logpi.train("CartPole-v1", METHODS["a2c"], out=tmp_path / "run", **options)
    run = logpi.train(
        "CartPole-v1", METHODS["a2c"], out=tmp_path / "mixed", mixed_hardware=True, **options
    )
    assert json.loads((run.folder / "config.json").read_text())["settings"]["mixed_hardware"]


def test_a_refusal_names_the_machine_and_other_versions():
    """Other last bits are accepted with mixed hardware, another version of logpi is not."""
    own = Arithmetic.here(4)
    kernels.require_same_arithmetic(own, 4, mixed_hardware=False)
    elsewhere = own._replace(digest="another", machine="node7 (NumPy 1, openblas Zen)")
    with pytest.raises(LogpiError, match=r"worker on node7 \(NumPy 1, openblas Zen\) computes"):
        kernels.require_same_arithmetic(elsewhere, 4, mixed_hardware=False)
    kernels.require_same_arithmetic(elsewhere, 4, mixed_hardware=True)
    with pytest.raises(LogpiError, match="node7 .* has logpi 9, this process"):
        kernels.require_same_arithmetic(elsewhere._replace(logpi="9"), 4, mixed_hardware=True)


def test_a_process_that_raises_is_a_place_that_is_lost():
    """What is neither a fault of the environment nor a refusal. Control: a fault is one."""
    with pytest.raises(PlaceLost, match="its process raised KeyError: 'x'"):
        Outcome("raised", "KeyError: 'x'").result()
    with pytest.raises(EnvironmentFault, match="step failed"):
        Outcome("fault", "step failed").result()


def test_the_digest_knows_another_arithmetic():
    """The same in another process; another where NumPy multiplies with other kernels."""
    program = "from logpi.sampling.host.kernels import Arithmetic, arithmetic_digest; print(arithmetic_digest(4))"

    def digest(**variables):
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True,
            env=os.environ | variables, check=True,
        )  # fmt: skip
        return done.stdout.strip()

    assert digest() == arithmetic_digest(4)
    assert digest() != arithmetic_digest(8)
    assert digest(OPENBLAS_CORETYPE="Prescott") != digest(OPENBLAS_CORETYPE="Haswell")


@pytest.mark.slow
def test_no_more_is_sent_than_the_steps(monkeypatch):
    """Bytes of the messages of a batch: at most 1.2 of the arrays of its steps."""
    environment = make_environment("CartPole-v1")
    received = []
    loads = pickle.loads
    monkeypatch.setattr(pickle, "loads", lambda data: received.append(len(data)) or loads(data))
    for method in (METHODS["reinforce"], METHODS["ppo"]):
        sampler = HostSampler(environment, 32, 7, Rollouts(1), lambda: False)
        policy = method.make_learner(environment.spec, 7).policy
        try:
            places = sampler._placement._places
            unfinished = sampler.begin(method, method.make_learner(environment.spec, 7)).environment
            time = 500 if method.rows is None else method.rows + 1
            places.restore(policy, unfinished, method.rows)
            received.clear()
            trajectory, _ = places.sample(policy, unfinished, 0, method.rows, time)
        finally:
            sampler.close()
        rows = int(np.asarray(trajectory.mask)[:, 16:].any(axis=1).sum())
        if method.rows is not None:
            rows = time
        steps = trajectory._replace(memory=np.zeros((time, 32, 0)))
        size = sum(leaf[:rows, 16:].nbytes for leaf in jax.tree.leaves(steps))
        assert size < sum(received) < 1.2 * size


def test_rows_after_the_last_step_are_not_sent():
    """Those of whole episodes. Control: the rows of a stream are all sent."""
    numbers = np.zeros((5, 2))
    flags = np.zeros((5, 2), bool)
    mask = np.arange(5)[:, None] < np.array([1, 3])
    step = np.zeros((5, 2), int)
    trajectory = Trajectory(
        numbers, numbers, numbers, flags, flags, mask, step, memory=np.ones((2, 4))
    )
    sent = Part(trajectory, None).used().trajectory
    assert sent.reward.shape == sent.observation.shape == (3, 2)
    assert np.array_equal(sent.mask, mask[:3])
    assert sent.memory is trajectory.memory
    standing = Standing(step[0], step[0], numbers[0], flags[0], np.zeros((2, 0)))
    assert Part(trajectory, standing).used().trajectory is trajectory


SLEEPS = """
import os, time
from gymnasium.envs.classic_control import CartPoleEnv

class Slow(CartPoleEnv):
    count = 0
    def reset(self, **options):
        observation, info = super().reset(**options)
        Slow.count += REMEMBERS
        return observation + Slow.count, info
    def step(self, action):
        if os.getpid() == TRAINING or WORKERS_TOO:
            time.sleep(0.001)
        if os.getpid() != TRAINING and WORKERS_TOO:
            time.sleep(0.02)
        observation, *answer = super().step(action)
        return observation + Slow.count, *answer
"""


@pytest.fixture
def slow(tmp_path, monkeypatch):
    """An environment for which workers pay, or are slower than this process."""
    monkeypatch.setattr(placement, "usable_cores", lambda: 2)
    monkeypatch.setattr(choice, "WINDOW", 0.1)
    monkeypatch.setattr(choice, "LEAST_SAVED", 0.0)

    def make(workers_too=False, remembers=0):
        path = tmp_path / f"slow_{workers_too}_{remembers}.py"
        constants = f"WORKERS_TOO, TRAINING, REMEMBERS = {workers_too}, {os.getpid()}, {remembers}"
        path.write_text(f"{constants}\n{SLEEPS}")
        return make_environment(f"{path}:Slow", EnvironmentOptions(30))

    return make


def trained(environment, config, workers, updates):
    """The learner after so many updates, after which of them this process has played alone, and
    whether it will think of workers again."""
    sampler = HostSampler(environment, config.copies, 7, Rollouts(workers), lambda: False)
    learner = sampler.begin(config, config.make_learner(environment.spec, 7))
    alone = []
    try:
        advance = sampler.advance(config, learner, 10**6)
        while len(alone) < updates and (workers == 0 or not is_over(alone)):
            learner, _ = advance(learner, 1)
            alone.append(sampler._placement._places.is_alone)
        return learner, alone, sampler._placement._choice is not None
    finally:
        sampler.close()


def is_over(alone):
    """Whether workers have been taken and given up, or have stayed for ten batches."""
    return False in alone and (alone[-1] or alone[-10:] == [False] * 10)


CHOSEN = [
    Reinforce(episodes=8, baseline="none"),
    PPO(environments=8, rollout_steps=25, epochs=1, minibatches=1),
]


@pytest.mark.release
@pytest.mark.parametrize("config", CHOSEN)
@pytest.mark.parametrize("workers_too", [False, True])
def test_workers_are_taken_where_they_pay_and_given_up_where_not(slow, config, workers_too):
    """Episodes under way go on as they would have, bit for bit."""
    environment = slow(workers_too)
    learner, alone, thinks = trained(environment, config, None, 300)
    assert alone[0]
    assert False in alone
    assert alone[-1] == workers_too
    assert thinks != workers_too
    expected, *_ = trained(environment, config, 0, len(alone))
    assert all(map(np.array_equal, jax.tree.leaves(learner), jax.tree.leaves(expected)))


@pytest.mark.release
@pytest.mark.parametrize("config", CHOSEN)
def test_no_workers_where_environments_remember(slow, config):
    """What an episode is depends on those before it: copies made anew would not be where these
    are."""
    _, alone, thinks = trained(slow(remembers=1), config, None, 25)
    assert all(alone)
    assert not thinks


class Elsewhere:
    """Places whose copies show what they are told to."""

    is_closed = False

    def __init__(self, shown):
        self._shown = shown

    def restore(self, policy, unfinished, rows):
        pass

    def show(self, policy, batch):
        return self._shown

    def close(self):
        self.is_closed = True


@pytest.mark.parametrize("difference", [0, 1])
def test_a_run_moves_only_to_copies_that_show_the_same(difference):
    environment = make_environment("CartPole-v1")
    method = CHOSEN[0]
    sampler = HostSampler(environment, method.copies, 7, Rollouts(0), lambda: False)
    learner = method.make_learner(environment.spec, 7)
    here = sampler._placement._places
    there = Elsewhere(here.show(learner.policy, 0) + difference)
    sampler._placement._move(learner, None, there, 1)
    assert sampler._placement._places is (here if difference else there)
    sampler.close()
    here.close()
    assert there.is_closed


@pytest.mark.parametrize(("seconds", "is_slower"), [(1.9, False), (2.3, True)])
def test_workers_are_given_up_where_training_is_slower_with_them(seconds, is_slower):
    """In two windows one after another; a single slow one is a pause of the machine."""
    choice_of_two = Choice(2)
    choice_of_two.add(sampling=1.9, total=2.1, steps=1000, is_alone=True)
    steps = round(1000 * 2.1 / seconds)
    for _ in range(2):
        assert not choice_of_two.was_wrong
        assert choice_of_two.add(sampling=1.0, total=2.1, steps=steps, is_alone=False)
    assert choice_of_two.was_wrong is is_slower


def test_workers_are_not_tried_where_they_cannot_pay():
    """The steps that are left must save half a second more than those that are taken again."""
    choice_of_two = Choice(2)
    choice_of_two.add(sampling=1.9, total=2.1, steps=1000, is_alone=True)
    assert choice_of_two.is_worth_a_try(left=100_000, under_way=100)
    assert not choice_of_two.is_worth_a_try(left=500, under_way=0)
    assert not choice_of_two.is_worth_a_try(left=100_000, under_way=30_000)
    assert not Choice(2).is_worth_a_try(left=10**9, under_way=0)


def test_a_batch_that_waits_for_a_compilation_says_nothing_of_workers(monkeypatch):
    """What a step costs is measured where the update is compiled, or workers would seem to pay, and
    to be faster than this process, because of the seconds of the compiler."""
    counted = []
    monkeypatch.setattr(Choice, "add", lambda *arguments: counted.append(arguments))
    may_compile = threading.Event()

    def compile_later(*arguments):
        may_compile.wait()
        return compile_program(*arguments)

    monkeypatch.setattr(program, "compile_program", compile_later)
    monkeypatch.setattr(placement, "usable_cores", lambda: 2)
    environment = make_environment("CartPole-v1")
    method = CHOSEN[0]
    sampler = HostSampler(environment, method.copies, 7, Rollouts(), lambda: False)
    learner = method.make_learner(environment.spec, 7)
    advance = sampler.advance(method, learner, 10**6)
    threading.Timer(1.0, may_compile.set).start()
    learner, _ = advance(learner, 1)
    assert not counted
    advance(learner, 1)
    sampler.close()
    assert len(counted) == 1


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="signals of Unix")
def test_a_run_is_stopped_while_it_waits_for_a_worker(tmp_path):
    """Ctrl-C is heard at once, though a worker takes its time."""
    program = f"""
import os, sys, time
sys.path.insert(0, {str(tmp_path)!r})
import logpi
logpi.train("waits.py:Waits", logpi.A2C(hidden=(4,), rollout_steps=5), steps=1000, workers=1)
"""
    (tmp_path / "waits.py").write_text(
        "import os, time\nfrom gymnasium.envs.classic_control import CartPoleEnv\n"
        "class Waits(CartPoleEnv):\n    def step(self, action):\n"
        "        if os.getppid() != PARENT:\n"
        "            open('waiting', 'w').close()\n            time.sleep(100)\n"
        "        return super().step(action)\n".replace("PARENT", str(os.getpid()))
    )
    running = subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "waiting").exists():
        assert running.poll() is None
    running.send_signal(signal.SIGINT)
    _, error = running.communicate(timeout=30)
    assert "KeyboardInterrupt" in error
    assert running.returncode != 0
