"""The right to train a run, held by one process at a time on all the hosts that share its folder.

Two layers. A POSIX record lock, which the kernel frees the moment its process dies, also through NFS. And the holder's name in
the file, whose time of change it renews every few seconds: for file systems whose locks end at the host, a holder on another
host counts as alive as long as that time moves.
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

from stlight.runtime.atomic_files import StorageError, make_folder

_NAME = ".lock"
_RENEWED_EVERY = 10.0
_STALE_AFTER = 60.0
_POLL = 0.5

_held: dict[Path, "_Lock"] = {}


class LockLost(RuntimeError):  # noqa: N818 - says what happened
    """The process stood still for so long that another one took the run over: what it computed since is not written."""


@contextlib.contextmanager
def hold(folder: Path, on_wait: Callable[[str], None] = print) -> Iterator[None]:
    """Hold a run's lock inside; wait for a living holder, of whom `on_wait` is told once. A dead one's is taken over.

    Held a second time by the same process, it is simply held.
    """
    key = folder.resolve()
    if key in _held:
        yield
        return
    make_folder(folder)
    lock = _Lock(key / _NAME)
    told = False
    while other := lock.take():
        if not told:
            on_wait(f"{folder} is held by process {other['pid']} on {other['host']} since {other['since']}: waits for it")
            told = True
        time.sleep(_POLL)
    _held[key] = lock
    try:
        yield
    finally:
        del _held[key]
        lock.release()


def check_held(folder: Path) -> None:
    """Raise `LockLost` if this process's lock has been taken over; to be asked before anything is written."""
    lock = _held.get(folder.resolve())
    if lock and not lock.still_mine():
        raise LockLost(f"{folder}: another process has taken the run over while this one stood still; it stops here")


def living_holder(folder: Path) -> dict[str, Any] | None:
    """Who holds a run's lock (pid, host, since), if a living process does."""
    if lock := _held.get(folder.resolve()):
        return lock.me
    lock = _Lock(folder / _NAME)
    try:
        return lock.take(only_look=True)
    except OSError:
        return None


class _Lock:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        self._seen = 0.0, 0.0
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
        """Take the lock, or give its living holder."""
        # To look at it, reading must be enough.
        flags = os.O_RDONLY if only_look else os.O_RDWR | os.O_CREAT
        try:
            descriptor = os.open(self._path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            if only_look and isinstance(error, FileNotFoundError):
                return None
            raise StorageError(f"{self._path}: cannot be opened: {error.strerror}") from error
        taken = False
        try:
            other = self._judge(descriptor, fcntl.LOCK_SH if only_look else fcntl.LOCK_EX)
            if other or only_look:
                return other
            if not _is_at(descriptor, self._path):
                # Its holder has removed it between our opening and locking it: try again with the new one.
                return self.take()
            try:
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps(self.me).encode(), 0)
            except OSError as error:
                raise StorageError(f"{self._path}: cannot be written: {error.strerror}") from error
            self._descriptor, taken = descriptor, True
        finally:
            if not taken:
                os.close(descriptor)
        self._renewer.start()
        return None

    def _judge(self, descriptor: int, kind: int) -> dict[str, Any] | None:
        """The living holder of an open lock file; otherwise it is now locked by us."""
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
            # Our own kernel would not have given us the lock of a living process.
            return None if kernel_locks or not _alive(int(other["pid"])) else other
        if other["host"] == self.me["host"]:
            # This host has been started again since.
            return None
        # Its time is compared with the file system's own clock, and watched, for that clock may have been set since.
        changed = os.fstat(descriptor).st_mtime
        if changed != self._seen[0]:
            self._seen = changed, time.monotonic()
        stale = _now_at(self._path.parent) - changed > _STALE_AFTER or time.monotonic() - self._seen[1] > _STALE_AFTER
        return None if stale else other

    def still_mine(self) -> bool:
        named = _named_in(self._descriptor)
        return named is not None and named.get("token") == self.me["token"] and _is_at(self._descriptor, self._path)

    def release(self) -> None:
        # Joined, for a closed descriptor's number may soon be another file's.
        self._ended.set()
        self._renewer.join()
        # Removed while it is still locked; whoever has it open sees that it is no longer the file of this name.
        if self.still_mine():
            self._path.unlink(missing_ok=True)
        os.close(self._descriptor)

    def _renew(self) -> None:
        while not self._ended.wait(_RENEWED_EVERY):
            with contextlib.suppress(OSError):
                os.utime(self._descriptor)


def _named_in(descriptor: int) -> dict[str, Any] | None:
    """The holder that a lock file names; none in an empty or half-written one."""
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
    """The time by the clock of the folder's file system, which the times of its files are written by."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".now.") as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return time.time()


def _kernel() -> str:
    """Which running kernel this is: the same host after a restart is another."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
