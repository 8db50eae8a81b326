"""Compiling the C sources: cached, rebuilt after a change, and optional."""

import ctypes
import os
import shutil
import subprocess

import pytest
import torch

from stlight import STLight
from stlight.kernels import accelerate, backend_of
from stlight.kernels.compile import _FOLDER, _warn_once, library
from stlight.runtime.trust import sha256

pytestmark = pytest.mark.skipif(library("mixer.c") is None, reason="no C compiler")


@pytest.fixture
def fresh_library(monkeypatch, tmp_path):
    """An empty cache, and no library opened yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    library.cache_clear()
    _warn_once.cache_clear()
    yield tmp_path / "stlight"
    library.cache_clear()


@pytest.mark.parametrize("compiler", ["", "/bin/false", "/no/such/compiler"])
def test_without_a_working_compiler_training_goes_on(compiler, fresh_library, monkeypatch, caplog):
    monkeypatch.setenv("CC", compiler)
    monkeypatch.setenv("PATH", "")
    model = accelerate(STLight(hidden_dim=8, depth=1))
    assert backend_of(model) == "plain"
    model(torch.rand(1, 10, 1, 8, 8)).sum().backward()
    assert "computing with plain PyTorch" in caplog.text
    assert list(fresh_library.glob("*")) == []


@pytest.mark.parametrize(
    ("compiler", "words"), [("gcc 'x", "CC=gcc 'x: No closing quotation"), ("false", "CC=false: it failed without")]
)
def test_a_compiler_that_cannot_be_called_is_named(compiler, words, fresh_library, monkeypatch, caplog):
    monkeypatch.setenv("CC", compiler)
    assert library("mixer.c") is None
    assert words in caplog.text


def test_an_unknown_setting_of_the_kernels_is_refused(fresh_library, monkeypatch):
    monkeypatch.setenv("STLIGHT_KERNELS", "bogus")
    with pytest.raises(ValueError, match="STLIGHT_KERNELS must be off or not set, got 'bogus'"):
        library("mixer.c")


def test_a_compiler_with_flags_is_understood(fresh_library, monkeypatch):
    monkeypatch.setenv("CC", "gcc -g0")
    assert library("mixer.c") is not None
    assert len(list(fresh_library.glob("*.so"))) == 1


def test_a_damaged_cache_is_built_again(fresh_library):
    assert library("mixer.c") is not None
    (built,) = fresh_library.glob("*.so")
    built.unlink()
    built.write_bytes(b"not a library")
    library.cache_clear()
    assert library("mixer.c") is not None
    assert built.stat().st_size > 1000


PLANTED = """
#include <stdlib.h>
__attribute__((constructor)) static void run(void) { setenv("STLIGHT_PLANTED", "ran", 1); }
"""


@pytest.fixture
def planted(fresh_library, tmp_path):
    """Replace the cached library by another one under its name, which says in the environment that it was opened."""
    assert library("mixer.c") is not None
    (built,) = fresh_library.glob("mixer-*.so")
    source = tmp_path / "planted.c"
    source.write_text(PLANTED)
    built.unlink()
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(built), str(source)], check=True)
    built.chmod(0o700)
    library.cache_clear()
    return built


def planted_ran():
    # getenv of the C library, because Python copies the environment when it starts.
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_char_p
    return getenv(b"STLIGHT_PLANTED") is not None


def test_a_library_that_we_did_not_build_is_never_opened(planted, caplog):
    assert library("mixer.c").channels_forward
    assert not planted_ran()
    assert f"{planted} is damaged or not only yours: it is built again" in caplog.text


@pytest.mark.parametrize("mode", [0o777, 0o775])
def test_a_cache_that_others_can_write_to_is_not_used(mode, planted, caplog):
    planted.parent.chmod(mode)
    before = planted.read_bytes()
    assert library("mixer.c").channels_forward
    assert not planted_ran()
    assert planted.read_bytes() == before
    assert "nothing is cached" in caplog.text
    assert "chmod go-w" in caplog.text


def test_a_cache_of_another_user_is_not_used(planted, monkeypatch, caplog):
    monkeypatch.setattr(os, "getuid", lambda: planted.stat().st_uid + 1)
    assert library("mixer.c").channels_forward
    assert not planted_ran()
    assert "its owner is user" in caplog.text


def test_a_whole_library_that_others_can_write_to_is_built_again(fresh_library, caplog):
    assert library("mixer.c") is not None
    (built,) = fresh_library.glob("mixer-*.so")
    built.chmod(0o777)
    library.cache_clear()
    assert library("mixer.c").channels_forward
    assert built.stat().st_mode & 0o777 == 0o700


def test_a_library_that_is_cut_short_is_built_again(fresh_library):
    assert library("mixer.c") is not None
    (built,) = fresh_library.glob("mixer-*.so")
    whole = built.read_bytes()
    # Another file, because this process has the first one open, and to cut that kills it.
    built.unlink()
    built.write_bytes(whole[:8000])
    library.cache_clear()
    assert library("mixer.c").channels_forward
    assert built.read_bytes() == whole


def test_a_library_of_another_system_is_kept_beside_ours(fresh_library, caplog):
    assert library("mixer.c") is not None
    (ours,) = fresh_library.glob("mixer-*.so")
    content = b"not for this system"
    other = ours.with_name(f"{ours.stem[:-32]}{sha256(content)[:32]}.so")
    other.write_bytes(content)
    other.chmod(0o700)
    ours.unlink()
    library.cache_clear()
    assert library("mixer.c").channels_forward
    assert set(fresh_library.glob("mixer-*.so")) == {ours, other}


def test_a_model_accelerated_with_a_compiler_computes_without_one(fresh_library, monkeypatch):
    model = accelerate(STLight(hidden_dim=8, depth=1)).eval()
    monkeypatch.setenv("STLIGHT_KERNELS", "off")
    library.cache_clear()
    with torch.no_grad():
        assert model(torch.rand(1, 10, 1, 8, 8)).isfinite().all()


@pytest.mark.parametrize("changed", ["mixer.c", "numerics.h", "convolution.h", "vectors.h"])
def test_a_change_of_a_source_or_an_included_file_compiles_again(changed, fresh_library, monkeypatch, tmp_path):
    copied = shutil.copytree(_FOLDER, tmp_path / "kernels", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    monkeypatch.setattr("stlight.kernels.compile._FOLDER", copied)
    monkeypatch.setattr("stlight.kernels.compile._FLAGS", ["-O0", "-fopenmp", "-fPIC", "-shared"])
    names = set()
    for _ in range(2):
        library.cache_clear()
        library("mixer.c")
        names.add(frozenset(path.name for path in fresh_library.glob("*.so")))
        (copied / changed).write_text((copied / changed).read_text() + "/* changed */\n")
    assert sorted(map(len, names)) == [1, 2]


def test_a_cache_that_cannot_be_written_costs_only_time(fresh_library, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert library("mixer.c") is not None
