import pytest

from tests.tiny_runs import record_untrained


@pytest.fixture
def record_run(tmp_path):
    """Leaves the record and history of a run that was never trained, with numbers of the test's choosing."""

    def write(experiment, variant, seed=0, **told):
        record_untrained(tmp_path, variant.run_name(seed), variant.run_config(seed), **told)

    return write
