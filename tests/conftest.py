import os
import secrets

# Programs that tests start share one compilation cache, apart from the user's.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np
import pytest
from helpers import SEED_VARIABLE


@pytest.fixture
def random(request):
    """Fresh random numbers at every run; a failure shows the seed, and the variable replays it."""
    seed = int(os.environ.get(SEED_VARIABLE, secrets.randbits(32)))
    request.node.add_report_section("setup", "seed", f"{SEED_VARIABLE}={seed}")
    return np.random.default_rng(seed)


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory):
    """Home of the compilation cache of started programs."""
    return tmp_path_factory.getbasetemp() / "cache"
