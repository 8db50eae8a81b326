"""Unpack untrusted archives: nothing is written outside the target, and the target appears complete or not at all."""

import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from stlight.data.clips import DataError, reading
from stlight.runtime.atomic_files import make_folder, storage_errors, sync_folder


def unpack(archive: Path, target: Path, members: Sequence[str], max_bytes: int, check: Callable[[Path], None]) -> None:
    """Unpack a .zip or .tar to `target`: a folder that holds the folders named in `members`, or without members a file.

    The members may lie in any folder of the archive. An interrupted call leaves a hidden folder, which the next call removes.
    `check` raises `DataError` for wrong content, before the target appears.
    Raises `DataError` naming an archive that is damaged, lacks a member, or holds more than `max_bytes`, and `StorageError` if
    the disk is full or fails.
    """
    staging = target.with_name(f".{archive.name}.unpacking")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        with reading(archive, "a complete .zip or .tar archive"), storage_errors(target, max_bytes):
            make_folder(staging / "wanted")
            _extract(archive, staging / "all", max_bytes)
            for name in members or [target.name]:
                candidates = (staging / "all").rglob(name)
                found = [path for path in candidates if path.is_dir() == bool(members) and "__MACOSX" not in path.parts]
                if len(found) != 1:
                    raise DataError(f"{archive} {'holds several' if found else 'lacks'} {name}: nothing was unpacked")
                found[0].rename(staging / "wanted" / name)
            unpacked = staging / "wanted" if members else staging / "wanted" / target.name
            check(unpacked)
            # One sync instead of hundreds of thousands of fsyncs. Must come before the rename, which makes the files visible.
            os.sync()
            unpacked.rename(target)
            sync_folder(target.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _extract(archive: Path, folder: Path, max_bytes: int) -> None:
    """Extract all entries. The standard library keeps every path and link within the folder."""
    with zipfile.ZipFile(archive) if zipfile.is_zipfile(archive) else tarfile.open(archive) as opened:
        extract: Callable[[Path], None]
        if isinstance(opened, zipfile.ZipFile):
            extract, sizes = opened.extractall, [entry.file_size for entry in opened.infolist()]
        else:
            extract, sizes = partial(opened.extractall, filter="data"), [entry.size for entry in opened]
        if sum(sizes) > max_bytes:
            raise DataError(
                f"{archive} holds {sum(sizes) / 1e6:.0f} MB, expected at most {max_bytes / 1e6:.0f}: nothing was unpacked"
            )
        extract(folder)
