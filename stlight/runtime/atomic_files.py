"""Files that are there whole or not at all, also after a crash, a full disk or a power cut."""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

_PARTIAL = ".partial"


class StorageError(OSError):
    """A file that could not be written; the message, one line, says which, and that what was there before is kept."""


def write_atomically(path: Path, *content: str | bytes) -> None:
    """Write a file's content, one piece after the other, so that the file is there whole or as it was before.

    Raises `StorageError` where the disk is full, the quota spent or the device failing; nothing half-written is left.
    """
    pieces = [piece.encode() if isinstance(piece, str) else piece for piece in content]
    with replacing(path, sum(map(len, pieces))) as write:
        for piece in pieces:
            write(piece)


@contextlib.contextmanager
def replacing(path: Path, size: int) -> Iterator[Callable[[bytes | memoryview], None]]:
    """The same for content that is too much to hold: gives what writes a piece; the file is there when the block has ended.

    `size` in bytes is what is said to be needed where there is no room.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}{_PARTIAL}")
    try:
        with explained(path, size):
            make_folder(path.parent)
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)

        def write(piece: bytes | memoryview) -> None:
            with explained(path, size):
                rest = memoryview(piece).cast("B")
                while rest:
                    rest = rest[os.write(descriptor, rest) :]

        try:
            yield write
            with explained(path, size):
                # The content must be on the disk before the name is, or a power cut leaves an empty file of that name.
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        with explained(path, size):
            partial.replace(path)
            sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


@contextlib.contextmanager
def explained(path: Path, size: int) -> Iterator[None]:
    """What goes wrong with the writing of a file, as a `StorageError`."""
    try:
        yield
    except OSError as error:
        raise StorageError(_explain(path, size, error)) from error


def note(root: Path, names: Iterable[str]) -> dict[str, list[int]]:
    """Size and time of change of files or folders under a root: what `has_changed` compares."""
    return {name: [(facts := (root / name).stat()).st_size, facts.st_mtime_ns] for name in names}


def has_changed(marker: Path, root: Path) -> bool:
    """Whether a JSON file whose "noted" is what `note` gave is there, and something that is still there is not as it says."""
    try:
        noted = json.loads(marker.read_text())["noted"]
        there = {name: facts for name, facts in noted.items() if (root / name).exists()}
        return bool(there != note(root, there))
    except FileNotFoundError:
        return False
    except (ValueError, TypeError, KeyError, AttributeError):
        return True


def remove_partials(folder: Path) -> None:
    """Remove what writers that were killed have left; only for who knows that no other is writing there."""
    for path in folder.glob(f".*{_PARTIAL}"):
        path.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make a folder with its parents, each brought to the disk, or a power cut would take them with all that is in them."""
    missing = [parent for parent in (folder, *folder.parents) if not parent.is_dir()]
    for parent in reversed(missing):
        parent.mkdir(exist_ok=True)
        sync_folder(parent.parent)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
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
