"""Archives from elsewhere: looked through before anything is written, and written beside their place before they are moved."""

import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from stlight.data.arrays import in_a_line
from stlight.data.clips import DataError
from stlight.runtime.atomic_files import StorageError, explained, make_folder

_CHUNK = 2**20
_MAX_MEMBERS = 2_000_000
_DAMAGE = (OSError, ValueError, zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, RuntimeError)
# Says that all is unpacked and only has to be moved.
_WHOLE = ".whole"


class _Member(NamedTuple):
    name: str
    size: int
    kind: str
    """file, folder, or what is refused."""
    open: Callable[[], IO[bytes] | None]


def unpack(archive: Path, into: Path, keep: Sequence[str], max_bytes: int, *, folders: bool) -> None:
    """Unpack of a .zip or .tar the files named in `keep`, or the `folders`, wherever they lie in it, to `into`/<that name>.

    Nothing is unpacked from an archive with a member that leads out of it, is a link or a device, or that holds more than
    `max_bytes`. What was at such a place before is kept, and is an error.
    Raises `DataError`, naming the archive, and `StorageError` where it cannot be written.
    """
    for name in keep:
        if (into / name).exists():
            raise DataError(f"{into / name} is there already: move it away to unpack {archive.name}")
    beside = _beside(archive, into)
    shutil.rmtree(beside, ignore_errors=True)
    try:
        with ExitStack() as stack:
            members = list(_members(archive, stack))
            wanted = _wanted(archive, members, keep, max_bytes, folders)
            written = 0
            for path, member in wanted.items():
                target = beside / path
                with explained(target, member.size):
                    make_folder(target.parent)
                written += _write(archive, member, target, max_bytes - written)
        # Hundreds of thousands of files: all at once to the disk, before they get their names.
        os.sync()
        (beside / _WHOLE).touch()
        finish(archive, into, keep)
    except (StorageError, DataError):
        raise
    except _DAMAGE as error:
        raise DataError(f"{archive} is not a whole archive: {in_a_line(error)}") from error
    finally:
        if not (beside / _WHOLE).exists():
            shutil.rmtree(beside, ignore_errors=True)


def finish(archive: Path, into: Path, keep: Sequence[str]) -> bool:
    """Move what is unpacked to its place, also if that was stopped half-way; False if nothing is waiting for it."""
    beside = _beside(archive, into)
    if not (beside / _WHOLE).exists():
        return False
    for name in keep:
        if (beside / name).exists():
            with explained(into / name, 0):
                (beside / name).rename(into / name)
    shutil.rmtree(beside, ignore_errors=True)
    return True


def _beside(archive: Path, into: Path) -> Path:
    return into / f".{archive.name}.unpacking"


def _members(archive: Path, stack: ExitStack) -> Iterator[_Member]:
    if zipfile.is_zipfile(archive):
        zipped = stack.enter_context(zipfile.ZipFile(archive))
        for info in zipped.infolist():
            mode = stat.S_IFMT(info.external_attr >> 16)
            usual = {0: "file", stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "a link"}
            kind = "folder" if info.is_dir() else usual.get(mode, "a device")
            yield _Member(info.filename, info.file_size, kind, lambda info=info: zipped.open(info))  # type: ignore[misc]
    elif tarfile.is_tarfile(archive):
        tarred = stack.enter_context(tarfile.open(archive))  # noqa: SIM115 - the stack closes it
        for entry in tarred:
            special = "a link" if entry.issym() or entry.islnk() else "a device"
            kind = "file" if entry.isreg() else "folder" if entry.isdir() else special
            yield _Member(entry.name, entry.size, kind, lambda entry=entry: tarred.extractfile(entry))  # type: ignore[misc]
    else:
        raise DataError(f"{archive} is neither a .zip nor a .tar archive")


def _wanted(
    archive: Path, members: list[_Member], keep: Sequence[str], max_bytes: int, folders: bool
) -> dict[PurePosixPath, _Member]:
    """The files to write, by their place under `into`. Raises `DataError` for an archive that is not to be trusted."""
    if len(members) > _MAX_MEMBERS:
        raise DataError(f"{archive} holds {len(members)} members, more than {_MAX_MEMBERS} are not unpacked")
    wanted: dict[PurePosixPath, _Member] = {}
    for member in members:
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts or "\\" in member.name or ":" in member.name or "\0" in member.name:
            raise DataError(f"{archive} holds {member.name!r}, which leads out of it: nothing was unpacked")
        if member.kind not in ("file", "folder"):
            raise DataError(f"{archive} holds {member.name!r}, {member.kind}: nothing was unpacked")
        # A wanted folder has files in it, a wanted file lies in whatever folder.
        parts = path.parts[:-1] if folders else path.parts[-1:]
        first = next((path.parts.index(part) for part in parts if part in keep), None)
        if member.kind == "file" and first is not None and "__MACOSX" not in path.parts:
            place = PurePosixPath(*path.parts[first:])
            if place in wanted:
                raise DataError(f"{archive} holds {place} twice: nothing was unpacked")
            wanted[place] = member
    total = sum(member.size for member in wanted.values())
    if total > max_bytes:
        raise DataError(f"{archive} holds {total / 1e6:.0f} MB, expected at most {max_bytes / 1e6:.0f}: nothing was unpacked")
    if missing := [name for name in keep if not any(path.parts[0] == name for path in wanted)]:
        raise DataError(f"{archive} lacks {missing[0]}: nothing was unpacked")
    free = shutil.disk_usage(archive.parent).free
    if total > free:
        words = f"{total / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free"
        raise StorageError(f"{archive.parent} has no room for what {archive.name} holds: {words}")
    return wanted


def _write(archive: Path, member: _Member, target: Path, at_most: int) -> int:
    """Write a member's content, however much it says it is; returns how much it was."""
    written = 0
    with explained(target, member.size):
        file = target.open("xb")
    source = member.open()
    assert source
    with source, file:
        while chunk := source.read(_CHUNK):
            written += len(chunk)
            if written > min(at_most, member.size):
                raise DataError(f"{archive}: {member.name!r} holds more than it states: nothing was unpacked")
            with explained(target, member.size):
                file.write(chunk)
    return written
