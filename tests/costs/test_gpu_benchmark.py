"""`python -m benchmarks gpu`: on a machine with torch, Triton and numpy only, within its time, and whatever fails."""

import importlib.util
import json
import os
import subprocess
import sys
import time
import venv
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, gpu_parts
from benchmarks.roofline import Rates, Shape, least_seconds
from stlight.experiments import load_plan
from stlight.kernels.accelerate import BACKENDS
from stlight.kernels.backends import SpaceToBatchBackend
from stlight.model import build_model
from stlight.model.complexity import count_flops
from tests.conftest import REPOSITORY, WORKFLOW

CPU = torch.device("cpu")
# What pip installs with the CPU build of torch, and Triton if it is here.
INSTALLED = ["torch", "torchgen", "functorch", "numpy", "numpy.libs", "filelock", "typing_extensions.py", "sympy", "mpmath"]
INSTALLED += ["networkx", "jinja2", "markupsafe", "fsspec", "setuptools", "pkg_resources", "_distutils_hack", "triton"]


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Run a module in an environment that has only the packages above."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder / "venv", symlinks=True)
    packages = folder / "packages"
    packages.mkdir()
    for name in INSTALLED:
        spec = importlib.util.find_spec(name.removesuffix(".py")) if name != "numpy.libs" else importlib.util.find_spec("numpy")
        if spec and spec.origin:
            origin = Path(spec.origin)
            place = origin if name.endswith(".py") else origin.parent.parent / name
            if place.exists():
                (packages / name).symlink_to(place)
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}:{packages}", "OMP_NUM_THREADS": "1"}

    def run(*arguments):
        command = [folder / "venv" / "bin" / "python", *arguments]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)

    return run


def test_a_part_runs_on_a_bare_machine(bare):
    assert "No module named 'pydantic'" in bare("-c", "import pydantic").stderr
    done = bare("-m", "benchmarks.gpu_parts", "steps", "demo", "cpu")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["float32"]["kernels"] in BACKENDS


@pytest.mark.system
def test_the_whole_benchmark_runs_on_a_bare_machine(bare, tmp_path):
    path = tmp_path / "cpu.json"
    done = bare("-m", "benchmarks", "gpu", "--device", "cpu", "--minutes", "600", "--output", str(path))
    assert done.returncode == 0, done.stderr
    measured = json.loads(path.read_text())
    assert measured.keys() == {"format", "device", "rates", "equality", "steps", "clips", "tiles"}
    results = [measured["rates"], *measured["equality"].values(), *measured["steps"].values(), measured["clips"]]
    assert not [result["error"] for result in results if "error" in result]
    assert all(result["agrees"] for result in measured["equality"].values())
    assert {"paper", "gpu"} == measured["steps"].keys()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device")
def test_without_a_gpu_it_says_so_in_one_line(capsys, tmp_path):
    assert gpu.main(["--minutes", "600", "--output", str(tmp_path / "gpu.json")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("benchmarks gpu: no CUDA device")
    assert not (tmp_path / "gpu.json").exists()


@pytest.fixture
def planted(monkeypatch):
    """Replace the module of the parts by one of these lines."""

    def plant(code):
        run = subprocess.run
        monkeypatch.setattr(subprocess, "run", lambda command, **how: run([sys.executable, "-c", code], **how))

    return plant


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("raise RuntimeError('no kernel image')", "RuntimeError: no kernel image"),
        ("import os; os.abort()", "ended with status -6"),
    ],
)
def test_a_part_that_fails_or_crashes_costs_itself_only(code, error, planted):
    planted(code)
    assert gpu.run_part("rates", "", "cpu", time.monotonic() + 3600) == {"error": error}


def test_a_part_that_hangs_is_stopped(planted, monkeypatch):
    planted("import time; time.sleep(3600)")
    monkeypatch.setattr(gpu, "_LEAST_SECONDS", -10.0)
    error = gpu.run_part("rates", "", "cpu", time.monotonic() + 1)["error"]
    assert error.startswith("stopped after")


def test_after_its_time_nothing_starts(planted):
    planted("print('{}')")
    assert gpu.run_part("rates", "", "cpu", time.monotonic() + 1) == {"error": "left out: no time left"}


def test_the_bases_are_those_of_the_scales():
    cases = gpu.step_cases()
    assert next(iter(cases)) == "paper"
    assert cases.keys() == {path.stem for path in (WORKFLOW / "scales").glob("*.yaml")}
    for name, fields in cases.items():
        scale = load_plan(WORKFLOW, name, Path("nowhere")).scale
        data = scale.data.get("mmnist")
        assert fields.pop("downsampling") == (data.downsampling if data else 1)
        assert fields == scale.base.model_dump(include=set(fields))


def test_a_backend_that_computes_something_else_does_not_agree(monkeypatch):
    class Wrong(SpaceToBatchBackend):
        def mixer(self, mixer):
            right = super().mixer(mixer)
            return lambda x: 1.001 * right(x)

    assert gpu_parts.equality("space_to_batch", CPU)["agrees"]
    monkeypatch.setitem(BACKENDS, "space_to_batch", Wrong())
    assert not gpu_parts.equality("space_to_batch", CPU)["agrees"]


def test_a_side_that_lacks_memory_leaves_the_others(monkeypatch):
    step, calls = gpu_parts._step, []

    def listing_is_too_large(model, *arguments):
        calls.append(model)
        if model is calls[0]:
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")
        return step(model, *arguments)

    monkeypatch.setattr(gpu_parts, "_step", listing_is_too_large)
    times = gpu_parts.steps("demo", CPU)["float32"]
    assert times["listing_error"] == "CUDA out of memory."
    assert times["ours_seconds"] > 0
    assert "listing_seconds" not in times


def test_multiply_adds_are_those_that_torch_counts(paper):
    config = paper.run("mmnist/stlight_l/seed0")
    with torch.device("meta"):
        flops = count_flops(build_model(config.model, config.clip_shape), config.clip_shape)
    assert Shape(16, 1400, 16, 2, 64).multiply_adds == 3 * 16 * flops


def test_the_roofline_is_computed_by_hand():
    # One clip of one patch, one mixer of two channels.
    shape = Shape(clips=1, hidden_dim=2, depth=1, patch_size=1, side=1)
    assert (shape.product_multiply_adds, shape.depthwise_multiply_adds) == (20 + 20 + 4, 2 * 58)
    bound = least_seconds(shape, Rates(copy=64.0, product=3.0, plain=6.0), bytes_per_value=4)
    assert list(bound.values()) == [16 * 2 * 4 / 64, 44, 58, 44 + 58]
