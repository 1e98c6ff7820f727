import jax
import pytest


@pytest.fixture(autouse=True)
def double_precision(compiled_quickly):
    """Mathematics is tested in float64."""
    with jax.enable_x64(True):
        yield
