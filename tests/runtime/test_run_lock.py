import fcntl
import json
import os
import signal
import socket
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


def test_a_second_process_waits_and_says_for_whom(tmp_path, start):
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
def test_a_dead_holder_s_lock_is_taken_over_at_once(tmp_path, start, number):
    first = start()
    assert first.stdout.readline() == "held\n"
    first.send_signal(number)
    first.wait()
    assert (tmp_path / ".lock").exists()
    assert run_lock.living_holder(tmp_path) is None
    started = time.monotonic()
    with run_lock.hold(tmp_path):
        assert time.monotonic() - started < 1
        assert run_lock.living_holder(tmp_path)["pid"] == os.getpid()


def test_held_twice_by_one_process_it_is_held_until_the_end(tmp_path, start):
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


def test_another_host_s_lock_counts_as_long_as_it_is_renewed(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "_STALE_AFTER", 1.5)
    of_another_host(tmp_path, 0)
    assert run_lock.living_holder(tmp_path)["host"] == "far"
    told = []
    started = time.monotonic()
    with run_lock.hold(tmp_path, told.append):
        assert time.monotonic() - started > 1
    assert "is held by process 1 on far since today" in told[0]


def test_another_host_s_stale_lock_is_taken_over(tmp_path):
    of_another_host(tmp_path, 1000)
    assert run_lock.living_holder(tmp_path) is None
    with run_lock.hold(tmp_path, pytest.fail):
        pass


def test_a_lock_from_the_future_is_judged_by_whether_its_time_moves(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "_STALE_AFTER", 1.0)
    of_another_host(tmp_path, -100_000)
    started = time.monotonic()
    with run_lock.hold(tmp_path, lambda line: None):
        assert 1 < time.monotonic() - started < 5


def test_a_lock_of_this_host_before_it_was_started_again_is_taken_over_at_once(tmp_path):
    path = of_another_host(tmp_path, 0)
    path.write_text(path.read_text().replace('"far"', json.dumps(socket.gethostname())))
    assert run_lock.living_holder(tmp_path) is None
    with run_lock.hold(tmp_path, pytest.fail):
        pass


def test_who_may_only_read_sees_the_holder(tmp_path, start, monkeypatch):
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
        time.sleep(0.5)
        assert (tmp_path / ".lock").stat().st_mtime > 0


def test_a_holder_that_was_taken_over_writes_nothing_more(tmp_path):
    with run_lock.hold(tmp_path):
        run_lock.check_held(tmp_path)
        path = of_another_host(tmp_path, 0)
        with pytest.raises(run_lock.LockLost, match="another process has taken the run over"):
            run_lock.check_held(tmp_path)
    # Nor does it take the other's lock away.
    assert path.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"pid": 1}'])
def test_a_lock_of_which_half_was_written_is_taken_over(tmp_path, content):
    (tmp_path / ".lock").write_text(content)
    assert run_lock.living_holder(tmp_path) is None
    with run_lock.hold(tmp_path, pytest.fail):
        pass


def test_without_kernel_locks_the_name_in_the_file_counts(tmp_path, start, monkeypatch):
    first = start()
    assert first.stdout.readline() == "held\n"

    def none_here(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", none_here)
    assert run_lock.living_holder(tmp_path)["pid"] == first.pid
    first.kill()
    first.wait()
    assert run_lock.living_holder(tmp_path) is None
    with run_lock.hold(tmp_path, pytest.fail):
        pass
