import pytest

from stlight.training import train_run
from tests.tiny_runs import tiny


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A run's record and its folder."""
    folder = tmp_path_factory.mktemp("run")
    return train_run("taxibj/tiny/seed0", tiny(), folder, folder), folder
