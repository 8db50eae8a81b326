"""Lease one GPU to each process, among the processes of one user on one host.

Each GPU has slots, and each slot a lock file that `filelock` locks with flock. The kernel frees the lock when its process ends,
also by SIGKILL. `filelock` (from version 4) closes the lock in forked children, so a child that outlives its parent keeps
nothing. Do not delete the files: two processes would then lock two different files for one slot. All processes that share GPUs
must state the same number of slots.

No two processes hold one slot, and a waiting process takes a free slot within about a second. Processes that wait are not
served in order. Leases do not nest: the inner one would wait for the outer one.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout

# A job's GPUs belong to it alone, and a scheduler may number them from 0 in every job.
JOB_VARIABLES = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "LSB_JOBINDEX")

# A local folder, whatever TMPDIR is. Not /dev/shm, where systemd deletes a user's files when he logs out.
_LOCAL = Path("/var/tmp")
_POLL = 0.5
_UUID = re.compile(r"GPU-\w{8}-\w{4}-\w{4}-\w{4}-\w{12}|MIG-[\w/-]+")


@dataclass(frozen=True)
class Lease:
    """The leased GPU, as CUDA_VISIBLE_DEVICES names it, and the number of its slot; no GPU on a machine without one."""

    gpus: tuple[str, ...] = ()
    slot: int = 0


def pool() -> list[str]:
    """Return the GPUs that this process may use: those that CUDA_VISIBLE_DEVICES names, or all of the machine.

    Raises `ValueError` if a GPU is named twice, and `OSError` if nvidia-smi does not answer.
    """
    return list(_lock_names())


@contextmanager
def leased(gpus: int = 1, slots_per_gpu: int = 1, on_wait: Callable[[str], None] | None = None) -> Iterator[Lease]:
    """Lease a slot of a GPU inside the block, where CUDA_VISIBLE_DEVICES names only this GPU. Enter before loading torch.

    Args:
        gpus: 0 or 1. For 0, and on a machine without GPUs, the lease is empty and the environment stays as it is.
        slots_per_gpu: number of processes that may share a GPU.
        on_wait: called once with a message if no slot is free; prints to stderr by default.

    Raises:
        ValueError: an argument is out of range, or CUDA_VISIBLE_DEVICES names a GPU twice.
        OSError: the lock files cannot be used, or nvidia-smi does not answer.
    """
    if gpus not in (0, 1) or slots_per_gpu < 1:
        raise ValueError(f"a lease needs gpus 0 or 1 and slots_per_gpu >= 1, got {gpus} and {slots_per_gpu}")
    names = _lock_names() if gpus else {}
    if not names:
        yield Lease()
        return
    gpu, slot, lock = _wait_for_slot(names, slots_per_gpu, on_wait or _print_to_stderr)
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    try:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
        yield Lease((gpu,), slot)
    finally:
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        if before is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = before
        lock.release()


def _print_to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


Locks = dict[str, list[FileLock]]
"""The slots of each GPU."""


def _wait_for_slot(names: dict[str, str], slots: int, on_wait: Callable[[str], None]) -> tuple[str, int, FileLock]:
    folder = _lock_folder(names.values())
    # Choosing locks every free slot for a moment. Only one process may choose at a time, or others would find none free.
    choosing = FileLock(folder / "choosing")
    locks = {gpu: [FileLock(folder / f"{_plain(name)}.slot{n}") for n in range(slots)] for gpu, name in names.items()}
    waits = False
    while True:
        with choosing:
            taken = _take_slot(locks)
        if taken:
            return taken
        if not waits:
            on_wait(_waiting_message(locks))
        waits = True
        time.sleep(_POLL)


def _take_slot(locks: Locks) -> tuple[str, int, FileLock] | None:
    """Lock a slot of the GPU that has the most free ones, and write this process's id into its file."""
    free = {gpu: [slot for slot, lock in enumerate(slots) if _lock(lock)] for gpu, slots in locks.items()}
    chosen = max(free, key=lambda gpu: len(free[gpu]))
    for gpu, slots in free.items():
        for slot in slots[gpu == chosen :]:
            locks[gpu][slot].release()
    if not free[chosen]:
        return None
    lock = locks[chosen][free[chosen][0]]
    # Only a message shows it, so a full disk must not stop the run.
    with suppress(OSError):
        Path(lock.lock_file).write_text(f"pid {os.getpid()} since {time.strftime('%F %T')}\n")
    return chosen, free[chosen][0], lock


def _lock(lock: FileLock) -> bool:
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    return True


def _waiting_message(locks: Locks) -> str:
    files = [Path(lock.lock_file) for slots in locks.values() for lock in slots]
    pids = dict.fromkeys(words[1] for file in files if len(words := file.read_text().split()) > 1)
    taken = f"all {len(files)} slots of {', '.join(locks)} are taken"
    return f"waits for a GPU: {taken} by pids {', '.join(pids)}" if pids else f"waits for a GPU: {taken}"


def _lock_folder(names: Iterable[str]) -> Path:
    """Return this user's folder of locks on this host, or that of the scheduler's job that this process belongs to.

    A UUID names the same GPU in every job, but an index may name another job's GPU too.
    """
    base = _LOCAL if os.access(_LOCAL, os.W_OK) else Path(tempfile.gettempdir())
    folder = Path(os.environ.get("STLIGHT_GPU_LOCKS") or base / f"stlight-gpus-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"{folder}: cannot hold GPU locks: {error.strerror}; set STLIGHT_GPU_LOCKS to another folder") from error
    facts = folder.stat(follow_symlinks=False)
    if folder.is_symlink() or facts.st_uid != os.getuid() or facts.st_mode & 0o022:
        raise PermissionError(
            f"{folder}: cannot hold GPU locks: it must belong to this user (not a link) and be writable by nobody else; "
            "mend that, or set STLIGHT_GPU_LOCKS to another folder"
        )
    job = "-".join(os.environ[name] for name in JOB_VARIABLES if os.environ.get(name))
    if job and not all(map(_UUID.fullmatch, names)):
        folder /= f"job-{_plain(job)}"
        folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name)


def _lock_names() -> dict[str, str]:
    """Return the pool and, for each GPU, the name of its locks: the UUID if known, because a GPU has two names."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is None:
        return _all_gpus()
    names: dict[str, str] = {}
    for entry in map(str.strip, given.split(",")):
        # Like CUDA, we ignore everything from the first invalid entry on.
        if not re.fullmatch(r"\d+|GPU-[\w-]+|MIG-[\w/-]+", entry):
            break
        gpu = str(int(entry)) if entry.isdigit() else entry
        if (name := _lock_name(gpu)) is None:
            break
        if name in names.values():
            raise ValueError(f"CUDA_VISIBLE_DEVICES={given} names {entry} twice: each GPU must be named once")
        names[gpu] = name
    return names


def _all_gpus() -> dict[str, str]:
    if (gpus := _listed()) is None:
        devices = sum(bool(re.fullmatch(r"nvidia\d+", path.name)) for path in Path("/dev").glob("nvidia*"))
        return {str(index): str(index) for index in range(devices)}
    names: dict[str, str] = {}
    for index, (uuid, parts) in enumerate(gpus):
        names |= {part: part for part in parts} or {str(index): uuid}
    return names


def _lock_name(gpu: str) -> str | None:
    """Return a GPU's UUID, the name itself if nvidia-smi cannot tell, or None if nvidia-smi lists no such GPU."""
    if _UUID.fullmatch(gpu) or (gpus := _listed()) is None:
        return gpu
    # CUDA takes the index of a GPU that is split by MIG for its first part.
    found = [(parts or [uuid])[0] for index, (uuid, parts) in enumerate(gpus) if str(index) == gpu or uuid.startswith(gpu)]
    return found[0] if len(found) == 1 else None


@cache
def _listed() -> list[tuple[str, list[str]]] | None:
    """Return each GPU's UUID and those of its MIG parts, in the order of indices; None if nvidia-smi cannot tell."""
    if not (command := shutil.which("nvidia-smi")):
        return None
    try:
        answer = subprocess.run([command, "-L"], capture_output=True, text=True, timeout=30, check=False)
    except subprocess.TimeoutExpired as error:
        # Indices are no substitute, because another process may have locked the same GPU by its UUID.
        raise OSError("nvidia-smi -L gives no answer in 30 s: name the GPUs by UUID in CUDA_VISIBLE_DEVICES") from error
    gpus: list[tuple[str, list[str]]] = []
    for line in answer.stdout.splitlines():
        if match := re.match(r"(GPU|\s+MIG) .*\(UUID: (\S+)\)", line):
            if match[1] == "GPU":
                gpus.append((match[2], []))
            else:
                gpus[-1][1].append(match[2])
    return gpus if answer.returncode == 0 else None
