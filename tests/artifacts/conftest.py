import pytest


@pytest.fixture(autouse=True)
def as_users_run_it(unchecked):
    """Whole runs; the shapes of their arrays are checked where their parts are tested."""
