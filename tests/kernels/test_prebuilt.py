"""A library that a wheel carries serves in place of the compiler."""

import platform

import pytest

from stlight.kernels import compile as compiling
from stlight.kernels import prebuilt as finding
from stlight.kernels.prebuilt import LEVELS, prebuilt

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the levels are those of x86-64")


@pytest.fixture
def built(tmp_path, monkeypatch):
    monkeypatch.setattr(finding, "FOLDER", tmp_path)
    return lambda level: (tmp_path / f"mixer-{level}.so").touch()


def having(monkeypatch, *instructions):
    monkeypatch.setattr(finding, "processor", lambda: f"model name\t: any\nflags\t\t: fpu {' '.join(instructions)}")


def test_the_best_level_that_the_processor_has_is_taken(built, monkeypatch):
    assert prebuilt("mixer.c") is None
    for level in LEVELS:
        built(level)
    for level, needed in LEVELS.items():
        having(monkeypatch, *needed, *LEVELS["x86-64-v2"])
        assert prebuilt("mixer.c").stem == f"mixer-{level}"
        assert prebuilt("frames.c") is None
    having(monkeypatch, *set(LEVELS["x86-64-v3"]) - {"fma"}, *LEVELS["x86-64-v2"])
    assert prebuilt("mixer.c").stem == "mixer-x86-64-v2"
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
