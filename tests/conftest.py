import os

# Set before torch is loaded. With one thread each, tests that run side by side do not compete for cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from stlight.data.prepare import prepare
from stlight.experiments import Plan, load_plan
from stlight.kernels import frames

torch.set_num_threads(1)
# Read when Triton is first imported. Without a GPU its kernels run in its interpreter.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

REPOSITORY = Path(__file__).resolve().parent.parent
WORKFLOW = REPOSITORY / "workflow"


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepare the embedded digits once and return their data root."""
    root = tmp_path_factory.mktemp("data")
    prepare("mmnist", "embedded", root)
    return root


@pytest.fixture(scope="session")
def demo() -> Plan:
    return load_plan(WORKFLOW, "demo", Path("nowhere"))


@pytest.fixture(scope="session")
def paper() -> Plan:
    return load_plan(WORKFLOW, "paper", Path("nowhere"))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(params=["kernels", "torch"])
def with_and_without_kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the test with the compiled kernels for frames, if there is a compiler, and again with PyTorch."""
    if request.param == "torch":
        monkeypatch.setattr(frames, "library", lambda source: None)
    elif frames.library("frames.c") is None:
        pytest.skip("no C compiler")


@pytest.fixture
def workflow(tmp_path: Path) -> Path:
    """Copy the workflow folder, for the test to change."""
    return shutil.copytree(WORKFLOW, tmp_path / "workflow")


@pytest.fixture
def scales(tmp_path: Path) -> Path:
    """A workflow folder with no experiment, and with the scales without what they say about experiments, which loads fast."""
    (tmp_path / "workflow" / "experiments").mkdir(parents=True)
    for path in shutil.copytree(WORKFLOW / "scales", tmp_path / "workflow" / "scales").iterdir():
        path.write_text(re.sub(r"^more_seeds:\n(  .*\n)+", "", path.read_text(), flags=re.MULTILINE))
    return tmp_path / "workflow"
