"""Leases of GPUs, between processes of which some die; the GPUs are names only."""

import os
import signal
import stat
import subprocess
import sys
import time
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest

from stlight.runtime import gpu_lease
from stlight.runtime.gpu_lease import Lease, leased, pool
from tests.system.faults.devices import devices

UUIDS = [f"GPU-{digit * 8}-1111-2222-3333-444444444444" for digit in "ab"]
# Says what happens to it, and holds until its input ends.
HOLDER = """
import sys, time
from stlight.runtime.gpu_lease import leased
with leased({gpus}, {slots}, lambda line: print(line, flush=True)) as lease:
    print("leased", *(f"{{g}}.{{s}}" for g, s in zip(lease.gpus, lease.slots)), flush=True)
    {then}
"""


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """Two GPUs that CUDA_VISIBLE_DEVICES names, no scheduler, and no nvidia-smi."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("STLIGHT_GPU_LOCKS", str(tmp_path / "locks"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    for name in gpu_lease.JOB_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    gpu_lease._listed.cache_clear()
    yield
    gpu_lease._listed.cache_clear()


class Holder:
    """A process that leases, tells so line by line, and is driven by its input."""

    def __init__(self, log, gpus=1, slots=1, then="sys.stdin.read()", wrap=(), **environment):
        command = [*wrap, sys.executable, "-c", HOLDER.format(gpus=gpus, slots=slots, then=then)]
        self.log = log
        with log.open("wb") as file:
            pipes = {"stdin": subprocess.PIPE, "stdout": file}
            self.process = subprocess.Popen(command, env=os.environ | environment, **pipes)

    def tells(self, word, seconds=10.0):
        """The first line that begins with the word; fails if it does not come in time."""
        deadline = time.monotonic() + seconds
        while True:
            for line in self.said.splitlines(keepends=True):
                if line.startswith(word) and line.endswith("\n"):
                    return line.strip()
            assert time.monotonic() < deadline, f"no {word!r} in {self.said!r}"
            time.sleep(0.01)

    @property
    def said(self):
        return self.log.read_text()

    def ends(self):
        self.process.stdin.close()
        assert self.process.wait(10) == 0

    def dies(self):
        self.process.kill()
        self.process.wait(10)


@pytest.fixture
def holder(tmp_path):
    numbers = count()
    with ExitStack() as stack:

        def start(*arguments, **options):
            one = Holder(tmp_path / f"{next(numbers)}.log", *arguments, **options)
            stack.callback(one.process.wait, 10)
            stack.callback(one.process.kill)
            stack.callback(one.process.stdin.close)
            return one

        yield start


def nvidia_smi(tmp_path, text, status=0):
    path = tmp_path / "bin" / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n/bin/cat <<'END'\n{text}\nEND\nexit {status}\n")
    path.chmod(0o755)


TWO_GPUS = "\n".join(f"GPU {index}: A Card (UUID: {uuid})" for index, uuid in enumerate(UUIDS))
MIG = "\n".join(
    [
        f"GPU 0: A Card (UUID: {UUIDS[0]})",
        "  MIG 3g.20gb     Device  0: (UUID: MIG-1)",
        "  MIG 3g.20gb     Device  1: (UUID: MIG-2)",
        f"GPU 1: A Card (UUID: {UUIDS[1]})",
    ]
)


@pytest.mark.parametrize(
    ("given", "gpus"),
    [
        ("0", ["0"]),
        ("3, 1", ["3", "1"]),
        ("00,1", ["0", "1"]),
        ("0,-1,1", ["0"]),
        ("0,,1", ["0"]),
        ("2,x,1", ["2"]),
        ("-1", []),
        ("NoDevFiles", []),
        ("", []),
        (",".join(UUIDS), UUIDS),
        ("MIG-1,MIG-GPU-2/1/0", ["MIG-1", "MIG-GPU-2/1/0"]),
    ],
)
def test_the_pool_is_what_cuda_would_see(monkeypatch, given, gpus):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert pool() == gpus


@pytest.mark.parametrize(
    ("given", "gpus"),
    [(None, ["0", "1"]), ("1", ["1"]), ("1,2,0", ["1"]), ("GPU-b,0", ["GPU-b", "0"]), ("GPU-c,0", [])],
)
def test_the_pool_has_only_gpus_that_are_there(monkeypatch, tmp_path, given, gpus):
    nvidia_smi(tmp_path, TWO_GPUS)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES") if given is None else monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert pool() == gpus


def test_the_parts_of_a_split_gpu_are_in_the_pool_in_its_place(monkeypatch, tmp_path):
    nvidia_smi(tmp_path, MIG)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert pool() == ["MIG-1", "MIG-2", "1"]


def test_an_nvidia_smi_that_fails_leaves_the_names_as_given(tmp_path):
    nvidia_smi(tmp_path, "NVIDIA-SMI has failed", status=9)
    assert pool() == ["0", "1"]


def test_a_gpu_named_twice_is_refused(monkeypatch, tmp_path):
    nvidia_smi(tmp_path, TWO_GPUS)
    for given in ("1,0,1", f"0,{UUIDS[0]}", "GPU-b,1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
        with pytest.raises(ValueError, match="twice"):
            pool()


def test_index_and_uuid_are_one_gpu(holder, tmp_path):
    nvidia_smi(tmp_path, TWO_GPUS)
    first = holder(CUDA_VISIBLE_DEVICES="1")
    assert first.tells("leased") == "leased 1.0"
    second = holder(CUDA_VISIBLE_DEVICES=UUIDS[1])
    assert str(first.process.pid) in second.tells("waits")
    first.ends()
    assert second.tells("leased") == f"leased {UUIDS[1]}.0"


def test_the_environment_names_the_leased_gpu_and_is_restored():
    with leased() as lease:
        assert lease == Lease(("0",), (0,))
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"
    with leased(2) as lease:
        assert lease == Lease(("0", "1"), (0, 0))
    with pytest.raises(KeyError), leased():
        raise KeyError
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_an_unset_environment_is_unset_again(monkeypatch, tmp_path):
    nvidia_smi(tmp_path, TWO_GPUS)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    with leased():
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


@pytest.mark.parametrize(("given", "gpus"), [("", 1), ("-1", 3), ("0,1", 0)])
def test_without_gpus_the_lease_is_empty(monkeypatch, tmp_path, given, gpus):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    with leased(gpus) as lease:
        assert lease == Lease()
        assert os.environ["CUDA_VISIBLE_DEVICES"] == given
    assert not (tmp_path / "locks").exists()


@pytest.mark.parametrize(
    ("gpus", "slots", "message"), [(3, 1, "3 GPUs are asked for and 2"), (-1, 1, "gpus >= 0"), (1, 0, "slots_per_gpu >= 1")]
)
def test_what_cannot_be_leased_is_refused_at_once(gpus, slots, message):
    with pytest.raises(ValueError, match=message), leased(gpus, slots):
        pass
    with leased():  # nothing is left behind
        pass


def test_a_lease_inside_a_lease_is_refused():
    with leased(), pytest.raises(RuntimeError, match="has a lease"), leased():
        pass
    with leased(2):
        pass


def test_a_gpu_has_one_holder(holder):
    first, second = holder(), holder()
    both = [first.tells("leased"), second.tells("leased")]
    assert sorted(both) == ["leased 0.0", "leased 1.0"]
    third = holder()
    line = third.tells("waits")
    assert "waits for a GPU: 2 of 2 slots of 0, 1 are taken by pids" in line
    assert all(str(one.process.pid) in line for one in (first, second))
    time.sleep(0.5)
    assert "leased" not in third.said
    second.ends()
    assert third.tells("leased") == both[1]
    assert third.said.count("waits") == 1


def test_slots_fill_all_gpus_evenly(holder):
    holders, told = [], []
    for _ in range(4):
        holders.append(holder(1, 2))
        told.append(holders[-1].tells("leased"))
    assert told == ["leased 0.0", "leased 1.0", "leased 0.1", "leased 1.1"]
    # One of GPU 0 ends and both of GPU 1: the next goes to the empty GPU, whatever the numbers of the free slots.
    for number in (0, 1, 3):
        holders[number].ends()
    assert [holder(1, 2).tells("leased") for _ in range(3)] == ["leased 1.0", "leased 0.0", "leased 1.1"]


def test_several_gpus_are_leased_together_or_not_at_all(holder, tmp_path):
    one = holder()
    one.tells("leased")
    two = holder(2)
    assert "waits for 2 GPUs: 1 of 2 slots" in two.tells("waits")
    time.sleep(0.3)
    for name, taken in (("0", True), ("1", False)):
        # Looked at thrice: whoever is first in the queue tries a free slot for a moment now and then.
        assert all(locked(tmp_path / "locks" / f"{name}.slot0") for _ in range(3)) == taken
    one.ends()
    assert two.tells("leased") == "leased 0.0 1.0"


def locked(path):
    """Whether a process of its own finds the file locked."""
    code = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    return subprocess.run([sys.executable, "-c", code, str(path)], stderr=subprocess.DEVNULL, check=False).returncode != 0


def test_one_that_needs_several_is_not_overtaken(holder):
    first = holder()
    first.tells("leased")
    several = holder(2)
    several.tells("waits")
    behind = holder()  # GPU 1 is free, but it came later
    assert f"pid {several.process.pid} came before" in behind.tells("waits")
    time.sleep(0.5)
    assert "leased" not in behind.said
    first.ends()
    assert several.tells("leased") == "leased 0.0 1.0"
    assert "leased" not in behind.said
    several.ends()
    behind.tells("leased")


def test_those_who_wait_for_another_gpu_are_not_in_the_way(holder):
    holder(CUDA_VISIBLE_DEVICES="0").tells("leased")
    holder(CUDA_VISIBLE_DEVICES="0").tells("waits")
    assert holder(CUDA_VISIBLE_DEVICES="1").tells("leased") == "leased 1.0"


def test_first_come_first_served(holder, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    running = holder()
    running.tells("leased")
    queue = []
    for _ in range(4):
        queue.append(holder())
        queue[-1].tells("waits")
    for following in queue:
        running.ends()
        following.tells("leased")
        assert sum("leased" in one.said for one in queue) == queue.index(following) + 1
        running = following


def test_a_killed_holder_frees_its_gpus(holder):
    first = holder(2)
    first.tells("leased")
    second = holder(2)
    second.tells("waits")
    first.dies()
    assert second.tells("leased") == "leased 0.0 1.0"


def test_a_killed_waiter_does_not_block_those_behind(holder):
    first = holder(2)
    first.tells("leased")
    second = holder(2)
    second.tells("waits")
    third = holder()
    third.tells("waits")
    second.dies()
    first.ends()
    third.tells("leased")


def test_an_interrupted_waiter_gives_its_ticket_back(holder, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    first = holder()
    first.tells("leased")

    def interrupt(line):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), leased(on_wait=interrupt):
        pass
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
    second = holder()
    assert "before" not in second.tells("waits")
    first.ends()
    second.tells("leased")


def test_waiters_stop_at_ctrl_c(holder, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    first = holder()
    first.tells("leased")
    waiters = [holder(), holder()]  # one that tries, one behind it
    for waiter in waiters:
        waiter.tells("waits")
    for waiter in reversed(waiters):
        time.sleep(0.1)
        waiter.process.send_signal(signal.SIGINT)
        assert waiter.process.wait(5) != 0
    assert "before" not in holder().tells("waits")


def test_a_forked_child_that_lives_on_keeps_nothing(holder, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    fork = "import os; child = os.fork(); child or time.sleep(8); child and print('child', child, flush=True); os._exit(0)"
    parent = holder(then=fork)
    child = int(parent.tells("child").split()[1])
    try:
        parent.process.wait(10)
        os.kill(child, 0)
        holder().tells("leased", seconds=3)
        os.kill(child, 0)  # still there
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_killed_shell_around_it_frees_nothing(holder, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    inside = holder(wrap=("/bin/bash", "-c", '"$@"; true', "-"))
    inside.tells("leased")
    inside.dies()
    assert inside.process.returncode == -signal.SIGKILL
    following = holder()
    following.tells("waits")
    time.sleep(0.5)
    assert "leased" not in following.said
    inside.process.stdin.close()
    following.tells("leased")


def test_waiting_costs_no_time_of_a_core(holder, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    holder().tells("leased")
    waiters = [holder(), holder()]  # one that tries, one behind it
    for waiter in waiters:
        waiter.tells("waits")

    def seconds(waiter):
        fields = Path(f"/proc/{waiter.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    before = [seconds(waiter) for waiter in waiters]
    time.sleep(2)
    assert all(seconds(waiter) - earlier < 0.1 for waiter, earlier in zip(waiters, before, strict=True))


@pytest.mark.parametrize("variable", gpu_lease.JOB_VARIABLES)
def test_each_job_of_a_scheduler_has_its_own_leases(holder, monkeypatch, variable):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    holder(**{variable: "12[3]/x"}).tells("leased")
    assert holder(**{variable: "13"}).tells("leased") == "leased 0.0"
    holder(**{variable: "12[3]/x"}).tells("waits")


def test_gpus_that_go_by_uuid_are_the_same_in_every_job(holder, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    nvidia_smi(tmp_path, TWO_GPUS)
    holder(SLURM_JOB_ID="1").tells("leased")
    holder(SLURM_JOB_ID="2").tells("waits")


def test_the_files_are_the_user_s_alone_and_say_who_holds(tmp_path):
    with leased():
        assert stat.S_IMODE((tmp_path / "locks").stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "locks").iterdir()} == {0o600}
        # Read by another process: this one would free its lock.
        text = subprocess.run(["/bin/cat", tmp_path / "locks" / "0.slot0"], capture_output=True, text=True, check=True).stdout
        assert text.startswith(f"pid {os.getpid()} since 20")


def test_the_folder_is_the_same_for_all_processes_of_the_user(monkeypatch, tmp_path):
    monkeypatch.delenv("STLIGHT_GPU_LOCKS")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    opened = []
    monkeypatch.setattr(gpu_lease, "_open_folder", lambda path, closing: opened.append(path))
    gpu_lease._folder(["0"], ExitStack())
    assert opened == [Path(f"/var/tmp/stlight-gpus-{os.getuid()}")]


def test_a_folder_that_is_not_safe_is_refused(monkeypatch, tmp_path):
    def refused(match):
        with pytest.raises(OSError, match=match) as caught, leased():
            pass
        assert "\n" not in str(caught.value)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"

    locks = tmp_path / "locks"
    (tmp_path / "elsewhere").mkdir()
    locks.symlink_to(tmp_path / "elsewhere")
    refused("it is a link")
    locks.unlink()
    locks.write_text("")
    refused("File exists")
    locks.unlink()
    locks.mkdir()
    locks.chmod(0o777)
    refused("written by others")
    locks.chmod(0o700)
    (locks / "0.slot0").symlink_to(tmp_path / "victim")
    refused("symbolic links")
    (locks / "0.slot0").unlink()
    with leased():
        pass
    monkeypatch.setattr(os, "getuid", lambda: locks.stat().st_uid + 1)
    refused("of another user")


@pytest.mark.parametrize("slots", [1, 2])
def test_no_slot_is_leased_twice_or_lost_when_processes_are_killed(slots):
    found = devices(gpus=4 // slots, jobs=12, slots_per_gpu=slots, kills=6, seed=slots)
    assert found["leases"] >= found["jobs"] == 12
    assert found["kills"] == 6
    assert found["clashes"] == found["leaked"] == 0
