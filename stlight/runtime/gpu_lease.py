"""Lease one GPU to each process, among the processes of one user on one host.

Each GPU has slots, and each slot a lock file that `filelock` locks with flock. The kernel frees the lock when its process ends,
also by SIGKILL, and `filelock` (4.2 or later) closes it in forked children. Do not delete the files: two processes would then
lock different files for one slot. All processes that share GPUs must state the same number of slots.

No two processes hold one slot, and a waiting process takes a free slot within about a second. Processes that wait are not
served in order. Leases do not nest: the inner one would wait for the outer one.
"""

import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from filelock import FileLock, Timeout

# A scheduler may number the GPUs from 0 in every job. Only a UUID names the same GPU in all of them.
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

    For `gpus` 0 (not 1), and on a machine without GPUs, the lease is empty and the environment stays as it is.
    `on_wait` is called once with a message if no slot is free; by default the message is printed to stderr.

    Raises `ValueError` if an argument is out of range or a GPU is named twice, `OSError` if the locks cannot be used.
    """
    if gpus not in (0, 1) or slots_per_gpu < 1:
        raise ValueError(f"a lease needs gpus 0 or 1 and slots_per_gpu >= 1, got {gpus} and {slots_per_gpu}")
    names = _lock_names() if gpus else {}
    if not names:
        yield Lease()
        return
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpu, slot, lock = _wait_for_slot(names, slots_per_gpu, on_wait or partial(print, file=sys.stderr, flush=True))
    try:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
        yield Lease((gpu,), slot)
    finally:
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        os.environ.update({} if before is None else {"CUDA_VISIBLE_DEVICES": before})
        lock.release()


def _wait_for_slot(names: dict[str, str], slots: int, on_wait: Callable[[str], None]) -> tuple[str, int, FileLock]:
    folder = _lock_folder(names.values())
    # Choosing locks every free slot for a moment. Only one process may choose at a time, or others would find none free.
    choosing = FileLock(folder / "choosing")
    locks = {gpu: [FileLock(folder / f"{_plain(name)}.slot{n}") for n in range(slots)] for gpu, name in names.items()}
    waits = False
    while True:
        with choosing:
            free = {gpu: [n for n, lock in enumerate(of_gpu) if _lock(lock)] for gpu, of_gpu in locks.items()}
            emptiest = max(free, key=lambda gpu: len(free[gpu]))
            for gpu, numbers in free.items():
                for n in numbers[gpu == emptiest :]:
                    locks[gpu][n].release()
        if free[emptiest]:
            break
        if not waits:
            pids = (Path(lock.lock_file).read_text() for of_gpu in locks.values() for lock in of_gpu)
            on_wait(f"waits for a GPU: all slots of {', '.join(names)} are taken by pids {', '.join(pids)}")
        waits = True
        time.sleep(_POLL)
    slot = free[emptiest][0]
    lock = locks[emptiest][slot]
    # Only messages use it, so a full disk must not stop the run.
    with suppress(OSError):
        Path(lock.lock_file).write_text(str(os.getpid()))
    return emptiest, slot, lock


def _lock(lock: FileLock) -> bool:
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    return True


def _lock_folder(names: Iterable[str]) -> Path:
    """Return this user's folder of locks on this host, or that of a scheduler's job whose GPUs have no UUID."""
    base = _LOCAL if os.access(_LOCAL, os.W_OK) else Path(tempfile.gettempdir())
    folder = Path(os.environ.get("STLIGHT_GPU_LOCKS") or base / f"stlight-gpus-{os.getuid()}")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o022:
        raise PermissionError(
            f"{folder}: must be a folder of this user, and writable by nobody else, to hold GPU locks: "
            "change it, or set STLIGHT_GPU_LOCKS to another folder"
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
    for index, (gpu, *parts) in enumerate(gpus):
        names |= {part: part for part in parts} or {str(index): gpu}
    return names


def _lock_name(name: str) -> str | None:
    """Return a GPU's UUID, the name itself if nvidia-smi cannot tell, or None if nvidia-smi lists no such GPU."""
    if _UUID.fullmatch(name) or (gpus := _listed()) is None:
        return name
    # CUDA takes a GPU that is split by MIG for its first part.
    found = [[*parts, gpu][0] for n, (gpu, *parts) in enumerate(gpus) if str(n) == name or gpu.startswith(name)]
    return found[0] if len(found) == 1 else None


@cache
def _listed() -> list[list[str]] | None:
    """Return for each GPU its UUID and those of its MIG parts, in the order of indices; None if nvidia-smi cannot tell."""
    if not (command := shutil.which("nvidia-smi")):
        return None
    try:
        answer = subprocess.run([command, "-L"], capture_output=True, text=True, timeout=30, check=False)
    except subprocess.TimeoutExpired as error:
        # Indices are no substitute, because another process may have locked the same GPU by its UUID.
        raise OSError("nvidia-smi -L gives no answer in 30 s: name the GPUs by UUID in CUDA_VISIBLE_DEVICES") from error
    gpus: list[list[str]] = []
    for kind, uuid in re.findall(r"^(GPU|\s+MIG) .*\(UUID: (\S+)\)", answer.stdout, re.MULTILINE):
        if kind == "GPU":
            gpus.append([])
        gpus[-1].append(uuid)
    return gpus if answer.returncode == 0 else None
