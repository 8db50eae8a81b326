"""Leases of GPUs among the processes of one user on one host, taken before torch is loaded, in the order of asking.

A GPU has slots, each with a lock file that its holder keeps locked. The locks are POSIX record locks (lockf) and not flock:
those belong to the process that took them, so the kernel frees them when that process ends, however it ends, even where a
child it forked lives on; and killing the shell around it frees nothing that it still uses. In return, closing any descriptor
of a file frees this process's locks on it: every file is opened once, and a process has one lease at a time.

No file is ever removed, so that nobody can lock a file that others no longer see. All who share GPUs must state the same
number of slots.
"""

import fcntl
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# A scheduler's job has its devices for itself, and may number them from 0 as its neighbour does.
JOB_VARIABLES = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "LSB_JOBINDEX")

_UUID = re.compile(r"GPU-\w{8}-\w{4}-\w{4}-\w{4}-\w{12}|MIG-[\w/-]+")
_one_lease = threading.Lock()

Slot = tuple[str, int]


@dataclass(frozen=True)
class Lease:
    """GPUs as CUDA_VISIBLE_DEVICES names them, and the slot of each; both empty on a machine without GPUs."""

    gpus: tuple[str, ...] = ()
    slots: tuple[int, ...] = ()


def pool() -> list[str]:
    """The GPUs this process may use: those CUDA_VISIBLE_DEVICES names, or all; an index, or a UUID where that was given.

    Raises `ValueError` where one is named twice, and `OSError` where nvidia-smi is there but hangs.
    """
    return list(_lock_names())


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def leased(gpus: int = 1, slots_per_gpu: int = 1, on_wait: Callable[[str], None] = _say) -> Iterator[Lease]:
    """Inside, a slot on each of so many GPUs of the pool is this process's, and CUDA_VISIBLE_DEVICES names just these.

    Waits its turn; `on_wait` is told once for whom. Without GPUs, or for 0, the lease is empty and the environment stays.
    Raises `ValueError` for more GPUs than there are, `RuntimeError` inside a lease, `OSError` where locks cannot be kept.
    """
    if gpus < 0 or slots_per_gpu < 1:
        raise ValueError(f"a lease needs gpus >= 0 and slots_per_gpu >= 1, got {gpus} and {slots_per_gpu}")
    names = _lock_names() if gpus else {}
    if not names:
        yield Lease()
        return
    if not _one_lease.acquire(blocking=False):
        raise RuntimeError("this process has a lease of GPUs or waits for one: a second inside it could wait for itself")
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    try:
        if gpus > len(names):
            raise ValueError(f"{gpus} GPUs are asked for and {len(names)} can be used: {', '.join(names)}")
        with ExitStack() as held:
            lease = _wait_for_slots(names, gpus, slots_per_gpu, on_wait, held)
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(lease.gpus)
            yield lease
    finally:
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        if before is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = before
        _one_lease.release()


def _wait_for_slots(names: dict[str, str], gpus: int, slots: int, on_wait: Callable[[str], None], held: ExitStack) -> Lease:
    with ExitStack() as queueing:  # its end gives the ticket back, whatever the end is
        folder = _folder(names.values(), queueing)
        files = {(gpu, n): _open(folder, f"{name}.slot{n}", held) for gpu, name in names.items() for n in range(slots)}
        queues = [_open(folder, f"{name}.queue", queueing) for name in names.values()]
        ticket = _draw(_open(folder, "tickets", queueing), queues)

        def attempt() -> list[Slot]:
            # Only the first in every queue tries, so nobody overtakes one that needs several GPUs.
            return [] if any(_holder(queue, ticket) for queue in queues) else _take(files, gpus)

        pause = 0.1
        if not (taken := attempt()):
            time.sleep(pause)  # those ahead may just be taking free slots
            taken = attempt()
        if not taken:
            on_wait(_situation(files, gpus, next(filter(None, (_holder(queue, ticket) for queue in queues)), None)))
            for queue in queues:
                # The kernel wakes this process when no lower ticket is left. Shared, it is in nobody's way.
                fcntl.lockf(queue, fcntl.LOCK_SH, ticket)
        while not (taken := taken or attempt()):
            time.sleep(pause)
            pause = min(1.2 * pause, 1.0)
        for slot in taken:
            with suppress(OSError):  # only for people to read, and the disk may be full
                os.ftruncate(files[slot], 0)
                os.pwrite(files[slot], f"pid {os.getpid()} since {time.strftime('%F %T')}\n".encode(), 0)
    return Lease(tuple(gpu for gpu, _ in taken), tuple(n for _, n in taken))


def _draw(tickets: int, queues: Iterable[int]) -> int:
    """The next ticket, locked as a byte of this number in the queue of every GPU of the pool: lower ones come first.

    The size of the file `tickets` counts them; it is sparse. Numbers are drawn one at a time, so no lower one appears later.
    """
    fcntl.lockf(tickets, fcntl.LOCK_EX)
    ticket = os.fstat(tickets).st_size + 1
    os.ftruncate(tickets, ticket)
    for queue in queues:
        fcntl.lockf(queue, fcntl.LOCK_EX, 1, ticket)
    fcntl.lockf(tickets, fcntl.LOCK_UN)
    return ticket


def _take(files: dict[Slot, int], gpus: int) -> list[Slot]:
    """Lock a slot on so many GPUs, those with most free slots first, or nothing at all."""
    free: dict[str, list[int]] = {}
    for (gpu, n), file in files.items():
        if _locked(file):
            free.setdefault(gpu, []).append(n)
    emptiest = sorted(free, key=lambda gpu: -len(free[gpu]))[:gpus]
    taken = [(gpu, free[gpu][0]) for gpu in free if gpu in emptiest] if len(free) >= gpus else []
    for gpu, numbers in free.items():
        for n in numbers:
            if (gpu, n) not in taken:
                fcntl.lockf(files[gpu, n], fcntl.LOCK_UN)
    return taken


def _locked(file: int) -> bool:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _holder(file: int, length: int = 0) -> str | None:
    """The pid of another process with a lock on the first `length` bytes (0: all), without touching any lock."""
    question = struct.pack("hhqqi", fcntl.F_RDLCK, os.SEEK_SET, 0, length, 0)  # struct flock of 64-bit Linux
    kind, _, _, _, pid = struct.unpack("hhqqi", fcntl.fcntl(file, fcntl.F_GETLK, question))
    return None if kind == fcntl.F_UNLCK else str(pid)


def _situation(files: dict[Slot, int], gpus: int, ahead: str | None) -> str:
    pids = [pid for file in files.values() if (pid := _holder(file))]
    names = ", ".join(dict.fromkeys(gpu for gpu, _ in files))
    line = f"waits for {'a GPU' if gpus == 1 else f'{gpus} GPUs'}: {len(pids)} of {len(files)} slots of {names} are taken"
    by = f" by pids {', '.join(dict.fromkeys(pids))}" if pids else ""
    return line + by + (f"; pid {ahead} came before" if ahead else "")


def _folder(names: Iterable[str], closing: ExitStack) -> int:
    """A descriptor of the folder with this user's locks on this host, or those of the scheduler's job that this is part of.

    GPUs that go by UUID are the same in every job; an index may be another job's, too.
    """
    # Local, and the same whatever TMPDIR is; not /dev/shm, which systemd clears of a user's files when he logs out.
    local = Path("/var/tmp")
    base = local if os.access(local, os.W_OK) else Path(tempfile.gettempdir())
    path = Path(os.environ.get("STLIGHT_GPU_LOCKS") or base / f"stlight-gpus-{os.getuid()}")
    folder = _open_folder(path, closing)
    job = "-".join(os.environ[name] for name in JOB_VARIABLES if os.environ.get(name))
    apart = job and not all(map(_UUID.fullmatch, names))
    return _open_folder(path / f"job-{_plain(job)}", closing) if apart else folder


def _open_folder(path: Path, closing: ExitStack) -> int:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        reason = "it is a link" if path.is_symlink() else error.strerror
        raise OSError(f"{path} cannot keep the locks of GPUs ({reason}): set STLIGHT_GPU_LOCKS to another folder") from error
    closing.callback(os.close, folder)
    status = os.fstat(folder)
    if status.st_uid != os.getuid():
        raise PermissionError(f"{path} is of another user ({status.st_uid}): set STLIGHT_GPU_LOCKS to a folder of your own")
    if status.st_mode & 0o022:
        raise PermissionError(f"{path} can be written by others: chmod go-w it, or set STLIGHT_GPU_LOCKS to another folder")
    return folder


def _open(folder: int, name: str, closing: ExitStack) -> int:
    file = os.open(_plain(name), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    closing.callback(os.close, file)
    return file


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name)


def _lock_names() -> dict[str, str]:
    """The pool, with the name that each GPU's locks go by: its UUID where that can be told, so that both names are one GPU."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is None:
        return _all_gpus()
    names: dict[str, str] = {}
    for entry in map(str.strip, given.split(",")):
        if not re.fullmatch(r"\d+|GPU-[\w-]+|MIG-[\w/-]+", entry):
            break  # as CUDA does, which sees those before the first that is invalid
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
    """Its UUID, or the name itself where nvidia-smi cannot tell; None where it says that there is no such GPU."""
    if _UUID.fullmatch(gpu) or (gpus := _listed()) is None:
        return gpu
    # Where a GPU is split, CUDA takes its index for the first part.
    found = [(parts or [uuid])[0] for index, (uuid, parts) in enumerate(gpus) if str(index) == gpu or uuid.startswith(gpu)]
    return found[0] if len(found) == 1 else None


@cache
def _listed() -> list[tuple[str, list[str]]] | None:
    """The UUID of every GPU and of its MIG parts, in the order of their indices, or None where nvidia-smi cannot tell."""
    if not (command := shutil.which("nvidia-smi")):
        return None
    try:
        answer = subprocess.run([command, "-L"], capture_output=True, text=True, timeout=30, check=False)
    except subprocess.TimeoutExpired as error:
        # Going on with indices would not do: another process may have locked the same GPU by its UUID.
        raise OSError("nvidia-smi -L gives no answer in 30 s: name the GPUs by UUID in CUDA_VISIBLE_DEVICES") from error
    gpus: list[tuple[str, list[str]]] = []
    for line in answer.stdout.splitlines():
        if match := re.match(r"(GPU|\s+MIG) .*\(UUID: (\S+)\)", line):
            if match[1] == "GPU":
                gpus.append((match[2], []))
            else:
                gpus[-1][1].append(match[2])
    return gpus if answer.returncode == 0 else None
