"""Checkpoints as files: what is kept, what is refused, and how often."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stlight.training.checkpoint import CheckpointError, Checkpoints, pack, unpack

IDENTITY = {"config_hash": "abc", "source": "def"}


def state_at(epoch, step=0):
    return {"x": torch.full((3,), float(epoch))}, {"epoch": epoch, "step": step, "nan": math.nan}


def test_the_last_two_are_kept_and_the_newest_is_taken(tmp_path):
    checkpoints = Checkpoints(tmp_path, IDENTITY)
    for epoch, step in [(1, 5), (1, 40), (2, 0), (10, 0)]:
        checkpoints.save(partial(state_at, epoch, step))
    assert len(list(tmp_path.rglob("*.checkpoint"))) == 2
    tensors, facts = Checkpoints(tmp_path, IDENTITY).latest()
    assert (facts["epoch"], tensors["x"].tolist(), math.isnan(facts["nan"])) == (10, [10.0] * 3, True)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda content: content[:-1], "checksum"),
        (lambda content: content[:200], "checksum"),
        (lambda content: b"", "not a checkpoint"),
        (lambda content: b"\0" * len(content), "not a checkpoint"),
        (lambda content: content + b"\0", "checksum"),
        (lambda content: content.replace(b"checkpoint 1", b"checkpoint 2"), "of this version"),
        (lambda content: b"".join(pack((unpack(content)[0], unpack(content)[1] | {"identity": {}}))), "another config hash"),
        (
            lambda content: b"".join(
                pack((unpack(content)[0], unpack(content)[1] | {"identity": IDENTITY | {"source": "old"}}))
            ),
            "another source",
        ),
    ],
)
def test_one_that_cannot_be_used_is_named_set_aside_and_the_one_before_taken(tmp_path, caplog, damage, words):
    checkpoints = Checkpoints(tmp_path, IDENTITY)
    checkpoints.save(partial(state_at, 1))
    checkpoints.save(partial(state_at, 2))
    newest = max(tmp_path.rglob("*.checkpoint"))
    newest.write_bytes(damage(newest.read_bytes()))
    assert checkpoints.latest()[1]["epoch"] == 1
    assert str(newest) in caplog.text
    assert words in caplog.text
    assert newest.with_suffix(".set-aside").exists()
    checkpoints.save(partial(state_at, 2))
    assert checkpoints.latest()[1]["epoch"] == 2


WHOLE = b"".join(pack(state_at(3)))


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 8 * len(WHOLE) - 1))
def test_no_flipped_bit_goes_unseen(bit):
    content = bytearray(WHOLE)
    content[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CheckpointError):
        unpack(bytes(content))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=600))
def test_foreign_bytes_are_refused(content):
    for candidate in (content, WHOLE[:90] + content, b"STLight checkpoint 1 " + content):
        with pytest.raises(CheckpointError):
            unpack(candidate)


def test_saving_keeps_its_share_of_the_time(monkeypatch, tmp_path):
    now = [0.0]
    monkeypatch.setattr("stlight.training.checkpoint.time.perf_counter", lambda: now[0])
    checkpoints = Checkpoints(tmp_path, IDENTITY, every_seconds=300.0)
    write = "stlight.training.checkpoint.write_atomically"
    monkeypatch.setattr(write, lambda *_: now.__setitem__(0, now[0] + 7.0))  # seconds a save takes
    saved = 0
    for step in range(100_000):
        now[0] += 1.0
        if checkpoints.due(epoch_ended=step % 30 == 0):
            checkpoints.save(partial(state_at, 1, step))
            saved += 1
    assert saved > 100
    assert checkpoints.seconds / now[0] < 0.02
    assert checkpoints.seconds == 7.0 * saved


def test_within_a_long_epoch_it_is_time_that_counts(monkeypatch, tmp_path):
    now = [0.0]
    monkeypatch.setattr("stlight.training.checkpoint.time.perf_counter", lambda: now[0])
    checkpoints = Checkpoints(tmp_path, IDENTITY, every_seconds=300.0)
    due = []
    for _ in range(1000):
        now[0] += 1.0
        if checkpoints.due(epoch_ended=False):
            due.append(now[0])
            checkpoints.save(partial(state_at, 1))
    assert due == [300.0, 600.0, 900.0]
