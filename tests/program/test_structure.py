"""The architecture as a test: imports run downward, nothing heavy is imported early, names are
unambiguous."""

import ast
import graphlib
import re
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from density import count
from mutants import MUTANTS
from step import lines_of_a_step

import logpi

SOURCE = Path(logpi.__file__).parent
ROOT = Path(__file__).parents[2]
# From the ground up; a folder may import those before it.
FOLDERS = [
    "core",
    "theory",
    "networks",
    "environments",
    "estimators",
    "methods",
    "sampling",
    "runs",
    "experiments",
    "checking",
    "artifacts",
    "testing",
    "commands",
    "cli",
    "__main__",
]


def modules():
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        if name:
            yield name, ast.parse(path.read_text())


def imported(tree):
    """Modules of logpi imported when the module is; imports inside functions are the seams that
    load on demand."""
    return imports_of(tree.body)


def every_import(tree):
    """Those inside functions too."""
    return imports_of(ast.walk(tree))


def imports_of(nodes):
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("logpi."):
            yield node.module.removeprefix("logpi.")


def folder_of(module):
    return module.split(".")[0]


def test_imports_run_downward():
    found = dict(modules())
    assert {folder_of(name) for name in found} == set(FOLDERS)
    for name, tree in found.items():
        for other in imported(tree):
            place, below = FOLDERS.index(folder_of(name)), FOLDERS.index(folder_of(other))
            assert below <= place, f"{name} imports {other}"


def test_no_imports_run_in_a_circle():
    found = dict(modules())
    below = {name: {*imported(tree)} & found.keys() for name, tree in found.items()}
    graphlib.TopologicalSorter(below).prepare()
    below["core.errors"] = {"cli"}
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(below).prepare()


def test_the_check_knows_nothing_of_training():
    """And training nothing of the check: an estimator is what both of them take."""
    for name, tree in modules():
        others = {folder_of(other) for other in every_import(tree)}
        if folder_of(name) == "checking":
            assert not others & {"environments", "methods", "sampling", "runs"}, name
        if folder_of(name) in ("methods", "sampling", "runs"):
            assert "checking" not in others, name


def test_only_sampling_and_environments_know_where_copies_are_stepped():
    names = {"HostSampler", "CompiledSampler", "LocalGroup", "WorkerProcess"}
    for name, tree in modules():
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        if folder_of(name) not in ("environments", "sampling"):
            assert not names & used, name


def test_no_module_has_the_name_of_a_public_function():
    assert not {name.split(".")[0] for name, _ in modules()} & set(logpi.__all__)


def test_every_public_name_is_documented_and_importable():
    for name in logpi.__all__:
        assert getattr(logpi, name).__doc__, name
        assert name in dir(logpi)
    assert logpi.__version__ == version("logpi")
    with pytest.raises(AttributeError, match="has no attribute 'optimise'"):
        _ = logpi.optimise


def test_a_type_checker_sees_the_names_that_python_imports():
    """The package has two lists of its public names; they give the same modules."""
    source = (SOURCE / "__init__.py").read_text()
    imports = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    seen = {
        alias.name: node.module.removeprefix("logpi.")
        for node in imports
        for alias in node.names
        if node.module.startswith("logpi.")
    }
    assert seen == vars(logpi)["_MODULES"]


def test_every_mutant_still_names_one_line():
    """Or `python tests/mutants.py` would break something else, or nothing."""
    for mutant in MUTANTS:
        text = (SOURCE / mutant.file).read_text()
        assert text.count(mutant.line) == 1, mutant


def loaded_by(statement):
    code = f"{statement}\nimport sys; print(*sorted(sys.modules))"
    return set(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
    )


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import logpi", {"numpy", "jax", "gymnasium", "tyro"}),
        ("import logpi.cli", {"numpy", "jax", "gymnasium", "matplotlib", "rich.progress"}),
        ("import logpi.sampling.host.worker", {"matplotlib", "ray", "scipy.stats", "tyro"}),
        ("import logpi.runs.training", {"matplotlib", "gymnax", "tensorboardX", "scipy.stats"}),
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(statement, absent):
    assert not loaded_by(statement) & absent


SCRIPT = """
import logpi

run = logpi.train("CartPole-v1", logpi.PPO(clip=0.1), steps=1000)
reveal_type(run.evaluation.mean)
report = logpi.check(lambda log_prob: log_prob)
reveal_type(report.verdict)
reveal_type(logpi.load("runs/pole"))
logpi.PPO(clips=0.1)
logpi.trian
"""


@pytest.mark.slow
def test_a_type_checker_sees_the_public_names(tmp_path):
    """In a project of the user's own, beside what the wheel installs; a wrong name and option are
    seen.
    """
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir"]
    subprocess.run([*build, str(tmp_path), str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("logpi-*.whl")
    installed = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(installed)
    assert (installed / "logpi" / "py.typed").is_file()
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    config = tmp_path / "pyrightconfig.json"
    config.write_text(f'{{"extraPaths": ["{installed}"], "pythonVersion": "3.11"}}')
    command = [sys.executable, "-m", "pyright", "-p", str(config), str(script)]
    said = subprocess.run(command, capture_output=True, text=True).stdout
    for expected in (
        'Type of "run.evaluation.mean" is "float"',
        "Type of \"report.verdict\" is \"Literal['exact', 'scaled'",
        'is "Policy"',
        'No parameter named "clips"',
        '"trian" is not a known attribute of module "logpi"',
    ):
        assert expected in said, said
    assert "2 errors" in said, said


@pytest.mark.slow
def test_a_step_runs_through_the_files_that_newcomers_are_told_of():
    """Those that CONTRIBUTING names, and no more files than were counted."""
    told = re.findall(r"`([a-z_/]+\.py)`", (ROOT / "CONTRIBUTING.md").read_text())
    common = "runs/loop.py"
    reinforce = lines_of_a_step(logpi.Reinforce())
    ppo = lines_of_a_step(logpi.PPO())
    for file in ("sampling/host/episodes.py", "methods/reinforce.py", "estimators/returns.py"):
        assert file in told
        assert file in reinforce
    for file in ("sampling/host/streams.py", "methods/ppo.py", "methods/descent.py"):
        assert file in told
        assert file in ppo
        assert file not in reinforce
    assert common in told
    assert reinforce[common] == ppo[common] > 50
    assert max(len(reinforce), len(ppo)) <= 47


def test_the_source_is_written_to_be_read():
    """The counts of `density.py`, as they were measured and better; they are limits, no goals."""
    found = count(SOURCE)
    lines = found["lines"] / 1000
    assert found["lines over 100"] == 0
    assert found["assigned lambdas"] == 0
    assert found["nested conditional expressions"] == 0
    assert found["tuple assignments"] <= 2 * lines
    assert found["conditional expressions"] <= 5 * lines
    assert found["Any"] <= 13 * lines
