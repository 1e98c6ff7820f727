"""The architecture as a test: imports run downward, nothing heavy is imported early, names are unambiguous."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import logpi

SOURCE = Path(logpi.__file__).parent
# From the ground up; a module may import those before it.
ORDER = [
    "errors",
    "files",
    "contract",
    "module",
    "trajectory",
    "distributions",
    "network",
    "encoder",
    "own_network",
    "head",
    "policy",
    "numeric",
    "mdp",
    "objective",
    "enumeration",
    "derivation_lines",
    "derivation",
    "derivation_text",
    "returns",
    "reference",
    "baseline",
    "estimator",
    "natural",
    "algorithm",
    "surrogate",
    "config",
    "value",
    "randomness",
    "envs.base",
    "envs.views",
    "envs.compiled",
    "envs.finite",
    "envs.gymnax",
    "envs.brax",
    "envs.jumanji",
    "envs.registry",
    "envs",
    "envs.host",
    "envs.pool",
    "envs.vector",
    "envs.workers",
    "envs.group",
    "own_estimator",
    "learner",
    "descent",
    "actor_critic",
    "update",
    "named_estimators",
    "rollout",
    "rollout_streams",
    "rollout_host",
    "rollout_compiled",
    "sampler",
    "evaluation",
    "checkpoint",
    "folder",
    "metrics",
    "report",
    "training",
    "plotting",
    "doctor",
    "checking.probes",
    "checking.factors",
    "checking.catalogue",
    "checking.request",
    "checking.framework_numpy",
    "checking.framework_torch",
    "checking.framework_jax",
    "checking.frameworks",
    "checking.cases",
    "checking.targets",
    "checking.expectation",
    "checking.diagnosis",
    "checking.verdict",
    "checking.remarks",
    "checking.credit",
    "checking.report",
    "checking.picture",
    "checking.measuring",
    "checking.checker",
    "checking",
    "testing",
    "cli",
]


def modules():
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        if name:
            yield name, ast.parse(path.read_text())


def imported(tree):
    """Modules of logpi imported when the module is; imports inside functions are the seams that load on demand."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("logpi."):
            yield node.module.removeprefix("logpi.")


def test_imports_run_downward():
    found = dict(modules())
    assert sorted(found) == sorted(ORDER)
    for name, tree in found.items():
        for other in imported(tree):
            assert ORDER.index(other) < ORDER.index(name), f"{name} imports {other}"


def test_training_and_checking_never_import_each_other():
    for name, tree in modules():
        nodes = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
        if name.startswith("checking"):
            assert not {"logpi.training", "logpi.update", "logpi.sampler", "logpi.named_estimators"} & set(nodes), name
        if name in ("training", "update", "sampler", "evaluation"):
            assert not [node for node in nodes if node.startswith("logpi.checking")], name


def test_only_the_rollout_knows_compiled_from_host():
    """Names of either kind are used by the environments, the rollout and the choice of a sampler alone."""
    for name, tree in modules():
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        if not name.startswith(("envs", "rollout", "sampler")):
            assert not names & {"HostSampler", "CompiledSampler", "LocalGroup", "WorkerGroup"}, name


def test_no_module_has_the_name_of_a_public_function():
    assert not {name.split(".")[0] for name, _ in modules()} & set(logpi.__all__)


def test_every_public_name_is_documented_and_importable():
    for name in logpi.__all__:
        assert getattr(logpi, name).__doc__, name
    with pytest.raises(AttributeError, match="has no attribute 'optimise'"):
        _ = logpi.optimise


def loaded_by(statement):
    code = f"{statement}\nimport sys; print(*sorted(sys.modules))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import logpi", {"numpy", "jax", "gymnasium", "tyro"}),
        ("import logpi.cli", {"numpy", "jax", "gymnasium", "matplotlib", "rich.progress"}),
        ("import logpi.envs.workers", {"jax", "equinox", "matplotlib"}),
        ("import logpi.training", {"matplotlib", "gymnax", "tensorboardX", "scipy.stats"}),
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(statement, absent):
    assert not loaded_by(statement) & absent
