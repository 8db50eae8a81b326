"""Leases of GPUs among processes, some of which are killed."""

import os
import signal
import stat
import time

import pytest

from stlight.runtime import gpu_lease
from stlight.runtime.gpu_lease import Lease, leased
from tests.runtime.conftest import TWO_GPUS
from tests.system.faults.devices import devices

pytestmark = pytest.mark.usefixtures("machine")


@pytest.fixture
def one_gpu(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")


def test_the_environment_names_the_leased_gpu_and_is_restored(monkeypatch, nvidia_smi):
    with leased() as lease:
        assert lease == Lease(("0",), 0)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
    with pytest.raises(KeyError), leased():
        raise KeyError
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"
    nvidia_smi(TWO_GPUS)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    with leased():
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


@pytest.mark.parametrize(("given", "gpus"), [("", 1), ("-1", 1), ("0,1", 0)])
def test_without_gpus_the_lease_is_empty(monkeypatch, machine, given, gpus):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    with leased(gpus) as lease:
        assert lease == Lease()
        assert os.environ["CUDA_VISIBLE_DEVICES"] == given
    assert not (machine / "locks").exists()


def test_a_gpu_has_one_holder(holder):
    first, second = holder(), holder()
    both = [first.prints("leased"), second.prints("leased")]
    assert sorted(both) == ["leased 0.0", "leased 1.0"]
    third = holder()
    assert third.prints("waits") == "waits for a GPU: all slots of 0, 1 are taken"
    assert third.still_waits()
    second.ends()
    assert third.prints("leased") == both[1]
    assert third.output.count("waits") == 1


def test_slots_fill_all_gpus_evenly(holder):
    holders, printed = [], []
    for _ in range(4):
        holders.append(holder(2))
        printed.append(holders[-1].prints("leased"))
    assert printed == ["leased 0.0", "leased 1.0", "leased 0.1", "leased 1.1"]
    # GPU 0 has one free slot and GPU 1 two: the next process takes GPU 1, although slot 0 of GPU 0 is free.
    for number in (0, 1, 3):
        holders[number].ends()
    assert [holder(2).prints("leased") for _ in range(3)] == ["leased 1.0", "leased 0.0", "leased 1.1"]


def test_runs_that_divide_a_gpu_otherwise_wait_until_nobody_holds_it(holder, one_gpu):
    thirds = [holder(3), holder(3)]
    for each in thirds:
        each.prints("leased")
    half = holder(2)
    half.prints("waits")
    thirds[0].ends()
    assert half.still_waits()
    thirds[1].dies()
    assert half.prints("leased") == "leased 0.0"
    third = holder(3)
    third.prints("waits")
    assert holder(2).prints("leased") == "leased 0.1"
    assert third.still_waits()


def test_a_killed_holder_or_waiter_frees_its_place(holder, one_gpu):
    first = holder()
    first.prints("leased")
    killed, waiter = holder(), holder()
    for each in (killed, waiter):
        each.prints("waits")
    killed.dies()
    first.dies()
    assert waiter.prints("leased") == "leased 0.0"


def test_ctrl_c_ends_a_waiter_also_if_sigint_is_inherited_as_ignored(holder, one_gpu):
    first = holder()
    first.prints("leased")
    waiter = holder(wrap=("/bin/sh", "-c", 'trap "" INT; exec "$@"', "-"))
    waiter.prints("looks again", 3)
    waiter.dies(signal.SIGINT)
    first.ends()
    assert holder().prints("leased") == "leased 0.0"


def test_a_forked_child_that_lives_on_keeps_nothing(holder, one_gpu):
    fork = "child = os.fork(); child or sleep(600); child and print('child', child, flush=True); os._exit(0)"
    parent = holder(then=fork)
    child = int(parent.prints("child").split()[1])
    try:
        parent.process.wait(60)
        holder().prints("leased")
        os.kill(child, 0)  # still alive
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_killed_shell_around_a_holder_frees_nothing(holder, one_gpu):
    inside = holder(wrap=("/bin/bash", "-c", '"$@"; true', "-"))
    inside.prints("leased")
    inside.dies()
    following = holder()
    following.prints("waits")
    assert following.still_waits()
    inside.process.stdin.close()
    following.prints("leased")


def test_a_waiter_sleeps_between_its_attempts(holder, one_gpu, monkeypatch):
    holder().prints("leased")
    pauses, messages = [], []

    def sleep(seconds):
        pauses.append(seconds)
        if len(pauses) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    with pytest.raises(KeyboardInterrupt), leased(on_wait=messages.append):
        pass
    assert min(pauses) >= 0.1
    assert len(messages) == 1
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"


@pytest.mark.parametrize("variable", gpu_lease.JOB_VARIABLES)
def test_each_job_of_a_scheduler_has_its_own_leases(holder, one_gpu, variable):
    holder(**{variable: "12[3]/x"}).prints("leased")
    assert holder(**{variable: "13"}).prints("leased") == "leased 0.0"
    holder(**{variable: "12[3]/x"}).prints("waits")


def test_the_folder_of_locks_depends_on_the_user_and_not_on_tmpdir(monkeypatch, tmp_path):
    monkeypatch.delenv("STLIGHT_GPU_LOCKS")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "other"))
    monkeypatch.setattr(gpu_lease, "_LOCAL", tmp_path)
    with leased():
        assert (tmp_path / f"stlight-gpus-{os.getuid()}" / "0.slot0").exists()


def test_a_folder_that_is_not_the_users_own_is_refused(machine, monkeypatch):
    locks = machine / "locks"
    (machine / "elsewhere").mkdir(mode=0o700)
    locks.symlink_to(machine / "elsewhere")
    with pytest.raises(PermissionError, match="set STLIGHT_GPU_LOCKS to another folder"), leased():
        pass
    locks.unlink()
    locks.write_text("")
    with pytest.raises(FileExistsError, match="locks"), leased():
        pass
    locks.unlink()
    with leased():
        assert stat.S_IMODE(locks.stat().st_mode) == 0o700
    monkeypatch.setattr(os, "getuid", lambda: locks.stat().st_uid + 1)
    with pytest.raises(PermissionError, match="must belong to this user"), leased():
        pass


@pytest.mark.parametrize("slots", [1, 2])
def test_no_slot_is_leased_twice_or_lost_when_processes_are_killed(slots):
    found = devices(gpus=4 // slots, jobs=12, slots_per_gpu=slots, kills=6, seed=slots)
    assert found["leases"] >= found["jobs"] == 12
    assert found["kills"] == 6
    assert found["clashes"] == found["leaked"] == 0
