import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))


@pytest.fixture(autouse=True)
def _quick(compiled_quickly):
    """Each estimator is compiled to be called a few times."""
