"""Let one process at a time train a run, among all processes and hosts that share its folder.

There are two layers. The first is a POSIX record lock, which the kernel frees when its process dies, also on NFS. The second is
for file systems whose locks do not reach other hosts, or that have none: the file names its holder, who renews its modification
time every few seconds. Such a holder counts as alive as long as that time moves.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
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

Holder = dict[str, Any]
"""Content of a lock file: pid, host, since, kernel and token."""

_held: dict[Path, "_Lock"] = {}


class LockLost(RuntimeError):  # noqa: N818 - not every exception is an error
    """Another process took the run over because this one stood still for too long. It must not write any more."""


@contextlib.contextmanager
def hold(folder: Path, on_wait: Callable[[str], None] = print) -> Iterator[None]:
    """Hold the lock of a run's folder inside the block. A process may hold it several times.

    Waits while another holder is alive, and calls `on_wait` once with a message.
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


def living_holder(folder: Path) -> Holder | None:
    """Return the living process that holds a run's lock, if there is one. Needs only the right to read."""
    if lock := _held.get(folder.resolve()):
        return lock.me
    try:
        if not (folder / _NAME).is_file():
            # To open a pipe would wait for ever.
            return None
        # Never in the holder itself, because to close any descriptor of a file frees the process's lock on it.
        with (folder / _NAME).open("rb") as file:
            other, surely_alive = _find_holder(file.fileno(), fcntl.LOCK_SH)
            alive = surely_alive or time.time() - os.fstat(file.fileno()).st_mtime <= _STALE_AFTER
    except OSError:
        return None
    return other if alive else None


class _Lock:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        # Modification time of another holder's lock, and when we first saw it. Clocks of hosts differ, so we use only our own.
        self._last_change = 0.0, 0.0
        self._ended = threading.Event()
        self._renewer = threading.Thread(target=self._renew, name="run-lock", daemon=True)
        self.me: Holder = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
            "kernel": _kernel(),
            "token": uuid.uuid4().hex,
        }

    def take(self) -> Holder | None:
        """Take the lock and return `None`, or return its living holder."""
        if self._path.exists() and not self._path.is_symlink() and not self._path.is_file():
            raise StorageError(f"{self._path}: is no file, as a lock must be: delete it")
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            # Whoever may write to the folder could otherwise make us overwrite any file.
            if self._path.is_symlink():
                raise StorageError(f"{self._path}: is a link, which no lock can be: delete it") from error
            raise StorageError(f"{self._path}: cannot be opened: {error.strerror}") from error
        try:
            other, surely_alive = _find_holder(descriptor, fcntl.LOCK_EX)
            if other and (surely_alive or not self._is_stale(descriptor)):
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

    def still_mine(self) -> bool:
        named = _named_in(self._descriptor)
        return named is not None and named["token"] == self.me["token"] and _is_at(self._descriptor, self._path)

    def release(self) -> None:
        # We join the thread first, because the number of a closed descriptor may soon be another file's.
        self._ended.set()
        self._renewer.join()
        # We remove the file while it is locked. A process that has it open notices that it has lost its name.
        if self.still_mine():
            self._path.unlink(missing_ok=True)
        os.close(self._descriptor)

    def _is_stale(self, descriptor: int) -> bool:
        changed = os.fstat(descriptor).st_mtime
        if changed != self._last_change[0]:
            self._last_change = changed, time.monotonic()
        return time.monotonic() - self._last_change[1] > _STALE_AFTER

    def _renew(self) -> None:
        while not self._ended.wait(_RENEWED_EVERY):
            with contextlib.suppress(OSError):
                os.utime(self._descriptor)


def _find_holder(descriptor: int, kind: int) -> tuple[Holder | None, bool]:
    """Lock an open lock file if possible. Return who may hold it nevertheless, and True if it is certainly alive."""
    kernel_locks = True
    try:
        fcntl.lockf(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return _named_in(descriptor) or {"pid": "?", "host": "?", "since": "?"}, True
        kernel_locks = False
    other = _named_in(descriptor)
    # Our kernel refuses the lock of a living process. If it gave us the lock, a holder of our kernel is dead.
    return (None if other and kernel_locks and other["kernel"] == _kernel() else other), False


def _named_in(descriptor: int) -> Holder | None:
    """Return the holder that a lock file names; `None` if the file is empty or half-written."""
    try:
        named = json.loads(os.pread(descriptor, 4096, 0))
        return named if {"pid", "host", "since", "kernel", "token"} <= named.keys() else None
    except (OSError, ValueError, AttributeError, RecursionError):
        return None


def _is_at(descriptor: int, path: Path) -> bool:
    return path.exists() and os.path.samestat(os.fstat(descriptor), path.stat())


def _kernel() -> str:
    """Return an identifier of the running kernel, which changes when the host is restarted."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()
