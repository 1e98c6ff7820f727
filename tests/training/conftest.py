import pytest


@pytest.fixture(autouse=True)
def _training(unchecked):
    """Every step of a run calls the policy."""
