"""The notebooks are kept without outputs, and run from top to bottom."""

import json
import math

import nbformat
import numpy as np
import pytest
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient

from tests.conftest import REPOSITORY
from tests.tiny_runs import record_untrained

NOTEBOOKS = REPOSITORY / "notebooks"


@pytest.fixture
def execute(tmp_path, monkeypatch):
    """Runs a notebook in its own folder, writing nothing there, and gives its outputs by cell."""
    # A reader's own settings take no part, and Jupyter leaves nothing outside the test's folder.
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / "jupyter"))

    def run(name, timeout):
        notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
        # With nowhere to look for others, the kernel is the interpreter that runs this test.
        specs = KernelSpecManager(kernel_dirs=[])
        kernel = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=specs)
        client = NotebookClient(notebook, km=kernel, timeout=timeout, resources={"metadata": {"path": str(NOTEBOOKS)}})
        client.execute(cleanup_kc=True)
        return {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}

    return run


def text(outputs):
    return "".join(output.text for output in outputs if output.output_type == "stream")


def kinds(outputs):
    return {kind for output in outputs for kind in output.get("data", ())}


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(path):
    content = json.loads(path.read_text())
    nbformat.validate(content)
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    assert content["metadata"].keys() == {"kernelspec", "language_info"}
    assert content["metadata"]["language_info"] == {"name": "python"}
    for cell in content["cells"]:
        assert not cell["metadata"], cell["id"]
        assert cell["cell_type"] == "markdown" or (cell["outputs"], cell["execution_count"]) == ([], None), cell["id"]


@pytest.mark.system
def test_the_results_can_be_explored(demo, execute, rng, tmp_path, monkeypatch):
    left_out, diverged = "mmnist/k1=11+k2=11+lr=0.001/seed0", "mmnist/init=kaiming_normal+lr=0.001/seed4"
    for name, config in demo.runs.items():
        errors = {metric: value + rng.normal() for metric, value in {"mse": 140, "mae": 330}.items()}
        losses = 4 * np.exp(-np.arange(4.0)) + rng.uniform(0, 0.1, 4)
        status = "done"
        if name == diverged:
            status, errors, losses[-1] = "diverged", {"mse": math.inf, "mae": math.inf}, math.nan
        if name != left_out:
            record_untrained(tmp_path / "demo", name, config, status, losses, ssim=rng.uniform(0.4, 0.5), **errors)

    monkeypatch.setenv("STLIGHT_RESULTS", str(tmp_path))
    # Without the benchmark's files, wherever this is tested.
    monkeypatch.setenv("STLIGHT_DATA", "nowhere")
    monkeypatch.delenv("STLIGHT_SCALE", raising=False)
    outputs = execute("explore_results", timeout=60)
    assert f"{len(demo.runs) - 1} of {len(demo.runs)} runs" in text(outputs["there-table"])
    assert left_out in outputs["there-waiting"][0].data["text/html"]
    assert "image/png" in kinds(outputs["curves-figure"])
    assert "optimism" in outputs["audit-cells"][0].data["text/html"]
    pictures = {"curves-figure"}
    silent = {"readable", "setup", "table-notes", "behind-record"}
    assert all("text/html" in kinds(outputs[cell]) for cell in outputs.keys() - pictures - silent)


@pytest.mark.system
def test_a_small_model_can_be_trained(execute):
    outputs = execute("train_stlight", timeout=120)
    for cell in ("train-run", "frames-picture", "horizon-picture"):
        assert "image/png" in kinds(outputs[cell]), cell
    assert "repeat_last_frame" in outputs["compare-table"][0].data["text/plain"]
