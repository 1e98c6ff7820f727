"""Run folders in the hands of people: stopped late, damaged, without their files, asked for what
they are not."""

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import gymnasium as gym
import jax
import numpy as np
import pytest

import logpi
from logpi import A2C, PPO, LogpiError, Reinforce
from logpi.cli import main
from logpi.environments.doctor import examine
from logpi.runs.folder import RunFolder

SMALL = dict(hidden=(4,), episodes=4, baseline="none")


def train(out, **more):
    return logpi.train("finite:short-corridor", Reinforce(**(SMALL | more)), steps=200, out=out)


def test_a_run_that_was_stopped_in_its_evaluation_is_evaluated(tmp_path, monkeypatch):
    whole = train(tmp_path / "whole")

    def stopped(*_):
        raise LogpiError("the disk of the simulator is full")

    with monkeypatch.context() as patch:
        patch.setattr("logpi.runs.loop.evaluate_at_end", stopped)
        with pytest.raises(LogpiError, match="simulator"):
            train(tmp_path / "run")
    assert not (tmp_path / "run" / "evaluation.json").exists()
    with pytest.raises(
        LogpiError, match="is finished: .* of 50 steps; to go on, give more"
    ):  # a budget that was meant otherwise
        logpi.resume(tmp_path / "run", steps=50)
    resumed = logpi.resume(tmp_path / "run")
    assert resumed.steps == whole.steps
    assert resumed.evaluation.to_json() == whole.evaluation.to_json()
    with pytest.raises(LogpiError, match="to go on, give more --steps"):
        logpi.resume(tmp_path / "run")


def test_an_older_policy_is_used_with_a_warning(tmp_path, capsys):
    train(tmp_path / "run")
    logpi.load(tmp_path / "run")
    assert capsys.readouterr().err == ""
    newest = max((tmp_path / "run" / "checkpoints").glob("*.npz"))
    newest.write_bytes(b"")
    logpi.load(tmp_path / "run")
    assert f"{newest} is damaged" in capsys.readouterr().err


@pytest.mark.slow
def test_what_a_reader_says_in_several_lines_is_one(tmp_path, capsys):
    """NumPy's refusal of a header that is too long has three."""
    train(tmp_path / "run")
    newest = max((tmp_path / "run" / "checkpoints").glob("*.npz"))
    with zipfile.ZipFile(newest) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    first = next(iter(members))
    members[first] = b"\x93NUMPY\x01\x00" + (60_000).to_bytes(2, "little") + b"{" * 60_000
    with zipfile.ZipFile(newest, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    logpi.load(tmp_path / "run")
    told = capsys.readouterr().err
    assert "Header info length" in told
    assert len(told.splitlines()) == 1


def test_a_policy_can_be_used_without_the_estimator_that_trained_it(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def loss(log_prob, reward, mask): return -(log_prob * mask).sum()\n")
    train(tmp_path / "run", estimator=f"{file}:loss")
    file.unlink()
    logpi.load(tmp_path / "run")
    assert main(["evaluate", str(tmp_path / "run"), "--episodes", "2"]) == 0
    with pytest.raises(LogpiError, match="is not a file"):
        logpi.resume(tmp_path / "run", steps=400)


def test_a_policy_that_is_no_number_is_never_saved(tmp_path):
    """The environment is not to blame. The last whole state stays."""
    config = logpi.PPO(
        actions="tanh-normal", learning_rate=1e4, max_gradient_norm=1e9, environments=2
    )
    with pytest.raises(LogpiError, match="lower the learning rates"):
        logpi.train("Pendulum-v1", config, steps=4000, workers=0, out=tmp_path / "run")
    leaves = jax.tree.leaves(logpi.load(tmp_path / "run"))
    assert all(np.isfinite(leaf).all() for leaf in leaves)


@pytest.mark.parametrize("end", ["-0.01", "nan", "inf"])
def test_annealing_ends_at_a_value(end):
    with pytest.raises(LogpiError, match="finite value|positive number"):
        Reinforce(anneal=(f"learning_rate={end}",))


def assert_lines(said, before=""):
    """Each expression, as people run it, without the types that tests check, fails with a line
    that begins as it should."""
    program = f"""import gymnasium as gym, logpi, numpy as np
{before}
for text in {list(said)!r}:
    try:
        eval(text)
    except logpi.LogpiError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr == ""
    printed = done.stdout.splitlines()
    assert len(printed) == len(said)
    for line, beginning in zip(printed, said.values(), strict=True):
        assert line.startswith(beginning)


def assert_said(program, message):
    """As people run it, without the types that tests check: one line, or no fault."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert done.returncode == (0 if message is None else 2), done.stderr
    assert message is None or message in done.stderr


@pytest.mark.release
@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", '{\n\t"steps": 100,\n\t"environment": "finite:short-corridor"\n}', None),
        ("a.json", "{", "is not JSON"),
        ("a.yaml", "settings: 5", "must hold settings by name"),
        ("a.yaml", "algorithm: {a: 1}", "unknown algorithm"),
        ("a.yaml", "5: 3", "unknown setting '5'"),
        ("a.yaml", "reference: 5", "reference must be a run folder"),
        ("a.yaml", "network: [a.py:b]", "network must be FILE.py:NAME"),
    ],
)
def test_configurations_of_any_kind(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    command = f"train finite:short-corridor --config {tmp_path / name} --out {tmp_path / 'run'}"
    assert_said(f"from logpi.cli import main; raise SystemExit(main({command.split()!r}))", message)


@pytest.mark.parametrize(
    "settings", [None, [], {"environment": "finite:short-corridor", "stepps": 3}]
)
def test_a_configuration_that_was_edited(tmp_path, settings):
    train(tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"settings": settings}))
    with pytest.raises(LogpiError, match=r"config\.json: (settings must be names|unknown setting)"):
        logpi.load(tmp_path / "run")
    path.write_text(json.dumps(config | {"environment": []}))
    with pytest.raises(LogpiError, match="does not describe its environment"):
        logpi.resume(tmp_path / "run", steps=400)


def test_algorithms_and_seeds_that_are_none(tmp_path):
    policy = train(tmp_path / "run").policy
    assert_lines(
        {
            "logpi.train('CartPole-v1', 'ppo')": "algorithm must be an options object such as"
            " logpi.PPO()",
            "logpi.train('CartPole-v1', logpi.PPO)": "algorithm must be an options object",
            "logpi.evaluate(None, 'CartPole-v1', seed=1.5)": "seed must be a whole number",
            "logpi.evaluate(None, 'CartPole-v1')": "policy must be a policy, a run or its folder",
        }
    )
    with pytest.raises(LogpiError, match="seed must be a whole number"):
        logpi.evaluate(policy, "finite:short-corridor", seed=-1)
    with pytest.raises(LogpiError, match="max_episode_steps must be a whole number >= 1"):
        logpi.evaluate(policy, "CartPole-v1", max_episode_steps=-3)


def test_the_picture_is_where_plot_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    train("run")
    for asked, written in (
        (".", "learning_curve.png"),
        ("curves", "curves.png"),
        ("b.png", "b.png"),
    ):
        assert main(["plot", "run", "--out", asked]) == 0
        assert Path(capsys.readouterr().out.strip()) == Path(written)
        assert Path(written).stat().st_size > 0


def test_runs_that_start_at_once_take_different_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "exists", lambda self: False)  # as it was when the other run looked
    settings = logpi.runs.settings.Settings("finite:short-corridor")
    paths = [RunFolder.create(None, settings, {}).path for _ in range(3)]
    assert len(set(paths)) == 3
    assert os.listdir("runs")


class OwnBuffer(gym.Env):
    """Returns the same array every time."""

    observation_space, action_space = (
        gym.spaces.Box(-1, 1, (1,), np.float32),
        gym.spaces.Discrete(2),
    )
    x = np.zeros(1, np.float32)

    def reset(self, *, seed=None, options=None):
        self.t, self.x[:] = 0, 0.0
        return self.x, {}

    def step(self, action):
        self.t += 1
        self.x[:] = np.nan if self.t == 3 else self.t / 10
        return self.x, 1.0, self.t == 5, False, {}


def test_the_doctor_looks_at_what_was_returned_not_at_what_it_became():
    wrong = [finding.what for finding in examine(OwnBuffer, 50) if finding.status == "wrong"]
    assert "observations" in wrong


CONFIGS = [
    logpi.A2C(environments=3, hidden=(4,)),
    Reinforce(episodes=5, hidden=(4,), baseline="leave-one-out"),
]


@pytest.mark.slow
@pytest.mark.parametrize("environment", ["CartPole-v1", "finite:contextual-bandit"])
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_an_evaluation_is_the_same_whoever_asks(environment, config, tmp_path):
    """The summary's episodes, and the first ten of any number, drawn or not. Control: another
    seed."""
    run = logpi.train(
        environment, config, steps=60, out=tmp_path / "run", workers=0, max_episode_steps=None
    )

    def evaluate(episodes, **more):
        return logpi.evaluate(run.policy, environment, episodes, **more).returns

    summaries = {True: run.evaluation.returns, False: run.drawn_evaluation.returns}
    for deterministic, found in summaries.items():
        again = evaluate(len(found), deterministic=deterministic)
        np.testing.assert_array_equal(again, found)
    for drawn in (False, True):
        few, many = (evaluate(count, deterministic=not drawn) for count in (10, 25))
        np.testing.assert_array_equal(few, many[:10])
    assert not np.array_equal(
        evaluate(100, deterministic=False), evaluate(100, deterministic=False, seed=1)
    )


def test_metrics_survive_a_stop_while_they_are_rewritten(tmp_path, monkeypatch):
    """And the rows that are kept stay as they were, to the letter."""
    train(tmp_path / "run")
    file = tmp_path / "run" / "metrics.csv"
    before = file.read_text()

    def stopped(*_):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr("logpi.runs.metrics.os.replace", stopped)
        with pytest.raises(LogpiError, match="no space left"):
            logpi.resume(tmp_path / "run", steps=400)
    assert file.read_text() == before
    logpi.resume(tmp_path / "run", steps=400)
    assert file.read_text().startswith(before)
    assert len(file.read_text()) > len(before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(reference_coefficient=0.5), "reference_coefficient must be 0 without a reference"),
        (dict(estimator="mine.py:loss", whiten=True), "whiten must be False beside an estimator"),
        (
            dict(estimator="mine.py:loss", returns="whole"),
            "returns must be 'reward-to-go' beside an estimator",
        ),
        (
            dict(estimator="mine.py:loss", drop_discount_power=True),
            "drop_discount_power must be False beside",
        ),
    ],
)
def test_options_that_would_be_ignored_are_refused(options, message):
    with pytest.raises(LogpiError, match=message):
        Reinforce(**options)


@pytest.mark.slow
def test_arguments_of_other_types(tmp_path):
    """As people run it, without the types that tests check: each is one line, and numbers of NumPy
    are numbers."""
    lines = {
        "logpi.Reinforce(hidden=64)": "hidden must be a list of at most 100 whole numbers >= 1, got 64",
        "logpi.PPO(anneal='learning_rate')": "anneal must be a list of NAME or NAME=VALUE, got 'learning_rate'",
        "logpi.PPO(anneal={'learning_rate': 1e-5})": "anneal must be a list of NAME or NAME=VALUE, got {'learning_rate': 1e-05}",
        "logpi.train(gym.make('CartPole-v1'))": "give the environment's id or a factory",
        "run.policy.act([0.0], 3)": "random must be a generator such as np.random.default_rng(0), got 3",
    }
    config = (
        "logpi.Reinforce(hidden=(4,), episodes=4, learning_rate=np.float32(0.25),"
        " discount=np.float64(0.5))"
    )
    options = f"steps=np.int64(50), seed=np.int64(3), out={str(tmp_path / 'run')!r}"
    assert_lines(lines, f'run = logpi.train("finite:short-corridor", {config}, {options})')
    settings = json.loads((tmp_path / "run" / "config.json").read_text())["settings"]
    assert (settings["seed"], settings["learning_rate"], settings["discount"]) == (3, 0.25, 0.5)


def test_a_clip_may_be_annealed_to_nothing():
    assert logpi.PPO(anneal=("clip",)).anneal == ("clip",)
    with pytest.raises(LogpiError, match="positive"):
        logpi.PPO(anneal=("clip=-1",))


def test_text_in_a_file_of_settings_stays_text(tmp_path):
    from logpi.runs.settings import read_settings

    file = tmp_path / "my.yaml"
    file.write_text("steps: 3e6\nlearning_rate: 1.5e-3\nreference: '2024'\nnetwork: e5.py:net\n")
    found = {"steps": 3e6, "learning_rate": 1.5e-3, "reference": "2024", "network": "e5.py:net"}
    assert read_settings(file) == found


@pytest.mark.slow
def test_lines_to_paste_are_quoted(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = [
        "train",
        "finite:short-corridor",
        "--hidden",
        "--baseline",
        "none",
        "--steps",
        "50",
        "--out",
        "my run",
    ]
    assert main(command) == 0
    assert "logpi resume 'my run' --steps" in capsys.readouterr().out
    assert main(command) == 2
    assert "`logpi resume 'my run'`" in capsys.readouterr().err


@pytest.mark.release
@pytest.mark.parametrize(
    "closing", ["sys.stdout = None", "sys.stdout.reconfigure(encoding='ascii')"]
)
def test_wherever_it_prints(closing, tmp_path):
    """Into nothing, and where π and ∇ cannot be written."""
    train = (
        "main(['train', 'finite:short-corridor', '--hidden', '--steps', '20', '--out',"
        f" {str(tmp_path / 'run')!r}])"
    )
    text = f"import sys; {closing}; from logpi.cli import main; sys.exit({train})"
    subprocess.run([sys.executable, "-c", text], check=True, capture_output=True)
    subprocess.run(
        [sys.executable, "-c", "from logpi.cli import main; main(['train', '--help'])"],
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )


@pytest.mark.parametrize("algorithm", ["reinforce", "a2c"])
def test_memory_that_is_not_there(algorithm, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = [
        "train",
        "CartPole-v1",
        "--algorithm",
        algorithm,
        "--max-episode-steps",
        "1000000000000",
        "--steps",
        "99",
    ]
    assert main(command) == 2
    assert "not enough memory for" in capsys.readouterr().err


@pytest.mark.parametrize(("megabytes", "refused"), [(10, True), (1000, False)])
def test_a_batch_that_the_machine_cannot_hold(megabytes, refused, tmp_path, monkeypatch):
    """Linux would grant the memory, and end the process without a word once it is used."""
    memory = 1e6 * megabytes
    monkeypatch.setattr("logpi.sampling.host.sampler.machine_memory", lambda: memory)
    method = Reinforce(**SMALL)
    said = "100,000 steps, the time limit: a batch takes 0.0 GiB, this machine has 0.0 GiB"
    expected = pytest.raises(LogpiError, match=said) if refused else contextlib.nullcontext()
    with expected:
        logpi.train(
            "CartPole-v1", method, steps=10, max_episode_steps=100_000, out=tmp_path / "run"
        )


@pytest.mark.release
@pytest.mark.parametrize("algorithm", ["reinforce", "a2c"])
def test_compiled_training_in_double_precision(algorithm, tmp_path):
    text = "import sys; from logpi.cli import main; sys.exit(main(sys.argv[1:]))"
    options = [
        "--algorithm",
        algorithm,
        "--hidden",
        "--steps",
        "200",
        "--out",
        str(tmp_path / "run"),
    ]
    command = [sys.executable, "-c", text, "train", "finite:short-corridor", *options]
    subprocess.run(
        command, check=True, capture_output=True, env={**os.environ, "JAX_ENABLE_X64": "1"}
    )
    newest = max((tmp_path / "run" / "checkpoints").glob("*.npz"))
    assert any(array.dtype == np.float64 for array in np.load(newest).values())


@pytest.mark.parametrize(
    ("environment", "algorithm"),
    [
        ("CartPole-v1", PPO(hidden=(8,), environments=2, rollout_steps=50, minibatches=2)),
        pytest.param("CartPole-v1", Reinforce(hidden=(8,), episodes=4), marks=pytest.mark.slow),
        pytest.param(
            "finite:contextual-bandit",
            A2C(hidden=(), environments=4, rollout_steps=10),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["ppo", "reinforce", "a2c"],
)
def test_a_short_run_goes_on_where_it_was_cut(environment, algorithm, tmp_path, unchecked):
    """Every array of the last checkpoint, bit for bit. Control: another seed gives other arrays."""

    def arrays(name):
        newest = max((tmp_path / name / "checkpoints").glob("*.npz"))
        with np.load(newest) as file:
            return {key: file[key].tobytes() for key in file.files if key != "counters"}

    algorithm = dataclasses.replace(algorithm, anneal=())
    for name, steps, seed in (("whole", 700, 1), ("cut", 300, 1), ("other", 700, 2)):
        logpi.train(environment, algorithm, steps=steps, seed=seed, out=tmp_path / name)
    logpi.resume(tmp_path / "cut", steps=700)
    assert arrays("cut") == arrays("whole")
    assert arrays("other") != arrays("whole")


def test_a_run_folder_has_a_model_card_and_is_read_elsewhere(tmp_path):
    """Its front matter has the evaluation of the run; the folder needs nothing beside it."""
    import yaml

    run = train(tmp_path / "run")
    card = (tmp_path / "run" / "README.md").read_text()
    _, head, text = card.split("---\n", 2)
    found = yaml.safe_load(head)
    (result,) = found["model-index"][0]["results"]
    assert result["dataset"]["type"] == "finite:short-corridor"
    assert result["metrics"][0]["value"].startswith(f"{run.evaluation.mean:.2f} +/- ")
    assert str(run.evaluation) in text
    moved = shutil.copytree(tmp_path / "run", tmp_path / "elsewhere" / "downloaded")
    shutil.rmtree(tmp_path / "run")
    parameters = zip(jax.tree.leaves(logpi.load(moved)), jax.tree.leaves(run.policy), strict=True)
    assert all(np.array_equal(one, other) for one, other in parameters)
    assert logpi.evaluate(moved, episodes=3).returns.shape == (3,)


def test_the_kernels_of_a_machine_are_those_of_numpy():
    """Whatever else the process has loaded: a run that is resumed beside SciPy is no other run."""
    program = (
        "import numpy, threadpoolctl\n"
        "from logpi.runs.machine import describe_machine\n"
        "before = describe_machine()\n"
        "import scipy.linalg\n"
        "assert len(threadpoolctl.threadpool_info()) > 1\n"
        "assert describe_machine() == before, before\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
