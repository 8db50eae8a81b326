from collections.abc import Iterator

import pytest

from tests.system.slurm.sandbox import Sandbox, UnavailableError


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A running Slurm, or a skipped test that says why there is none."""
    sandbox = Sandbox(tmp_path_factory.mktemp("slurm"))
    try:
        # Files of tests run side by side; those that need a Slurm take turns.
        sandbox.start(patience=900)
    except UnavailableError as reason:
        pytest.skip(str(reason))
    yield sandbox
    sandbox.stop()
