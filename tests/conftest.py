import os
import secrets
import zlib

# Programs that tests start share one compilation cache, apart from the user's.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np
import pytest
from helpers import SEED_VARIABLE
from hypothesis import settings

FRESH = os.environ.get(SEED_VARIABLE) == "fresh"
settings.register_profile("repeatable", derandomize=True)
if not FRESH:
    settings.load_profile("repeatable")


@pytest.fixture
def random(request):
    """Random numbers that are the test's own at every run, so that what makes a test fail is a change, not luck.

    `LOGPI_TEST_SEED=fresh` draws new ones, as the nightly run does; a failure shows the seed that replays it.
    """
    own = zlib.crc32(request.node.nodeid.encode())
    seed = secrets.randbits(32) if FRESH else int(os.environ.get(SEED_VARIABLE, own))
    request.node.add_report_section("setup", "seed", f"{SEED_VARIABLE}={seed}")
    return np.random.default_rng(seed)


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory):
    """Home of the compilation cache of started programs."""
    return tmp_path_factory.getbasetemp() / "cache"


@pytest.fixture
def compiled_quickly():
    """For programs that run once, on a handful of numbers: compiling them takes nine tenths of such a test."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
