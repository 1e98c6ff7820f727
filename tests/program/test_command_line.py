"""The `logpi` command as a process: what it prints, where it leaves things, how it fails."""

import csv
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from logpi.checking.targets import TARGETS
from logpi.cli import main

LOGPI = [sys.executable, "-m", "logpi"]
README = Path(__file__).parents[2] / "README.md"


def test_the_version_is_that_of_the_package(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"logpi {metadata.version('logpi')}\n"


@pytest.fixture
def logpi(tmp_path, user):
    """Run `logpi …` in an empty folder."""

    def run(*arguments, status=0, timeout=120):
        command = [*LOGPI, *map(str, arguments)]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, env=user, timeout=timeout
        )
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.fixture
def logpi_here(tmp_path, monkeypatch, capsys):
    """Run `logpi …` in an empty folder, without the start of another process."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, status=0):
        try:
            ended = main([str(each) for each in arguments])
        except SystemExit as stop:  # the parser's
            ended = stop.code
        assert ended == status
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return subprocess.CompletedProcess(arguments, status, out, err)

    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A short run that tests copy."""
    import logpi

    folder = tmp_path_factory.mktemp("trained") / "run"
    logpi.train("CartPole-v1", steps=4_000, seed=5, out=folder)
    return folder


@pytest.fixture
def run_folder(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "run"))


def metrics(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_train_evaluate_resume_plot(logpi, tmp_path, run_folder):
    """The life of a run, with everything that it should leave behind."""
    out = logpi("train", "CartPole-v1", "--steps", "4e3", "--seed", 3).stdout
    folder = tmp_path / "runs" / "CartPole-v1_1"
    assert re.search(
        r"return   .* over \d+ fresh episodes \(mean, 95 % interval\), most probable actions;"
        " (below|reaches) 475",
        out,
    )
    for command in ("evaluate", "plot", "resume"):
        assert f"logpi {command} runs/CartPole-v1_1" in out
    config = json.loads((folder / "config.json").read_text())
    assert config["settings"]["steps"] == 4000
    assert config["settings"]["seed"] == 3
    assert {"jax", "gymnasium", "logpi"} <= config["sessions"][0].keys()
    rows = metrics(folder)
    assert {"rollout/ep_rew_mean", "time/fps", "train/explained_variance"} <= rows[0].keys()
    assert int(rows[-1]["time/total_timesteps"]) >= 4000
    assert list(folder.glob("events.out.tfevents.*"))
    assert not [
        path for path in folder.rglob("*") if path.suffix in {".pkl", ".pickle", ".partial"}
    ]

    evaluated = json.loads(logpi("evaluate", folder, "--episodes", 7, "--json").stdout)
    assert set(evaluated) == {"mean", "interval", "episodes", "returns", "lengths"}
    assert len(evaluated["returns"]) == len(evaluated["lengths"]) == evaluated["episodes"] == 7
    assert evaluated["mean"] == pytest.approx(np.mean(evaluated["returns"]))
    low, high = evaluated["interval"]
    assert low <= evaluated["mean"] <= high
    assert "drawn actions" in logpi("evaluate", folder, "--episodes", 3, "--sampled").stdout

    assert "resumed at step" in logpi("resume", folder, "--steps", "7_000").stdout
    assert json.loads((folder / "config.json").read_text())["settings"]["steps"] == 7000
    assert int(metrics(folder)[-1]["time/total_timesteps"]) >= 7000

    both = logpi("plot", folder, run_folder).stdout.strip()
    assert (tmp_path / both).read_bytes().startswith(b"\x89PNG")


def test_tensorboard_events_hold_the_metrics(run_folder):
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

    data = next(run_folder.glob("events.out.tfevents.*")).read_bytes()
    tags, hyperparameters, place = set(), set(), 0
    while place < len(data):
        length = int.from_bytes(data[place : place + 8], "little")
        event = Event.FromString(data[place + 12 : place + 12 + length])
        tags |= {value.tag for value in event.summary.value}
        for value in event.summary.value:
            if value.tag == "_hparams_/session_start_info":
                content = HParamsPluginData.FromString(value.metadata.plugin_data.content)
                hyperparameters |= {*content.session_start_info.hparams}
        place += 16 + length
    assert {"rollout/ep_rew_mean", "rollout/ep_len_mean", "time/fps", "train/value_loss"} <= tags
    assert {"environment", "learning_rate", "hidden", "seed"} <= hyperparameters


@pytest.mark.slow
def test_a_settings_file_and_options_over_it(logpi, tmp_path, run_folder):
    (tmp_path / "my.yaml").write_text(
        "environment: CartPole-v1\nsteps: 3e3\nlearning_rate: 1e-2\nhidden: [16]\nseed: 8\n"
    )
    logpi("train", "--config", "my.yaml", "--seed", 9, "--out", "a")
    settings = json.loads((tmp_path / "a" / "config.json").read_text())["settings"]
    assert [settings[name] for name in ("steps", "learning_rate", "hidden", "seed")] == [
        3000,
        0.01,
        [16],
        9,
    ]
    # a run's own record repeats it
    logpi("train", "--config", run_folder / "config.json", "--out", "again")
    stored = [
        json.loads((folder / "config.json").read_text())["settings"]
        for folder in (run_folder, tmp_path / "again")
    ]
    assert stored[0] == stored[1]
    newest = [
        sorted((folder / "checkpoints").glob("*"))[-1]
        for folder in (run_folder, tmp_path / "again")
    ]
    first, second = (np.load(path) for path in newest)
    assert all((first[name] == second[name]).all() for name in first.files if name != "counters")


def test_help_names_every_target(logpi_here):
    """Those that `logpi check` knows, and no other."""
    text = re.sub(r"[│\s]+", " ", logpi_here("check", "--help").stdout)
    (said,) = re.findall(r"gradient is expected: (.*?)\. \(default", text)
    names = re.sub(r" ?\([^)]*\)", "", said).split(", ")
    assert sorted(names) == sorted(TARGETS)


def test_help_names_every_bias(logpi):
    text = " ".join(logpi("train", "--help").stdout.split())
    assert text.count("BIASED") == 2
    assert "--whiten" in text
    assert "--drop-discount-power" in text


def start(arguments, tmp_path, user):
    command, environment = [*LOGPI, *arguments], {**user, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "workers"),
    [
        pytest.param("CartPole-v1", "0", marks=pytest.mark.release),
        ("CartPole-v1", "2"),
        pytest.param("gymnax:CartPole-v1", "0", marks=pytest.mark.release),
    ],
)
def test_ctrl_c_saves_and_resume_gives_the_uninterrupted_run(
    logpi, tmp_path, user, environment, workers
):
    options = [
        environment,
        "--steps",
        "60_000",
        "--seed",
        "2",
        "--workers",
        workers,
        "--checkpoint-every",
        "5_000",
    ]
    process = start(["train", *options, "--out", "stopped"], tmp_path, user)
    checkpoints = tmp_path / "stopped" / "checkpoints"
    deadline = time.monotonic() + 60
    while not (checkpoints.is_dir() and list(checkpoints.glob("*.npz"))):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    if process.returncode == 0:
        pytest.skip("the run was over before the signal came")
    assert process.returncode == 130, out + err
    assert "logpi resume stopped" in out
    assert "Traceback" not in err
    logpi("resume", "stopped")
    logpi("train", *options, "--out", "whole")
    newest = [
        sorted((tmp_path / name / "checkpoints").glob("*"))[-1] for name in ("stopped", "whole")
    ]
    assert newest[0].name == newest[1].name
    first, second = (np.load(path) for path in newest)
    assert all(
        first[name].tobytes() == second[name].tobytes()
        for name in first.files
        if name != "counters"
    )


USAGE = [
    (["train", "CartPole-v9"], "unknown environment 'CartPole-v9'; near: CartPole-v1"),
    (["train", "gymnax:CartPol-v1"], "near: CartPole-v1"),
    (["train", "CartPole-v1", "--seed", "-1"], "seed must be a whole number in [0, 2^32), got -1"),
    (["train", "CartPole-v1", "--steps", "0"], "'0' is not a whole number of steps from 1 to 1e15"),
    (
        ["train", "CartPole-v1", "--steps", "1e16"],
        "'1e16' is not a whole number of steps from 1 to 1e15",
    ),
    (["train", "CartPole-v1", "--steps", "many"], "'many' is not a whole number of steps"),
    (
        ["train", "CartPole-v1", "--learning-rate", "0"],
        "learning_rate must be a positive number, got 0.0",
    ),
    (
        ["train", "CartPole-v1", "--learning-rate", "nan"],
        "learning_rate must be a positive number, got nan",
    ),
    (
        ["train", "Pendulum-v1", "--initial-log-std", "nan"],
        "initial_log_std must be a finite number, got nan",
    ),
    (
        ["train", "Pendulum-v1", "--anneal", "initial_log_std"],
        "NAME one of reference_coefficient, discount",
    ),
    (["train", "CartPole-v1", "--discount", "1.1"], "discount must be a number in [0, 1], got 1.1"),
    (
        ["train", "CartPole-v1", "--baseline", "leave-one-out", "--episodes", "1"],
        "episodes must be a whole number >= 2",
    ),
    (
        ["train", "CartPole-v1", "--hidden", "0"],
        "hidden must be a list of at most 100 whole numbers >= 1",
    ),
    (["train", "CartPole-v1", "--config", "none.yaml"], "none.yaml cannot be read"),
    (
        ["train", "CartPole-v1", "--out", "run"],
        "run exists already; `logpi resume run` continues it",
    ),
    (["train", "finite:nothing.json"], "neither a JSON file nor one of short-corridor"),
    (["train", "mine.py:Env"], "mine.py is not a file"),
    (
        ["train", "Pendulum-v1", "--hidden", "4", "--workers", "-1"],
        "workers must be a whole number >= 0",
    ),
    (["resume", "nowhere"], "nowhere is not a folder"),
    (["resume", "."], "is not a run folder: it has no config.json"),
    (["resume", "run"], "to go on, give more --steps"),
    (["evaluate", "run", "--episodes", "0"], "episodes must be a whole number >= 1"),
    (["evaluate", "run", "--env", "Acrobot-v1"], "the policy does not fit Acrobot-v1"),
    (["plot", "nowhere"], "nowhere is not a folder"),
    (["plot", "run", "--out", "no/such/folder.png"], "cannot write no/such/folder.png"),
]


@pytest.mark.parametrize(("arguments", "message"), USAGE)
def test_unusable_input_is_one_line_and_status_2(logpi_here, run_folder, arguments, message):
    done = logpi_here(*arguments, status=2)
    # flags are refused inside a frame drawn by the parser, everything else in one line
    shown = " ".join(re.sub(r"[│╭╰─╮╯]", " ", done.stdout + done.stderr).split())
    assert message in shown
    if done.stderr.startswith("logpi: error: "):
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: [", "my.yaml is not YAML"),
        ("- 1\n", "my.yaml must hold settings by name"),
        ("stepps: 100\n", "my.yaml: unknown setting 'stepps'; did you mean 'steps'?"),
        ("algorithm: reinfroce\n", "my.yaml: unknown algorithm 'reinfroce'; known: reinforce"),
        ("discount: half\n", "my.yaml: discount must be a number in [0, 1], got 'half'"),
        ("whiten: 3\n", "my.yaml: whiten must be true or false, got 3"),
        (
            "baseline: critic\n",
            "my.yaml: baseline must be value or leave-one-out or none, got 'critic'",
        ),
    ],
)
def test_settings_files_are_checked(logpi_here, tmp_path, text, message):
    (tmp_path / "my.yaml").write_text(text)
    assert message in logpi_here("train", "CartPole-v1", "--config", "my.yaml", status=2).stderr


def damage(path, how):
    data = path.read_bytes()
    if how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    else:
        with np.load(path) as arrays:
            largest = max((arrays[name] for name in arrays), key=lambda array: array.nbytes)
        place = data.index(largest.tobytes()) + largest.nbytes // 3
        path.write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])


@pytest.mark.parametrize(
    "how",
    [
        "truncated",
        pytest.param("altered", marks=pytest.mark.slow),
        pytest.param("empty", marks=pytest.mark.slow),
    ],
)
def test_a_damaged_checkpoint_falls_back_to_the_last_whole_one(logpi, run_folder, how):
    newest, before, *_ = sorted((run_folder / "checkpoints").glob("*"), reverse=True)
    damage(newest, how)
    done = logpi("resume", "run", "--steps", "5_000")
    assert f"{newest.name} is damaged" in done.stderr
    assert f"resumed at step {int(before.stem.removeprefix('step_')):,}" in done.stdout


def test_no_whole_checkpoint_at_all(logpi, run_folder):
    for path in (run_folder / "checkpoints").glob("*"):
        damage(path, "truncated")
    assert "has no whole checkpoint" in logpi("evaluate", "run", status=2).stderr


def change_config(folder, change):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c.update(format=99),
            "has format 99, this logpi 0.1.0 reads up to 1: upgrade logpi",
        ),
        (
            lambda c: c["environment"].update(max_episode_steps=200),
            "max_episode_steps was 200, is 500; start a new run",
        ),
        (lambda c: c["settings"].update(hidden=[8]), "has no whole checkpoint"),
        (lambda c: c.pop("settings"), "no environment is named"),
    ],
)
def test_a_run_of_another_kind_is_refused(logpi_here, run_folder, change, message):
    change_config(run_folder, change)
    assert message in logpi_here("resume", "run", "--steps", "9_000", status=2).stderr


MINE = """
import gymnasium as gym
class Mine(gym.Wrapper):
    def __init__(self):
        super().__init__(gym.make("CartPole-v1"))
"""


@pytest.mark.slow
def test_a_file_of_ones_own_and_its_change(logpi, tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    logpi("train", "mine.py:Mine", "--steps", 2000, "--out", "own")
    (tmp_path / "mine.py").write_text(MINE + "# heavier pole\n")
    message = logpi("resume", "own", "--steps", 4000, status=2).stderr
    assert "own has changed: sha256" in message


BROKEN = """
import gymnasium as gym
class Breaks(gym.Wrapper):
    steps = 0
    def __init__(self):
        super().__init__(gym.make("CartPole-v1"))
    def step(self, action):
        Breaks.steps += 1
        if Breaks.steps > 3000:
            raise RuntimeError("the cart derailed")
        return super().step(action)
"""


def test_an_environment_that_fails_loses_nothing(logpi, tmp_path):
    (tmp_path / "mine.py").write_text(BROKEN)
    done = logpi("train", "mine.py:Breaks", "--workers", 0, "--out", "own", status=2)
    assert re.search(
        r"logpi: error: mine.py:Breaks: environment \d+, episode \d+, step \d+: .* the cart derailed",
        done.stderr,
    )
    assert "logpi resume own" in done.stdout + done.stderr
    saved = max((tmp_path / "own" / "checkpoints").glob("*"))
    assert int(saved.stem.removeprefix("step_")) > 1000
    logpi("evaluate", "own", "--env", "CartPole-v1", "--episodes", 2)


@pytest.mark.skipif(
    os.geteuid() == 0 and not Path("/proc").is_dir(), reason="root writes everywhere"
)
def test_a_folder_that_cannot_be_written(logpi):
    assert (
        "cannot create the run folder"
        in logpi("train", "CartPole-v1", "--out", "/proc/run", status=2).stderr
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk(tmp_path, user, run_folder):
    """Here files of more than 50 kB are refused, which a checkpoint has."""
    command = shlex.join([*LOGPI, "resume", "run", "--steps", "9_000"])
    done = subprocess.run(
        ["bash", "-c", f"ulimit -f 50; {command}"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=user,
        timeout=120,
    )
    assert done.returncode == 2
    assert "run/checkpoints/step_" in done.stderr
    assert "File too large" in done.stderr
    assert "saved at step 4," in done.stdout


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"discount": "0.9"}, "discount must lie in [0, 1]"),
        ({"discount": True}, "discount must lie in [0, 1]"),
        ({"initial": 1}, "initial has shape ()"),
        ({"reward": {"value": [1.0]}}, "exactly the fields value and probability"),
        (None, "cannot be read"),
    ],
)
def test_derive_names_what_is_wrong_with_a_process(logpi_here, tmp_path, change, message):
    from logpi.theory.processes import stay_or_leave

    path = tmp_path / "mdp.json"
    path.write_text(stay_or_leave().to_json())
    assert "[D4.4]" in logpi_here("derive", "--mdp", path).stdout
    if change is None:
        path.write_bytes(b"\xff\xfe")
    else:
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert message in logpi_here("derive", "--mdp", path, status=2).stderr
    assert (
        "exclude each other" in logpi_here("derive", "--mdp", path, "--random", 3, status=2).stderr
    )


@pytest.mark.slow
def test_each_algorithm_has_its_options(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def printed(command, status=0):
        """What one `logpi train …` prints."""
        try:
            found = main(["train", *command.split()])
        except SystemExit as ending:
            found = ending.code
        assert found == status
        return "".join(capsys.readouterr())

    assert "--clip" in printed("--algorithm ppo --help")
    assert "--clip" not in printed("--algorithm trpo --help")
    assert "backtracks" in printed("CartPole-v1 --algorithm a2c --backtracks 3", status=2)
    wrong = printed("CartPole-v1 --algorithm ppo --minibatches 7", status=2)
    assert "minibatches must be a divisor of environments * rollout_steps = 2048, got 7" in wrong
    Path("trpo.yaml").write_text("algorithm: trpo\nkl_limit: 0.02\n")
    wrong = printed("CartPole-v1 --config trpo.yaml --algorithm ppo", status=2)
    assert "trpo.yaml is for trpo, --algorithm asks for ppo" in wrong
    printed("finite:short-corridor --config trpo.yaml --hidden --steps 100 --out run")
    settings = json.loads((tmp_path / "run" / "config.json").read_text())["settings"]
    assert (settings["algorithm"], settings["kl_limit"]) == ("trpo", 0.02)


def readme_commands():
    return re.findall(r"^    (logpi .*?)(?:\s+#.*)?$", README.read_text(), re.MULTILINE)


@pytest.mark.slow
def test_the_commands_of_the_readme_run(logpi_here, tmp_path):
    """Word for word, but that budgets are cut, and that CartPole stands for the environment of
    another extra."""
    commands = [command.split()[1:] for command in readme_commands()]
    assert [words[0] for words in commands] == (
        ["train"] * 5
        + ["resume", "evaluate", "plot"]
        + ["train", "sweep", "compare", "plot", "runs", "report", "video", "export"]
        + ["record", "imitate"]
        + ["check"] * 3
        + ["train", "derive"]
        + ["doctor"]
        + ["train"] * 5
    )
    (tmp_path / "mine.py").write_text(
        "import equinox as eqx, gymnasium\n"
        "MyEnv = lambda: gymnasium.make('CartPole-v1')\n"
        "def net(features, outputs, key):\n"
        "    return eqx.nn.MLP(features, outputs, 32, 1, key=key)\n"
    )
    (tmp_path / "my_loss.py").write_text(
        "import jax.numpy as jnp\n"
        "def loss(log_prob, reward):\n"
        "    return -jnp.mean(log_prob.mean(-1) * reward.sum(-1))\n"
    )
    (tmp_path / "my.yaml").write_text("steps: 1000\n")
    logpi_here("train", "CartPole-v1", "--steps", 500, "--out", "runs/other")
    (tmp_path / "one_episode.py").write_text(
        "def loss(log_prob, reward):\n    return -log_prob.mean() * reward.sum()\n"
    )
    short = {
        "LunarLander-v3": "CartPole-v1",
        "3e6": "1000",
        "6e6": "2000",
        "1e6": "3000",
        "0..9": "0,1",
    }
    assert set(short) <= {word for words in commands for word in words}
    for words in commands:
        cut = (
            ["--steps", 1000]
            if words[0] in ("train", "sweep") and not {"--steps", "--config"} & set(words)
            else []
        )
        logpi_here(
            *(short.get(word, word) for word in words), *cut, status=int(words[0] == "check")
        )
    for made in ("credit.png", "lander.html", "lander.gif", "lander.onnx", "lander.npz"):
        assert (tmp_path / made).is_file()


@pytest.mark.release
def test_the_commands_and_the_python_of_the_experiments_run(logpi, tmp_path, monkeypatch, capsys):
    """With short budgets."""
    text = (README.parent / "docs" / "experiments.md").read_text()
    commands = re.findall(r"^    (logpi .*?)(?:\s+#.*)?$", text, re.MULTILINE)
    assert len(commands) == 23
    for name in ("a", "b", "c_1", "c_2"):
        options = ["--steps", 200, "--seed", len(name), "--out", f"runs/{name}"]
        if name == "c_2":
            options[3] = 5
        logpi("train", "CartPole-v1", *options)
    (tmp_path / "space.yaml").write_text("learning_rate: {low: 1e-4, high: 1e-2}\nepochs: [4, 10]")
    short = {"1e6": "3000", "3e4": "500", "2e4": "500", "5e4": "300", "50": "1", "0..4": "0,1"}
    (tmp_path / "my_loss.py").write_text(
        "def loss(log_prob, reward):\n    return -(log_prob.sum(-1) * reward.sum(-1)).mean()\n"
    )
    for command in commands:
        words = [short.get(word, word) for word in shlex.split(command)[1:]]
        if words[0] == "train" and "--steps" not in words:
            words += ["--steps", "1000"]
        if words[0] == "tune":
            words += ["--confirm", "2"]
            if "--trials" not in words:
                words += ["--trials", "1", "--steps", "300"]
        logpi(*words, timeout=600, status=int(words[0] == "check"))
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code.replace("20_000", "2_000"), "experiments.md", "exec"), {})
    assert "done" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", sorted(path.name for path in (README.parent / "docs" / "algorithms").glob("*.md"))
)
def test_the_commands_of_the_algorithms_run(logpi_here, page):
    """With short budgets, and CartPole for MuJoCo."""
    text = (README.parent / "docs" / "algorithms" / page).read_text()
    commands = [
        a or b
        for a, b in re.findall(r"^    (logpi train .*)$|`(logpi train [^`]*)`", text, re.MULTILINE)
    ]
    assert commands
    for words in map(str.split, dict.fromkeys(commands)):
        short = [
            "CartPole-v1" if word == "HalfCheetah-v5" else word
            for word in words[1:]
            if word != "--steps"
        ]
        logpi_here(*(word for word in short if not re.fullmatch(r"\de\d", word)), "--steps", 2000)
