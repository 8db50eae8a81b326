"""Let one process at a time train a run, among all processes and hosts that share its folder.

There are two layers. The first is a POSIX record lock, which the kernel frees when its process dies, also on NFS. The second is
for file systems whose locks do not reach other hosts: the file names its holder, who renews its modification time every few
seconds. A holder on another host counts as alive as long as that time moves.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from stlight.runtime.atomic_files import StorageError, make_folder, storage_errors

_NAME = ".lock"
_RENEWED_EVERY = 10.0
_STALE_AFTER = 60.0
_POLL = 0.5

_held: dict[Path, "_Lock"] = {}


class LockLost(RuntimeError):  # noqa: N818 - not every exception is an error
    """Another process took the run over because this one stood still for too long. It must not write any more."""


@contextlib.contextmanager
def hold(folder: Path, on_wait: Callable[[str], None] = print) -> Iterator[None]:
    """Hold the lock of a run's folder inside the block. A process may hold it several times.

    Waits while another holder is alive, and calls `on_wait` once with a message. Takes over the lock of a dead one at once.
    Raises `StorageError` if the lock file cannot be written.
    """
    key = folder.resolve()
    if key in _held:
        yield
        return
    make_folder(folder)
    lock = _Lock(key / _NAME)
    waits = False
    while other := lock.take():
        if not waits:
            on_wait(f"{folder} is held by process {other['pid']} on {other['host']} since {other['since']}: waits for it")
        waits = True
        time.sleep(_POLL)
    _held[key] = lock
    try:
        yield
    finally:
        del _held[key]
        lock.release()


def check_held(folder: Path) -> None:
    """Raise `LockLost` if another process has taken over this process's lock. Call before each write."""
    lock = _held.get(folder.resolve())
    if lock and not lock.still_mine():
        raise LockLost(f"{folder}: another process has taken the run over while this one stood still; it stops here")


def living_holder(folder: Path) -> dict[str, Any] | None:
    """Return pid, host and since of the living process that holds a run's lock, if there is one."""
    if lock := _held.get(folder.resolve()):
        return lock.me
    try:
        return _Lock(folder / _NAME).take(only_look=True)
    except OSError:
        return None


class _Lock:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        # Modification time of another host's lock, and when we first saw it by our own monotonic clock.
        self._last_change = 0.0, 0.0
        self._ended = threading.Event()
        self._renewer = threading.Thread(target=self._renew, name="run-lock", daemon=True)
        self.me = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
            "kernel": _kernel(),
            "token": uuid.uuid4().hex,
        }

    def take(self, *, only_look: bool = False) -> dict[str, Any] | None:
        """Take the lock and return `None`, or return its living holder. To look needs only the right to read."""
        flags = os.O_RDONLY if only_look else os.O_RDWR | os.O_CREAT
        try:
            descriptor = os.open(self._path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            raise StorageError(f"{self._path}: cannot be opened: {error.strerror}") from error
        try:
            other = self._find_holder(descriptor, fcntl.LOCK_SH if only_look else fcntl.LOCK_EX)
            if other or only_look:
                return other
            if not _is_at(descriptor, self._path):
                # Its last holder removed the file after we opened it. We try again with a new file.
                return self.take()
            with storage_errors(self._path, 0):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps(self.me).encode(), 0)
            self._descriptor = descriptor
        finally:
            if self._descriptor != descriptor:
                os.close(descriptor)
        self._renewer.start()
        return None

    def _find_holder(self, descriptor: int, kind: int) -> dict[str, Any] | None:
        """Return the living holder of an open lock file, or lock the file."""
        kernel_locks = True
        try:
            fcntl.lockf(descriptor, kind | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return _named_in(descriptor) or {"pid": "?", "host": "?", "since": "?"}
            kernel_locks = False
        other = _named_in(descriptor)
        if other is None:
            return None
        if other.get("kernel") == _kernel():
            # Our kernel refuses the lock of a living process. If it gave us the lock, the holder is dead.
            return None if kernel_locks or not _alive(int(other["pid"])) else other
        if other["host"] == self.me["host"]:
            # This host has been restarted since.
            return None
        # The file system's clock may have been set since the last change, so we also watch if the time moves.
        changed = os.fstat(descriptor).st_mtime
        if changed != self._last_change[0]:
            self._last_change = changed, time.monotonic()
        unchanged_for = max(_now_at(self._path.parent) - changed, time.monotonic() - self._last_change[1])
        return None if unchanged_for > _STALE_AFTER else other

    def still_mine(self) -> bool:
        named = _named_in(self._descriptor)
        return named is not None and named.get("token") == self.me["token"] and _is_at(self._descriptor, self._path)

    def release(self) -> None:
        # We join the thread first, because the number of a closed descriptor may soon be another file's.
        self._ended.set()
        self._renewer.join()
        # We remove the file while it is locked. A process that has it open notices that it has lost its name.
        if self.still_mine():
            self._path.unlink(missing_ok=True)
        os.close(self._descriptor)

    def _renew(self) -> None:
        while not self._ended.wait(_RENEWED_EVERY):
            with contextlib.suppress(OSError):
                os.utime(self._descriptor)


def _named_in(descriptor: int) -> dict[str, Any] | None:
    """Return the holder that a lock file names; `None` if the file is empty or half-written."""
    try:
        named = json.loads(os.pread(descriptor, 4096, 0))
        return named if {"pid", "host", "since", "token"} <= named.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _now_at(folder: Path) -> float:
    """Return the time by the clock of the folder's file system, which sets the modification times of its files."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".now.") as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return time.time()


def _kernel() -> str:
    """Return an identifier of the running kernel, which changes when the host is restarted."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return error.errno == errno.EPERM
    return True
