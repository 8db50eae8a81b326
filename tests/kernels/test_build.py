"""The C sources are compiled once, found again, and done without where they cannot be had."""

import pytest
import torch

from stlight import STLight
from stlight.kernels import build, choose_path
from stlight.kernels.fused import mixer_library

pytestmark = pytest.mark.skipif(mixer_library(torch.float32) is None, reason="no C compiler")


def clear():
    build.library.cache_clear()
    mixer_library.cache_clear()


@pytest.fixture
def fresh_library(monkeypatch, tmp_path):
    """An empty cache, and a library that is looked for anew."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    clear()
    yield tmp_path / "stlight"
    clear()


@pytest.mark.parametrize("compiler", ["", "/bin/false", "/no/such/compiler"])
def test_without_a_working_compiler_training_goes_on(compiler, fresh_library, monkeypatch, caplog):
    monkeypatch.setenv("CC", compiler)
    monkeypatch.setenv("PATH", "")
    model, clip = STLight(hidden_dim=8, depth=1), torch.rand(1, 10, 1, 8, 8)
    assert choose_path(model, clip).name == "plain"
    model(clip).sum().backward()
    assert "plain PyTorch" in caplog.text
    assert list(fresh_library.glob("*")) == []


def test_a_compiler_with_flags_is_understood(fresh_library, monkeypatch):
    monkeypatch.setenv("CC", "gcc -g0")
    assert mixer_library(torch.float32) is not None
    assert len(list(fresh_library.glob("*.so"))) == 1


def test_a_damaged_cache_is_built_again(fresh_library):
    assert mixer_library(torch.float32) is not None
    (library,) = fresh_library.glob("*.so")
    library.unlink()
    library.write_bytes(b"not a library")
    clear()
    assert mixer_library(torch.float32) is not None
    assert library.stat().st_size > 1000


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(fresh_library, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert mixer_library(torch.float32) is not None
