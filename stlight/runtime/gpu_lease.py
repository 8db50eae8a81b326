"""Lease one GPU to each process, among the processes of one user on one host.

Each GPU has slots, and each slot a lock file that `filelock` locks with flock. The kernel frees the lock when its process ends,
also by SIGKILL, and `filelock` (4.2 or later) closes it in forked children. Do not delete the files: two processes would then
lock different files for one slot. Processes that share GPUs must name them alike, by index or by UUID. Those that state
another number of slots than a GPU's present holders wait until nobody holds it. A waiting process takes a free slot within
about a second, in no order. Leases do not nest.
"""

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from filelock import FileLock, Timeout

from stlight.runtime.atomic_files import write_atomically
from stlight.runtime.trust import private_folder

# In a scheduler's job the leases are the job's own, because a scheduler may number the GPUs from 0 in every job.
JOB_VARIABLES = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "LSB_JOBINDEX")

# A local folder, whatever TMPDIR is. Not /dev/shm, where systemd deletes a user's files when he logs out.
_LOCAL = Path("/var/tmp")
_POLL = 0.5


@dataclass(frozen=True)
class Lease:
    """The leased GPU, as CUDA_VISIBLE_DEVICES names it, and the number of its slot; no GPU on a machine without one."""

    gpus: tuple[str, ...] = ()
    slot: int = 0


def pool() -> list[str]:
    """Return the GPUs that this process may use: those that CUDA_VISIBLE_DEVICES names, or all of the machine by index."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        # Like CUDA, we ignore everything from the first invalid entry on.
        valid = takewhile(re.compile(r"\d+|(GPU|MIG)-\S+").fullmatch, map(str.strip, given.split(",")))
        return list(dict.fromkeys(valid))
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True).stdout
        number = sum(line.startswith("GPU ") for line in listed.splitlines())
    except (OSError, subprocess.SubprocessError):
        number = len(list(Path("/dev").glob("nvidia[0-9]*")))
    return [str(index) for index in range(number)]


@contextmanager
def leased(gpus: int = 1, slots_per_gpu: int = 1, on_wait: Callable[[str], None] = print) -> Iterator[Lease]:
    """Lease a slot of a GPU inside the block, where CUDA_VISIBLE_DEVICES names only this GPU. Enter before loading torch.

    For `gpus` 0, and on a machine without GPUs, the lease is empty and the environment stays as it is.
    `on_wait` is called once with a message if no slot is free.
    Raises `OSError` if the locks cannot be used.
    """
    names = pool() if gpus else []
    if not names:
        yield Lease()
        return
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpu, slot, lock = _wait_for_slot(names, slots_per_gpu, on_wait)
    try:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
        yield Lease((gpu,), slot)
    finally:
        del os.environ["CUDA_VISIBLE_DEVICES"]
        os.environ.update({} if before is None else {"CUDA_VISIBLE_DEVICES": before})
        lock.release()


def _wait_for_slot(names: list[str], slots: int, on_wait: Callable[[str], None]) -> tuple[str, int, FileLock]:
    """Wait for a free slot and lock it, on the GPU with the most free slots."""
    folder = _lock_folder()
    locks = {gpu: _slot_locks(folder, gpu, slots) for gpu in names}
    waits = False
    while True:
        # Choosing locks every free slot for a moment. Only one process may choose at a time, or others would find none free.
        with FileLock(folder / "choosing"):
            free = {
                gpu: [n for n, lock in enumerate(of_gpu) if _lock(lock)] if _divide(folder, gpu, slots) else []
                for gpu, of_gpu in locks.items()
            }
            emptiest = max(free, key=lambda gpu: len(free[gpu]))
            for gpu, numbers in free.items():
                for n in numbers[gpu == emptiest :]:
                    locks[gpu][n].release()
        if free[emptiest]:
            slot = free[emptiest][0]
            return emptiest, slot, locks[emptiest][slot]
        if not waits:
            on_wait(f"waits for a GPU: all slots of {', '.join(names)} are taken")
        waits = True
        time.sleep(_POLL)


def _divide(folder: Path, gpu: str, slots: int) -> bool:
    """Return True if a GPU is divided into so many slots; divide it anew if nobody holds it. Call only while choosing.

    A run that expects a third of the memory must not share with one that expects a half.
    """
    note = folder / f"{_plain(gpu)}.slots"
    before = int(note.read_text()) if note.exists() else 0
    if before != slots:
        others = _slot_locks(folder, gpu, before)
        free = [lock for lock in others if _lock(lock)]
        for lock in free:
            lock.release()
        if len(free) < before:
            return False
        write_atomically(note, str(slots))
    return True


def _slot_locks(folder: Path, gpu: str, slots: int) -> list[FileLock]:
    return [FileLock(folder / f"{_plain(gpu)}.slot{n}") for n in range(slots)]


def _lock(lock: FileLock) -> bool:
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    return True


def _lock_folder() -> Path:
    """Return this user's folder of locks on this host, or a scheduler's job's folder in it."""
    folder = Path(os.environ.get("STLIGHT_GPU_LOCKS") or _LOCAL / f"stlight-gpus-{os.getuid()}")
    try:
        private_folder(folder)
    except PermissionError as error:
        raise PermissionError(f"{error}: set STLIGHT_GPU_LOCKS to another folder for GPU locks") from error
    if job := "-".join(os.environ[name] for name in JOB_VARIABLES if os.environ.get(name)):
        folder = private_folder(folder / f"job-{_plain(job)}")
    return folder


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name)
