from collections.abc import Iterator

import pytest

from tests.system.slurm.sandbox import Sandbox, UnavailableError


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """Start a Slurm, or skip the test with the reason."""
    sandbox = Sandbox(tmp_path_factory.mktemp("slurm"))
    try:
        # Test files run in parallel, but only one Slurm at a time.
        sandbox.start(patience=900)
    except UnavailableError as reason:
        pytest.skip(str(reason))
    yield sandbox
    sandbox.stop()
