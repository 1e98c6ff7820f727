import os
import secrets
import zlib
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# What one test has compiled no other compiles again; apart from the user's cache, `pytest
# --cache-clear` empties it.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "jax")
)
# The key with which runs are signed is no user's.
os.environ.setdefault("XDG_STATE_HOME", str(Path(__file__).parents[1] / ".pytest_cache" / "state"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
# Most programs of tests run a few times on a handful of numbers: to compile them is what takes time.
# The older emitters compile twice as fast; the tests before a release compile as users do.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=1 --xla_cpu_use_fusion_emitters=false"
)

# Two workers of pytest have two cores: threads beside them would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import gc

import jax
import jaxtyping
import numpy as np
import pytest
import threadpoolctl
from helpers import SEED_VARIABLE
from hypothesis import settings

# What has been imported stays; to look through it again and again took a twentieth of the time.
gc.freeze()
gc.set_threshold(20_000)
threadpoolctl.threadpool_limits(1, "blas")  # NumPy may have been imported already

FRESH = os.environ.get(SEED_VARIABLE) == "fresh"
settings.register_profile("repeatable", derandomize=True)
if not FRESH:
    settings.load_profile("repeatable")

# Folders and modules of tests that play whole runs, or check losses as their authors do.
WHOLE_RUNS = {
    "artifacts",
    "experiments",
    "program",
    "test_bad_environments",
    "test_calling",
    "test_causes",
    "test_environment_options",
    "test_faults",
    "test_observations",
    "test_own_environments",
    "test_unusable",
    "test_workers",
}


@pytest.fixture
def random(request):
    """Random numbers that are the test's own at every run, so that what makes a test fail is a
    change, not luck.

    `LOGPI_TEST_SEED=fresh` draws new ones, and a failure shows the seed that
    replays it.
    """
    own = zlib.crc32(request.node.nodeid.encode())
    seed = secrets.randbits(32) if FRESH else int(os.environ.get(SEED_VARIABLE, own))
    request.node.add_report_section("setup", "seed", f"{SEED_VARIABLE}={seed}")
    return np.random.default_rng(seed)


@pytest.fixture(scope="session")
def user(tmp_path_factory):
    """Environment variables of a user whose cache starts empty, for programs that tests start."""
    plain = {
        name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"
    }
    return {**plain, "XDG_CACHE_HOME": str(tmp_path_factory.getbasetemp() / "cache")}


@pytest.fixture
def compiled_quickly():
    """For programs that run once, on a handful of numbers: compiling them takes three quarters of
    such a test."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def unchecked():
    """For what calls small functions a million times: other tests check their shapes, at several
    times the cost."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True)
def as_users_run_it(request):
    """Whole runs, at half of the cost; what they are made of is tested with its shapes."""
    if {request.path.stem, request.path.parent.name} & WHOLE_RUNS:
        request.getfixturevalue("unchecked")
