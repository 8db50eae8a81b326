"""The suite installed from an sdist: it runs outside a checkout, and its kernels need no compiler."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from stlight.kernels.prebuilt import LEVELS
from stlight.runs.record import read_record
from tests.conftest import REPOSITORY
from tests.system.workflow.calls import experiment

pytestmark = pytest.mark.skipif(not shutil.which("gcc"), reason="no C compiler to build a wheel with")


def called(command, cwd, **environment):
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env={"HOME": str(cwd)} | environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def build(source, folder, **environment):
    """Build a wheel from a folder or an sdist with the tools of this environment, without a network."""
    command = [sys.executable, "-m", "pip", "wheel", "--no-index", "--no-build-isolation", "--no-deps", "-w", folder, source]
    status, output = called(command, folder.parent, **({"PATH": os.environ["PATH"]} | environment))
    assert status == 0, output[-3000:]
    (wheel,) = folder.glob("*.whl")
    return wheel


def environment_with(wheel, folder):
    """Make a virtual environment that holds the wheel, and sees this one's libraries but not its checkout."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    # A line of a .pth file adds a folder, and does not read the .pth files there: that of the editable install is one.
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdist")
    files = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    for name in filter(None, files.split("\0")):
        if not name.startswith(("results/", "tests/", "docs/")) and (REPOSITORY / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, folder / "source" / name)
    code = "import setuptools.build_meta as build; build.build_sdist('..')"
    status, output = called([sys.executable, "-c", code], folder / "source", PATH=os.environ["PATH"])
    assert status == 0, output[-3000:]
    (path,) = folder.glob("*.tar.gz")
    return path


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """An empty folder of a user, with experiments of their own beside it."""
    folder = tmp_path_factory.mktemp("with space")
    (folder / "workflow" / "experiments").mkdir(parents=True)
    experiment(folder, "mine", "grid: {k1: [3, 5]}\nseeds: 1")
    (folder / "here").mkdir()
    return folder / "here"


def test_a_wheel_trains_with_its_kernels_where_there_is_no_compiler(sdist, work, tmp_path):
    wheel = build(sdist, tmp_path / "wheels")
    assert wheel.name.endswith("-py3-none-linux_x86_64.whl") or not wheel.name.endswith("-any.whl")
    python = environment_with(wheel, tmp_path / "environment")
    programs = tmp_path / "programs"
    programs.mkdir()
    for path in Path("/usr/bin").iterdir():
        if not re.search(r"gcc|^cc$|clang|[cg]\+\+|^c\d\d", path.name):
            (programs / path.name).symlink_to(path)
    environment = {"PATH": str(programs), "XDG_CACHE_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    stlight = [python, "-P", "-m", "stlight"]
    status, output = called([*stlight, "run", "--scale", "nowhere"], work, **environment)
    assert status == 1
    assert len(output.splitlines()) == 1
    assert "nowhere" in output
    assert not [*work.iterdir()]
    mine = work.parent / "workflow" / "experiments"
    command = [*stlight, "run", "--scale", "smoke", "--experiments", mine, "--results", "out", "--cores", "2"]
    status, output = called(command, work, **environment)
    assert status == 0, output[-5000:]
    records = [read_record(path) for path in work.glob("out/smoke/runs/*/*/*/record.json")]
    assert len(records) == 2
    assert {record.device["kernels"] for record in records} == {"fused"}
    # Version without git, and the package that computed.
    assert {record.provenance["code"] for record in records} == {
        record.provenance["libraries"]["stlight"] for record in records
    }
    assert (work / "out" / "smoke" / "report.html").is_file()
    assert not [*(tmp_path / "cache").rglob("*.so")]


def test_an_sdist_builds_without_a_compiler_too(sdist, tmp_path):
    wheel = build(sdist, tmp_path / "wheels", CC="no-such-compiler")
    assert wheel.name.endswith("-py3-none-any.whl")
    names = subprocess.run([sys.executable, "-m", "zipfile", "-l", wheel], capture_output=True, text=True, check=True).stdout
    assert "stlight/workflow/Snakefile" in names
    assert "stlight/kernels/mixer.c" in names
    assert not any(level in names for level in LEVELS)
