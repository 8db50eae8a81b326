import fcntl
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from stlight.runtime import run_lock

HOLDER = """
import sys, time
from pathlib import Path
from stlight.runtime import run_lock
with run_lock.hold(Path(sys.argv[1]), lambda line: print("waits:", line, flush=True)):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def start(tmp_path):
    processes = []

    def start():
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_a_second_process_waits_and_names_the_holder(tmp_path, start):
    first = start()
    assert first.stdout.readline() == "held\n"
    assert run_lock.living_holder(tmp_path)["pid"] == first.pid
    second = start()
    assert f"{tmp_path} is held by process {first.pid} on " in second.stdout.readline()
    first.communicate("\n")
    assert second.stdout.readline() == "held\n"
    second.communicate("\n")
    assert run_lock.living_holder(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_of_a_dead_holder_is_taken_over_at_once(tmp_path, start, number):
    first = start()
    assert first.stdout.readline() == "held\n"
    first.send_signal(number)
    first.wait()
    assert (tmp_path / ".lock").exists()
    assert run_lock.living_holder(tmp_path) is None
    with run_lock.hold(tmp_path, pytest.fail):
        assert run_lock.living_holder(tmp_path)["pid"] == os.getpid()


def test_a_lock_held_twice_by_one_process_is_held_until_the_outer_block_ends(tmp_path, start):
    with run_lock.hold(tmp_path):
        with run_lock.hold(tmp_path):
            pass
        second = start()
        assert "waits" in second.stdout.readline()


def of_another_host(folder, seconds_ago):
    path = folder / ".lock"
    path.write_text(json.dumps({"pid": 1, "host": "far", "since": "today", "kernel": "another", "token": "x"}))
    os.utime(path, (time.time() - seconds_ago,) * 2)
    return path


def test_the_lock_of_another_host_counts_as_long_as_it_is_renewed(tmp_path, monkeypatch):
    of_another_host(tmp_path, 0)
    assert run_lock.living_holder(tmp_path)["host"] == "far"
    told = []
    pauses = []

    def sleep(seconds):
        pauses.append(seconds)
        if len(pauses) < 3:
            of_another_host(tmp_path, 1 / len(pauses))

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: 30.0 * len(pauses))
    with run_lock.hold(tmp_path, told.append):
        assert len(pauses) == 5
    assert "is held by process 1 on far since today" in told[0]


@pytest.mark.parametrize("seconds_ago", [1000, -100_000])
def test_a_lock_of_another_host_is_taken_over_if_its_time_does_not_move(tmp_path, monkeypatch, seconds_ago):
    monkeypatch.setattr(run_lock, "_STALE_AFTER", 0.2)
    of_another_host(tmp_path, seconds_ago)
    assert (run_lock.living_holder(tmp_path) is None) == (seconds_ago > 0)
    waited = []
    with run_lock.hold(tmp_path, waited.append):
        assert len(waited) == 1


def test_a_user_who_can_only_read_sees_the_holder(tmp_path, start, monkeypatch):
    first = start()
    assert first.stdout.readline() == "held\n"
    original = os.open

    def read_only(path, flags, *more, **keywords):
        if flags & (os.O_RDWR | os.O_WRONLY):
            raise PermissionError(13, "Permission denied")
        return original(path, flags, *more, **keywords)

    monkeypatch.setattr(os, "open", read_only)
    assert run_lock.living_holder(tmp_path)["pid"] == first.pid
    with pytest.raises(OSError, match=r"\.lock: cannot be opened: Permission denied"), run_lock.hold(tmp_path):
        pass


def test_the_holder_renews_its_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "_RENEWED_EVERY", 0.05)
    with run_lock.hold(tmp_path):
        os.utime(tmp_path / ".lock", (0, 0))
        deadline = time.monotonic() + 60
        while (tmp_path / ".lock").stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_holder_that_lost_its_lock_must_not_write(tmp_path):
    with run_lock.hold(tmp_path):
        run_lock.check_held(tmp_path)
        path = of_another_host(tmp_path, 0)
        with pytest.raises(run_lock.LockLost, match="another process has taken the run over"):
            run_lock.check_held(tmp_path)
    # It must not remove the other's lock.
    assert path.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"pid": 1}'])
def test_a_half_written_lock_is_taken_over(tmp_path, content):
    (tmp_path / ".lock").write_text(content)
    assert run_lock.living_holder(tmp_path) is None
    with run_lock.hold(tmp_path, pytest.fail):
        pass


def test_without_kernel_locks_the_process_named_in_the_file_is_the_holder(tmp_path, start, monkeypatch):
    first = start()
    assert first.stdout.readline() == "held\n"

    def none_here(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", none_here)
    assert run_lock.living_holder(tmp_path)["pid"] == first.pid
    monkeypatch.setattr(run_lock, "_STALE_AFTER", 0.2)
    first.kill()
    first.wait()
    with run_lock.hold(tmp_path, lambda _: None):
        pass
