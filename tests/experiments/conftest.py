import shutil

import pytest

from tests.conftest import WORKFLOW


@pytest.fixture
def scales(tmp_path):
    """A workflow folder with the scales and no experiment, which loads fast."""
    (tmp_path / "workflow" / "experiments").mkdir(parents=True)
    shutil.copytree(WORKFLOW / "scales", tmp_path / "workflow" / "scales")
    return tmp_path / "workflow"
