"""Write files atomically: after a crash, a full disk or a power cut, a file has its old content or its new one."""

import contextlib
import errno
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

_PARTIAL = ".partial"


class StorageError(OSError):
    """A file could not be written; the message, one line, names it. Its previous content is kept."""


def write_atomically(path: Path, *pieces: str | bytes) -> None:
    """Write the pieces to a temporary file, fsync it, and rename it to `path`. Raises `StorageError`."""
    content = [piece.encode() if isinstance(piece, str) else piece for piece in pieces]
    with atomic_writer(path, sum(map(len, content))) as write:
        for piece in content:
            write(piece)


@contextlib.contextmanager
def atomic_writer(path: Path, size: int) -> Iterator[Callable[[bytes | memoryview], None]]:
    """Stream content of `size` bytes into a file atomically. Yields `write(chunk)`. Raises `StorageError`."""
    partial = path.with_name(f".{path.name}.{os.getpid()}{_PARTIAL}")
    try:
        with storage_errors(path, size):
            make_folder(path.parent)
            # Not through a link, with which others who may write to the folder could make us overwrite any file.
            partial.unlink(missing_ok=True)
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)

        def write(chunk: bytes | memoryview) -> None:
            with storage_errors(path, size):
                rest = memoryview(chunk).cast("B")
                while rest:
                    rest = rest[os.write(descriptor, rest) :]

        try:
            yield write
            with storage_errors(path, size):
                # Before the rename, or a power cut could leave an empty file under the final name.
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        with storage_errors(path, size):
            partial.replace(path)
            sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


@contextlib.contextmanager
def storage_errors(path: Path, size: int) -> Iterator[None]:
    """Raise any `OSError` in the block as a `StorageError` about `path`, which needs `size` bytes."""
    try:
        yield
    except OSError as error:
        raise StorageError(_message(path, size, error)) from error


def fingerprint(root: Path, names: Iterable[str]) -> dict[str, list[int]]:
    """Return size in bytes and modification time in nanoseconds of files or folders under `root`, for `has_changed`."""
    return {name: [(facts := (root / name).stat()).st_size, facts.st_mtime_ns] for name in names}


def has_changed(marker: Path, root: Path) -> bool:
    """True if a present file under `root` differs from the fingerprint "noted" in a JSON file, or that file is damaged."""
    try:
        noted = json.loads(marker.read_text())["noted"]
        present = {name: facts for name, facts in noted.items() if (root / name).exists()}
        return bool(present != fingerprint(root, present))
    except FileNotFoundError:
        return False
    except (ValueError, TypeError, KeyError, AttributeError):
        return True


def remove_partials(folder: Path) -> None:
    """Remove the temporary files of killed writers. Only for the one process that writes to the folder."""
    for path in folder.glob(f".*{_PARTIAL}"):
        path.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Create a folder and its parents, and fsync each parent so that a power cut cannot remove them again."""
    missing = [parent for parent in (folder, *folder.parents) if not parent.is_dir()]
    for parent in reversed(missing):
        parent.mkdir(exist_ok=True)
        sync_folder(parent.parent)


def sync_folder(folder: Path) -> None:
    """Fsync a folder, so that names created or renamed in it survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot fsync folders.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _message(path: Path, size: int, error: OSError) -> str:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return f"{path}: cannot be written: {error.strerror or error}; its previous content is kept"
    needed = f"{size / 1e6:.1f} MB are needed"
    return f"{path}: no space left: {needed}; make room and start again, its previous content is kept"
