"""Unpack untrusted archives: nothing is written outside the target, and the target appears complete or not at all."""

import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from stlight.data.arrays import one_line
from stlight.data.clips import DataError
from stlight.runtime.atomic_files import StorageError, make_folder, storage_errors, sync_folder

_DAMAGE = (ValueError, zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, RuntimeError)


def unpack(archive: Path, target: Path, members: Sequence[str], max_bytes: int) -> None:
    """Unpack a .zip or .tar to `target`: a file of that name, or a folder that holds the folders named in `members`.

    The members may lie in any folder of the archive. An interrupted call leaves a hidden folder, which the next call removes.
    Raises `DataError` naming an archive that is damaged, lacks a member, or holds more than `max_bytes`, a link, a device or a
    path that leads outside, and `StorageError` if the disk is full or fails.
    """
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise DataError(f"{target} already exists: move it away to unpack {archive.name}")
    staging = target.with_name(f".{archive.name}.unpacking")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        with storage_errors(staging, max_bytes):
            make_folder(staging / "wanted")
        with _open(archive) as opened:
            _check(archive, opened, max_bytes)
            # Neither writes more of a file than the size that was checked, whatever the archive holds.
            if isinstance(opened, zipfile.ZipFile):
                opened.extractall(staging / "all")
            else:
                opened.extractall(staging / "all", filter="data")
        is_file = target.name in members
        for name in members:
            candidates = (staging / "all").rglob(name)
            found = [path for path in candidates if path.is_file() == is_file and "__MACOSX" not in path.parts]
            if len(found) != 1:
                raise DataError(f"{archive} {'holds several' if found else 'lacks'} {name}: nothing was unpacked")
            found[0].rename(staging / "wanted" / name)
        # One sync instead of hundreds of thousands of fsyncs. Must come before the rename, which makes the files visible.
        os.sync()
        (staging / "wanted" / target.name if is_file else staging / "wanted").rename(target)
        sync_folder(target.parent)
    except (StorageError, DataError):
        raise
    except OSError as error:
        # Decompressors raise it for damaged content, too, but without a number.
        if error.errno is None:
            raise DataError(f"{archive} is not a complete archive: {one_line(error)}") from error
        with storage_errors(target, max_bytes):
            raise
    except _DAMAGE as error:
        raise DataError(f"{archive} is not a complete archive: {one_line(error)}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _open(archive: Path) -> zipfile.ZipFile | tarfile.TarFile:
    if zipfile.is_zipfile(archive):
        return zipfile.ZipFile(archive)
    if tarfile.is_tarfile(archive):
        return tarfile.open(archive)
    raise DataError(f"{archive} is neither a .zip nor a .tar archive")


def _check(archive: Path, opened: zipfile.ZipFile | tarfile.TarFile, max_bytes: int) -> None:
    """Refuse what the standard library would extract with other names, as links, or with more bytes than stated."""
    if isinstance(opened, zipfile.ZipFile):
        files = [(info.filename, info.file_size, stat.S_ISLNK(info.external_attr >> 16)) for info in opened.infolist()]
    else:
        files = [(m.name, m.size, m.issparse() or not (m.isreg() or m.isdir())) for m in opened]
    for name, _, special in files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise DataError(f"{archive} holds {name!r}, which leads out of it: nothing was unpacked")
        if special:
            raise DataError(f"{archive} holds {name!r}, a link, a device or a sparse file: nothing was unpacked")
    total = sum(size for _, size, _ in files)
    if total > max_bytes:
        raise DataError(f"{archive} holds {total / 1e6:.0f} MB, expected at most {max_bytes / 1e6:.0f}: nothing was unpacked")
