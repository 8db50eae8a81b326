"""Files that are there whole or not at all, also after a crash, a full disk or a power cut."""

import contextlib
import errno
import os
import shutil
from pathlib import Path

_PARTIAL = ".partial"


class StorageError(OSError):
    """A file that could not be written; the message, one line, says which, and that what was there before is kept."""


def write_atomically(path: Path, *content: str | bytes) -> None:
    """Write a file's content, one piece after the other, so that the file is there whole or as it was before.

    Raises `StorageError` where the disk is full, the quota spent or the device failing; nothing half-written is left.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}{_PARTIAL}")
    pieces = [piece.encode() if isinstance(piece, str) else piece for piece in content]
    try:
        make_folder(path.parent)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            for piece in pieces:
                _write(descriptor, piece)
            # The content must be on the disk before the name is, or a power cut leaves an empty file of that name.
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        partial.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise StorageError(_explain(path, sum(map(len, pieces)), error)) from error


def remove_partials(folder: Path) -> None:
    """Remove what writers that were killed have left; only for who knows that no other is writing there."""
    for path in folder.glob(f".*{_PARTIAL}"):
        path.unlink(missing_ok=True)


def _write(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def make_folder(folder: Path) -> None:
    """Make a folder with its parents, each brought to the disk, or a power cut would take them with all that is in them."""
    missing = [parent for parent in (folder, *folder.parents) if not parent.is_dir()]
    for parent in reversed(missing):
        parent.mkdir(exist_ok=True)
        _sync_folder(parent.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems have no such call for folders.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _explain(path: Path, size: int, error: OSError) -> str:
    kept = "what was there before is kept"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        # The folder itself may be what could not be made.
        there = next(parent for parent in path.absolute().parents if parent.is_dir())
        free = f", {shutil.disk_usage(there).free / 1e6:.1f} MB are free" if error.errno == errno.ENOSPC else ""
        return f"{path}: no space left: {size / 1e6:.1f} MB are needed{free}; make room and start again, {kept}"
    return f"{path}: cannot be written: {error.strerror or error}; {kept}"
