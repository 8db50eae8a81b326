import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.system


def test_runs_survive_the_quick_form_of_every_fault():
    done = subprocess.run(
        [sys.executable, "-m", "tests.system.faults", "--quick"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("as they should") == 10
