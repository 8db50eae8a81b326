"""Compiling the C sources: cached, rebuilt after a change, and optional."""

import shutil

import pytest
import torch

from stlight import STLight
from stlight.kernels import accelerate, backend_of
from stlight.kernels.compile import _FOLDER, library

pytestmark = pytest.mark.skipif(library("mixer.c") is None, reason="no C compiler")


@pytest.fixture
def fresh_library(monkeypatch, tmp_path):
    """An empty cache, and no library opened yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    library.cache_clear()
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


def test_a_model_accelerated_with_a_compiler_computes_without_one(fresh_library, monkeypatch):
    model = accelerate(STLight(hidden_dim=8, depth=1)).eval()
    monkeypatch.setenv("STLIGHT_KERNELS", "off")
    library.cache_clear()
    with torch.no_grad():
        assert model(torch.rand(1, 10, 1, 8, 8)).isfinite().all()


@pytest.mark.parametrize("changed", ["mixer.c", "numerics.h", "convolution.h"])
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
