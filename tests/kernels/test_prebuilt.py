"""A library that a wheel carries serves in place of the compiler."""

import platform
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from stlight.kernels import compile as compiling
from stlight.kernels import prebuilt as finding
from stlight.kernels import race
from stlight.kernels.prebuilt import LEVELS, levels, prebuilt
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the levels are those of x86-64")


@pytest.fixture
def built(tmp_path, monkeypatch):
    monkeypatch.setattr(finding, "FOLDER", tmp_path)
    return lambda level: (tmp_path / f"mixer-{level}-012abc.so").touch()


def having(monkeypatch, *instructions):
    monkeypatch.setattr(finding, "processor", lambda: f"model name\t: any\nflags\t\t: fpu {' '.join(instructions)}")


def test_the_best_level_that_the_processor_has_is_taken(built, monkeypatch):
    assert prebuilt("mixer.c") is None
    for level in LEVELS:
        built(level)
    for level, needed in LEVELS.items():
        having(monkeypatch, *needed, *LEVELS["x86-64-v2"])
        assert prebuilt("mixer.c").stem == f"mixer-{level}-012abc"
        assert prebuilt("frames.c") is None
    having(monkeypatch, *set(LEVELS["x86-64-v3"]) - {"fma"}, *LEVELS["x86-64-v2"])
    assert prebuilt("mixer.c").stem == "mixer-x86-64-v2-012abc"
    having(monkeypatch, "sse4_2")
    assert prebuilt("mixer.c") is None


def test_one_that_does_not_open_is_compiled(built, monkeypatch):
    having(monkeypatch, *LEVELS["x86-64-v2"])
    built("x86-64-v2")
    compiling.library.cache_clear()
    monkeypatch.setattr(compiling, "_compiled", lambda source, command: None)
    assert compiling._prebuilt("mixer.c") is None


def test_one_that_opens_needs_no_compiler(monkeypatch):
    if (whole := compiling.library("mixer.c")) is None:
        pytest.skip("no C compiler")
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setattr(compiling, "prebuilt", lambda source: whole._name)
    compiling.library.cache_clear()
    opened = compiling.library("mixer.c")
    compiling.library.cache_clear()
    assert opened is not None
    assert opened._name == whole._name


@pytest.fixture(scope="module")
def setup():
    return runpy.run_path(str(REPOSITORY / "setup.py"), run_name="imported")


def test_a_wheels_libraries_have_the_flags_of_the_compiler_here(setup):
    assert setup["levels"]() == list(LEVELS)
    for level in LEVELS:
        width = 512 if level == "x86-64-v4" else 256
        of_the_level = {"-march=native": f"-march={level}", compiling._FLAGS[-1]: f"-mprefer-vector-width={width}"}
        assert compiling._FLAGS[-1].startswith("-mprefer-vector-width=")
        assert sorted(setup["flags"](level)) == sorted(of_the_level.get(flag, flag) for flag in compiling._FLAGS)
    assert not any(flag.startswith(("-march", "-mprefer")) for flag in setup["flags"]("aarch64"))


@pytest.fixture
def frames_library(setup, tmp_path):
    """The library for frames, which compiles fast, as a wheel carries it."""
    if failed := setup["compile_kernel"](setup["KERNELS"] / "frames.c", levels()[-1], tmp_path):
        pytest.skip(failed)
    (library,) = tmp_path.glob(f"frames-{levels()[-1]}-*.so")
    return library


def test_a_wheels_library_names_no_openmp_of_the_system(frames_library):
    opened = subprocess.run(
        [sys.executable, "-c", f"import ctypes; ctypes.CDLL('{frames_library}')"], capture_output=True, text=True
    )
    assert "undefined symbol" in opened.stderr
    assert list(frames_library.parent.iterdir()) == [frames_library]


def test_measured_times_are_not_taken_for_those_of_another_library(setup, tmp_path, monkeypatch):
    """Three wheels of one version, whose second has another source for the kernels."""
    monkeypatch.setattr(race, "libraries", lambda: [compiling._prebuilt("mixer.c")])
    keys = []
    for wheel, answer in enumerate((1, 2, 1)):
        folder = tmp_path / str(wheel)
        folder.mkdir()
        (folder / "mixer.c").write_text(f"int answer(void) {{ return {answer}; }}\n")
        if failed := setup["compile_kernel"](folder / "mixer.c", levels()[-1], folder):
            pytest.skip(failed)
        monkeypatch.setattr(finding, "FOLDER", folder)
        assert race.libraries()[0].answer() == answer
        keys.append(race._key(torch.nn.Conv2d(1, 1, 3), torch.zeros(1, 1, 4, 4)))
    assert keys[0] == keys[2] != keys[1]


SHARE = """
import ctypes, ctypes.util, sys, types
# The package of the kernels loads torch, which shares its OpenMP by itself.
sys.modules["stlight.kernels"] = package = types.ModuleType("stlight.kernels")
package.__path__ = [sys.argv[1]]
from stlight.kernels.prebuilt import share_openmp
assert not hasattr(ctypes.CDLL(None), "GOMP_parallel")
ctypes.CDLL(sys.argv[2])
assert not hasattr(ctypes.CDLL(None), "GOMP_parallel")
share_openmp()
ctypes.CDLL(sys.argv[3])
"""


def test_an_openmp_that_only_torch_sees_is_shared_under_any_name(frames_library, tmp_path):
    mapped = Path("/proc/self/maps").read_text().splitlines()
    if not (ours := [line.split()[-1] for line in mapped if "libgomp" in line]):
        pytest.skip("torch has another OpenMP")
    renamed = tmp_path / "libgomp-a34b3233.so.1.0.0"
    renamed.symlink_to(ours[0])
    command = [sys.executable, "-c", SHARE, str(compiling._FOLDER), str(renamed), str(frames_library)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
