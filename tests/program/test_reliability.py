"""Runs that nobody can lose: two writers, trackers that fail, files that are not what they seem."""

import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import psutil
import pytest

import logpi
from logpi import LogpiError, Reinforce
from logpi.core.user_files import LOADED
from logpi.runs.folder import RunFolder
from logpi.runs.metrics import TensorBoardTracker, read_metrics

SMALL = Reinforce(hidden=(), episodes=4, value_steps=2, value_batch=4)


def train(out, **more):
    return logpi.train("finite:short-corridor", SMALL, steps=400, out=out, **more)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with several checkpoints."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(folder, checkpoint_every=100)
    return folder


@pytest.fixture
def run(trained, tmp_path):
    """A copy of it."""
    subprocess.run(["cp", "-r", str(trained), str(tmp_path / "run")], check=True)
    return tmp_path / "run"


def test_the_last_state_is_saved(tmp_path):
    """Also where no checkpoint was due at the end."""
    done = train(tmp_path / "run", checkpoint_every=150)
    assert RunFolder.open(tmp_path / "run").saved_steps() == done.steps


def test_a_folder_has_one_writer(run):
    busy = pytest.raises(LogpiError, match=f"is being written by process {os.getpid()} on")
    with RunFolder.open(run).only_writer(), busy:
        logpi.resume(run, steps=500)
    assert logpi.resume(run, steps=500).steps >= 500


def test_what_a_killed_writer_left_is_removed(run):
    half = run / "checkpoints" / "step_000000000500.npz.77.partial"
    half.write_bytes(b"half")
    logpi.resume(run, steps=500)
    assert not half.exists()


def test_a_tracker_that_fails_is_given_up(tmp_path, monkeypatch, capsys):
    """With one warning; the run and its other trackers go on."""

    def full(self, step, metrics):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TensorBoardTracker, "write", full)
    train(tmp_path / "run")
    warnings = capsys.readouterr().err.strip().splitlines()
    assert len(warnings) == 1
    assert "TensorBoardTracker failed at step" in warnings[0]
    assert "No space left" in warnings[0]
    assert read_metrics(tmp_path / "run" / "metrics.csv")[-1]["time/total_timesteps"] >= 400


def test_rows_are_on_disk_when_they_are_written(tmp_path):
    """Not when the tracker is closed: a run that is killed closes nothing."""
    tracker = TensorBoardTracker(tmp_path, 0, {})
    [events] = tmp_path.glob("events.out.tfevents.*")
    before = events.stat().st_size
    tracker.write(7, {"a": 1.0})
    assert events.stat().st_size > before
    again = TensorBoardTracker(tmp_path, 7, {})
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 2
    again.close()
    tracker.close()


def rewritten(path, change):
    """The archive with one member changed."""
    members = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            members[name] = archive.read(name)
    change(members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def compressed(path, member):
    """The archive with one member compressed."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    assert member in members
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            method = zipfile.ZIP_DEFLATED if name == member else zipfile.ZIP_STORED
            archive.writestr(name, content, method)


def as_npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def counters(text):
    def change(members):
        members["counters.npy"] = as_npy(np.frombuffer(text.encode(), np.uint8))

    return change


def counters_with(field):
    """Those of the checkpoint but for a field; the last of a name counts."""

    def change(members):
        valid = np.load(io.BytesIO(members["counters.npy"])).tobytes().decode()
        counters(f"{valid[:-1]}, {field}}}")(members)

    return change


def long_header(members):
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"1," * 30_000 + b"), }"
    name = next(iter(members))
    members[name] = b"\x93NUMPY\x02\x00" + len(header).to_bytes(4, "little") + header


def as_pipe(path):
    path.unlink()
    os.mkfifo(path)


def as_endless(path):
    path.unlink()
    path.symlink_to("/dev/zero")


def as_large(path):
    with path.open("r+b") as file:
        file.truncate(10**12)


DAMAGES = {
    "a pipe": as_pipe,
    "a link to an endless device": as_endless,
    "a terabyte": as_large,
    "a compressed array": lambda path: compressed(path, "batch.npy"),
    "compressed counters": lambda path: compressed(path, "counters.npy"),
    "a long header": lambda path: rewritten(path, long_header),
    "counters of another form": lambda path: rewritten(path, counters('{"steps": -1}')),
    "counters that nest": lambda path: rewritten(path, counters("[" * 100_000)),
    "counters without end": lambda path: rewritten(path, counters_with('"seconds": 1e999')),
    "rows of another form": lambda path: rewritten(path, counters_with('"recent": [[1]]')),
    "sums of another form": lambda path: rewritten(path, counters_with('"row_sums": {"kl": 1}')),
    "the name of another": lambda path: os.replace(path, path.with_name(f"step_{'9' * 16}.npz")),
}


HARMLESS = {
    "nothing": lambda members: None,
    "a second more": counters_with('"seconds": 1.0'),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_checkpoint_before_a_damaged_one_is_used(run, damage, capsys):
    newest, before, *_ = RunFolder.open(run).checkpoints()
    DAMAGES[damage](newest)
    newest = RunFolder.open(run).checkpoints()[0]
    start = time.perf_counter()
    policy = logpi.load(run)
    assert time.perf_counter() - start < 2
    assert f"{newest} is damaged" in capsys.readouterr().err
    newest.unlink()
    expected = logpi.load(run)
    assert before.exists()
    for one, other in zip(policy.network.weights, expected.network.weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_damaged_checkpoint_does_not_say_how_far_a_run_has_come(run):
    """Its name has more steps than the new budget; those of the one before count."""
    newest, before, *_ = RunFolder.open(run).checkpoints()
    newest.rename(newest.with_name(f"step_{'9' * 16}.npz"))
    made = int(before.stem.removeprefix("step_"))
    assert made < logpi.resume(run, steps=500).steps < 1000


@pytest.mark.parametrize("change", HARMLESS)
def test_an_undamaged_rewrite_is_read(run, change, capsys):
    """The control: it is the change that was refused, not the way in which it was made."""
    rewritten(RunFolder.open(run).checkpoints()[0], HARMLESS[change])
    logpi.load(run)
    assert capsys.readouterr().err == ""


CONFIGURATIONS = {
    "a pipe": as_pipe,
    "a link to an endless device": as_endless,
    "a terabyte": as_large,
    "nested": lambda path: path.write_text("[" * 100_000),
    "long numbers": lambda path: path.write_text("1" * 100_000),
    "a number beyond all": lambda path: change(path, "settings", "discount", 10**400),
    "a wide network": lambda path: change(path, "settings", "hidden", [2**30, 2**30]),
    "a long name": lambda path: change(path, "settings", "environment", "x" * 10**6),
    "an unknown long name": lambda path: change(path, "settings", "y" * 10**6, 1),
    "a space without end": lambda path: change(
        path, "environment", "observation_space", {"kind": "Discrete", "n": 1e999, "start": 0}
    ),
    "actions without end": lambda path: change(
        path, "environment", "action_space", {"kind": "Discrete", "n": 10**15, "start": 0}
    ),
    "a vast space": lambda path: change(
        path,
        "environment",
        "observation_space",
        {"kind": "Box", "low": 0, "high": 1, "shape": [10**6, 10**6], "dtype": "float32"},
    ),
}


def change(path, part, field, value):
    """One field of a configuration."""
    config = json.loads(path.read_text())
    config[part][field] = value
    path.write_text(json.dumps(config))


@pytest.mark.parametrize("damage", CONFIGURATIONS)
def test_a_configuration_that_is_none_is_one_line(run, damage):
    CONFIGURATIONS[damage](run / "config.json")
    start = time.perf_counter()
    with pytest.raises(LogpiError) as raised:
        _ = logpi.load(run), logpi.resume(run, steps=500)
    assert time.perf_counter() - start < 5
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 1000


@pytest.mark.parametrize("name", ["metrics.csv", "evaluation.json", ".writer.json"])
def test_nothing_is_written_through_a_link(run, tmp_path, name):
    """A stranger's folder may have links for files."""
    mine = tmp_path / "mine"
    mine.write_text("mine")
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(mine)
    try:
        logpi.resume(run, steps=500)
    except LogpiError:
        assert name == "metrics.csv"  # what it led to is no table
    assert mine.read_text() == "mine"


def test_checkpoints_elsewhere_are_refused(run, tmp_path):
    (run / "checkpoints").rename(tmp_path / "elsewhere")
    (run / "checkpoints").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LogpiError, match="is a link: files would be written elsewhere"):
        logpi.resume(run, steps=500)


HANGING = """
import time
import gymnasium as gym, numpy as np
class Hangs(gym.Env):
    observation_space = gym.spaces.Box(-9, 9, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)
    steps = 0
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(2, np.float32), {}
    def step(self, action):
        self.t += 1
        Hangs.steps += 1
        if Hangs.steps == AFTER:
            print("hangs", flush=True)
            while True:
                time.sleep(0.1)
        return np.zeros(2, np.float32), 1.0, self.t == 10, False, {}
"""
PROGRAM = """
import sys
from logpi.cli import main
from logpi.runs import signals
signals.PATIENCE = 1.0
sys.exit(main(["train", "mine.py:Hangs", "--steps", "1e5", "--hidden", "--episodes", "8",
               "--baseline", "none", "--workers", "WORKERS", "--out", "run"]))
"""


def started(tmp_path, after, workers="0", **options):
    """A run of an environment that hangs after so many steps, or never."""
    (tmp_path / "mine.py").write_text(HANGING.replace("AFTER", str(after)))
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.replace("WORKERS", workers)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


@pytest.mark.parametrize(
    ("number", "after"), [("SIGTERM", 2000), pytest.param("SIGHUP", -1, marks=pytest.mark.slow)]
)
def test_a_signal_ends_and_saves(tmp_path, number, after):
    """A run whose environment hangs, and one whose terminal is closed."""
    with started(tmp_path, after) as program:
        while not {"hangs", "step"} & set(program.stdout.readline().split()[:1]):
            pass
        program.send_signal(getattr(signal, number))
        rest = program.communicate(timeout=60)[0]
    assert "stopped; saved at step" in rest
    assert list((tmp_path / "run" / "checkpoints").glob("*.npz"))


@pytest.mark.slow
def test_a_signal_to_all_processes_stops_the_run(tmp_path):
    """As `timeout` and schedulers send it: the run stops, and its worker is not blamed."""
    with started(tmp_path, -1, workers="1", start_new_session=True) as program:
        while program.stdout.readline().split()[:1] != ["step"]:
            pass
        os.killpg(program.pid, signal.SIGTERM)
        rest = program.communicate(timeout=60)[0]
    assert "stopped; saved at step" in rest
    assert "exit status" not in rest


MAIN = "import sys; from logpi.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.mark.release
@pytest.mark.parametrize(("output", "status"), [("/dev/full", 0), ("/dev/null", 0)])
def test_a_run_goes_on_where_nothing_can_be_said(tmp_path, output, status):
    options = ["--hidden", "--episodes", "4", "--steps", "200", "--out", str(tmp_path / "run")]
    with open(output, "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", MAIN, "train", "finite:short-corridor", *options],
            stdout=full,
            stderr=full,
        )
    assert done.returncode == status
    assert (tmp_path / "run" / "evaluation.json").exists()


@pytest.mark.parametrize(("output", "status"), [("/dev/full", 2), ("/dev/null", 0)])
def test_an_answer_that_cannot_be_written_is_said(output, status):
    with open(output, "w") as full:
        command = [sys.executable, "-c", MAIN, "derive"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == status
    assert ("the output cannot be written: No space left" in done.stderr) is (status == 2)
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="workers are killed by Linux")
def test_a_worker_that_hangs_does_not_outlive_its_parent(tmp_path):
    with started(tmp_path, 300, workers="1") as program:
        while not (workers := psutil.Process(program.pid).children()):
            time.sleep(0.1)
        time.sleep(3)
        program.kill()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive


def test_where_it_stopped_is_where_it_goes_on(run, capsys, monkeypatch):
    """A save that fails is not promised."""
    before = RunFolder.open(run).saved_steps()

    def full(path, learner, counters):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("logpi.runs.folder.save_checkpoint", full)
    from logpi.cli import main

    assert main(["resume", str(run), "--steps", "1000"]) == 2
    printed = capsys.readouterr()
    assert f"saved at step {before:,}" in printed.out
    assert "No space left on device" in printed.err
    assert json.loads((run / "config.json").read_text())["settings"]["steps"] == 1000


@pytest.mark.slow
def test_a_long_run_saves_by_time(tmp_path, monkeypatch):
    """Whatever part of its budget it has spent. Control: without the limit there is one, the
    last."""
    saved = {}
    for seconds in (0.0, 300.0):
        monkeypatch.setattr("logpi.runs.loop.SECONDS_PER_CHECKPOINT", seconds)
        train(tmp_path / f"{seconds}", checkpoint_every=10**6, evaluate_every=0)
        saved[seconds] = len(RunFolder.open(tmp_path / f"{seconds}").checkpoints())
    assert saved == {0.0: 2, 300.0: 1}


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """A run whose environment is a file that leaves a trace when it is imported."""
    monkeypatch.chdir(tmp_path)
    source = HANGING.replace("AFTER", "-1")
    (tmp_path / "theirs.py").write_text(f"open('trace', 'w').close()\n{source}")
    options = Reinforce(hidden=(), episodes=2, baseline="none")
    logpi.train("theirs.py:Hangs", options, steps=40, out="run", workers=0)
    (tmp_path / "trace").unlink()
    LOADED.pop(tmp_path / "theirs.py")
    return tmp_path


def test_my_own_run_needs_no_word(stranger):
    logpi.resume("run", steps=80)
    assert (stranger / "trace").exists()


@pytest.mark.parametrize("signed", [None, "0" * 64, 7])
def test_a_strangers_code_is_not_run(stranger, signed, capsys):
    """Until somebody agrees, once."""
    config = json.loads(Path("run/config.json").read_text())
    Path("run/config.json").write_text(json.dumps(config | {"signature": signed}))
    from logpi.cli import main

    for command in (["resume", "run", "--steps", "80"], ["evaluate", "run", "--episodes", "2"]):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert "run would import" in error
        assert "theirs.py:Hangs, and was not made by you" in error
        assert "--trust" in error
    assert not (stranger / "trace").exists()
    assert main(["evaluate", "run", "--episodes", "2", "--trust"]) == 0
    assert (stranger / "trace").exists()
    assert main(["evaluate", "run", "--episodes", "2"]) == 0


def test_a_signature_is_that_of_the_code(stranger):
    """Another name in a signed folder is another's."""
    config = json.loads(Path("run/config.json").read_text())
    config["settings"]["environment"] = "others.py:Hangs"
    Path("run/config.json").write_text(json.dumps(config))
    with pytest.raises(LogpiError, match=r"would import others\.py:Hangs"):
        logpi.resume("run", steps=80)
