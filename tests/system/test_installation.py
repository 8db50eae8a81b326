"""An installed wheel runs the workflow from an empty folder, without a checkout and without a compiler."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from stlight.kernels.prebuilt import LEVELS, levels
from tests.conftest import REPOSITORY

COMPILER = re.compile(r"(.*-)?(gcc|g\+\+|cc|c\+\+|clang|clang\+\+|c[89]9|tcc|icx?)(-[\d.]+)?")
EXPERIMENT = """
title: Tiny
paper: {section: "-", item: Tiny}
summary: Words.
grid: {k1: [3]}
metrics: [mse]
figure: {kind: lines}
"""


def call(*command, **settings):
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **settings)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """Make an sdist of a copy of the repository, because setuptools writes beside the sources."""
    copy, folder = tmp_path_factory.mktemp("copy") / "stlight", tmp_path_factory.mktemp("sdist")
    for name in ("stlight", "workflow", "profiles", "config"):
        shutil.copytree(REPOSITORY / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (path for path in REPOSITORY.iterdir() if path.is_file() and not path.name.startswith(".")):
        shutil.copy(path, copy)
    call(sys.executable, "-c", f"from setuptools import build_meta; build_meta.build_sdist({str(folder)!r})", cwd=copy)
    (archive,) = folder.glob("*.tar.gz")
    return archive


def wheel_of(sdist, folder, **environment):
    """Build a wheel offline, as pip does from an sdist."""
    command = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--no-index", "-w", folder, sdist]
    call(*command, env=os.environ | environment)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    if shutil.which("gcc") is None:
        pytest.skip("no C compiler")
    return wheel_of(sdist, tmp_path_factory.mktemp("wheel"), CC="gcc")


@pytest.fixture(scope="module")
def bare_path(tmp_path_factory):
    """A PATH with the system's programs, but without compilers."""
    folder = tmp_path_factory.mktemp("bin")
    for program in (path for place in ("/usr/bin", "/bin") for path in Path(place).iterdir()):
        if not COMPILER.fullmatch(program.name) and not (folder / program.name).is_symlink():
            (folder / program.name).symlink_to(program)
    assert shutil.which("gcc", path=str(folder)) is None
    return str(folder)


def environment_with(wheel, folder):
    """Install a wheel into a fresh environment that sees the dependencies of this one, but not its stlight."""
    call(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    # Where PYTHONPATH names the checkout, pip would take the package for installed.
    without_checkout = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index"]
    call(*pip, wheel, env=without_checkout)
    (site,) = folder.glob("lib/python*/site-packages")
    # Lines of a .pth file that lies there are not obeyed, so that an editable stlight stays unseen.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def test_a_wheel_holds_the_workflow_and_the_kernels_of_each_level(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = [path.relative_to(REPOSITORY) for path in (REPOSITORY / "workflow").rglob("*") if path.is_file()]
    assert {f"stlight/{path.as_posix()}" for path in tracked if "__pycache__" not in path.parts} <= names
    assert {f"stlight/workflow/profiles/{name}/config.yaml" for name in ("default", "gpu", "slurm")} <= names
    sources = [path.stem for path in (REPOSITORY / "stlight" / "kernels").glob("*.c")]
    known = LEVELS if levels()[0] in LEVELS else levels()
    built = {f"stlight/kernels/built/{source}-{level}" for source in sources for level in known}
    libraries = [name for name in names if name.endswith((".so", ".o"))]
    # Each name ends in a checksum.
    assert all(re.fullmatch(r".*-[0-9a-f]{16}\.so", name) for name in libraries)
    assert sorted(name.rpartition("-")[0] for name in libraries) == sorted(built)
    assert re.fullmatch(r"stlight-[\d.]+-py3-none-linux_\w+\.whl", wheel.name)


def test_an_installed_wheel_runs_the_workflow_with_its_kernels(wheel, bare_path, tmp_path):
    python = environment_with(wheel, tmp_path / "environment")
    work, cache = tmp_path / "work", tmp_path / "cache"
    (work / "mine").mkdir(parents=True)
    (work / "mine" / "tiny.yaml").write_text(EXPERIMENT)
    # Python would import this if it took modules from the current folder.
    (work / "stlight.py").write_text("raise SystemExit('imported from the current folder')")
    environment = {"PATH": bare_path, "HOME": str(cache), "XDG_CACHE_HOME": str(cache)}
    command = [python.with_name("stlight"), "run", "--scale", "smoke", "--experiments", "mine", "--results", "out"]
    call(*command, "--data", "clips", "--cores", "1", cwd=work, env=environment)
    record = json.loads((work / "out" / "smoke" / "runs" / "mmnist" / "stlight_l" / "seed0" / "record.json").read_text())
    assert record["device"]["kernels"] == "fused"
    assert "0.1.0" in record["provenance"]["code"]
    assert (work / "out" / "smoke" / "report.html").is_file()
    assert (work / "clips" / "prepared").is_dir()
    assert not list(cache.rglob("*.so"))
    # Snakemake's exit status is that of the verb.
    failed = subprocess.run(
        [*map(str, command), "--", "no_such_target"], cwd=work, env=environment, check=False, capture_output=True
    )
    assert failed.returncode == 1
    assert b"no_such_target" in failed.stdout + failed.stderr


def test_an_sdist_installs_without_a_compiler(sdist, tmp_path):
    wheel = wheel_of(sdist, tmp_path, CC="no-such-compiler")
    names = zipfile.ZipFile(wheel).namelist()
    assert wheel.name.endswith("-py3-none-any.whl")
    assert "stlight/workflow/Snakefile" in names
    assert "stlight/kernels/mixer.c" in names
    assert not [name for name in names if name.endswith(".so")]


def test_an_editable_install_compiles_nothing(tmp_path):
    copy = tmp_path / "stlight"
    for name in ("stlight", "workflow", "profiles"):
        shutil.copytree(REPOSITORY / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, copy)
    code = "from setuptools import build_meta; build_meta.build_editable('.')"
    call(sys.executable, "-c", code, cwd=copy, env=os.environ | {"CC": "no-such-compiler"})
    assert list(copy.glob("*-py3-none-any.whl"))
    assert not list(copy.rglob("*.so"))
