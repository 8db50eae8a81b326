"""Running out of memory: what is said, and what may be done about it."""

import re
import subprocess
import sys

import pytest
import torch

from stlight.config import ConfigError
from stlight.runs.record import read_record
from stlight.training import loop, train_run
from stlight.training.devices import OutOfMemory, out_of_memory
from tests.conftest import REPOSITORY
from tests.tiny_runs import outputs, tiny

CPU = torch.device("cpu")


def test_errors_of_memory_say_what_was_asked_and_what_to_change():
    allocator = "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 3221225472 bytes."
    for error, words in [
        (RuntimeError(allocator), "3221225472 bytes"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has"), "20.00 MiB"),
        (MemoryError("Unable to allocate 1.5 GiB for an array"), "1.5 GiB"),
        (MemoryError(), "no more memory"),
    ]:
        text = str(out_of_memory(error, CPU))
        assert text.startswith("out of memory on cpu: ")
        assert words in text
        assert "; run fewer at a time" in text
        assert "\n" not in text
    assert out_of_memory(RuntimeError("shapes do not fit"), CPU) is None


def test_a_real_lack_of_memory_is_one_line_and_the_run_goes_on_with_more(tmp_path):
    # The process may have 40 MB more than what it has when training begins: less than a batch needs.
    code = """
import resource, sys
from pathlib import Path
from stlight.training import loop, train_run
from tests.tiny_runs import tiny
import torch
torch.set_num_threads(1)
steps = loop.take_step

def limited(*arguments):
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 40 * 2**20, resource.RLIM_INFINITY))
    return steps(*arguments)

loop.take_step = limited
try:
    train_run("a/b/seed0", tiny(hidden_dim=512, batch_size=9, kernels="plain"), Path(sys.argv[1]), Path(sys.argv[1]))
except MemoryError as error:
    print("line:", error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "run"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    # Whose request fails first depends on what the heap has left.
    assert re.fullmatch(r"line: out of memory on cpu: .+; run fewer at a time, .+\n", done.stdout), done.stderr
    assert not (tmp_path / "run" / "record.json").exists()


def short_of_memory(monkeypatch, clips_that_fit, first_step=1):
    """Steps fail, as a device's do, whose parts hold more clips than fit."""
    original, steps = loop.take_step, []

    def take_step(model, optimizer, clip, num_context, recipe, accumulation_steps=1, step=None):
        steps.append(accumulation_steps)
        if len(steps) >= first_step and len(clip) / accumulation_steps > clips_that_fit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return original(model, optimizer, clip, num_context, recipe, accumulation_steps, step)

    monkeypatch.setattr(loop, "take_step", take_step)
    return steps


def test_it_stops_unless_told_otherwise(tmp_path, monkeypatch):
    short_of_memory(monkeypatch, 1)
    with pytest.raises(OutOfMemory, match=r"allocate 2.00 GiB"):
        train_run("a/b/seed0", tiny(), tmp_path, tmp_path)


def test_told_to_split_it_starts_anew_in_parts_and_says_so(tmp_path, monkeypatch):
    config = {"batch_size": 4, "kernels": "plain"}
    with monkeypatch.context() as patch:
        steps = short_of_memory(patch, 1)
        record = train_run("a/b/seed0", tiny(out_of_memory="split", **config), tmp_path / "split", tmp_path)
    assert steps[:3] == [1, 2, 4]
    assert record.device["accumulation_steps"] == 4
    assert read_record(tmp_path / "split" / "record.json") == record
    # Equal to a run that was configured so.
    train_run("a/b/seed0", tiny(accumulation_steps=4, **config), tmp_path / "stated", tmp_path)
    assert outputs(tmp_path / "split")[2] == outputs(tmp_path / "stated")[2]


def test_what_cannot_be_split_further_stops(tmp_path, monkeypatch):
    short_of_memory(monkeypatch, 0.5)
    with pytest.raises(OutOfMemory):
        train_run("a/b/seed0", tiny(out_of_memory="split"), tmp_path, tmp_path)


def test_a_run_that_has_come_to_a_checkpoint_is_not_begun_anew(tmp_path, monkeypatch):
    config = tiny(out_of_memory="split", kernels="plain")
    with monkeypatch.context() as patch:
        # In the second epoch, say because another process has taken the memory.
        short_of_memory(patch, 1, first_step=6)
        with pytest.raises(OutOfMemory):
            train_run("a/b/seed0", config, tmp_path / "a", tmp_path)
    train_run("a/b/seed0", config, tmp_path / "a", tmp_path)
    train_run("a/b/seed0", config, tmp_path / "b", tmp_path)
    assert outputs(tmp_path / "a") == outputs(tmp_path / "b")


def test_the_reaction_to_a_lack_of_memory_is_no_part_of_the_hash():
    assert tiny(out_of_memory="split").hash == tiny().hash != tiny(accumulation_steps=2).hash


def test_parts_must_divide_a_batch():
    with pytest.raises(ConfigError, match="accumulation_steps must divide batch_size 4, got 3"):
        tiny(batch_size=4, accumulation_steps=3)
