"""Download files, resume interrupted transfers, and unpack archives."""

import json
import math
import os
import shutil
import stat
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import requests
from tqdm import tqdm
from urllib3.exceptions import HTTPError

from stlight.data.clips import DataError, reading
from stlight.runtime.atomic_files import StorageError, make_folder, storage_errors, sync_folder

# Seconds to connect, and to wait for the next bytes.
_TIMEOUT = (3.0, 30.0)
_CHUNK = 2**16
# The file beside a partial one that holds its address and entity tag.
_ORIGIN = ".from"
# Give up an address after so many attempts in a row that brought nothing.
_MAX_FRUITLESS = 3
_PAUSE = 0.5


class _Interrupted(Exception):  # noqa: N818
    """An attempt ended before all bytes were there; the message says why."""


def download(urls: Sequence[str], target: Path, check: Callable[[Path], object] | None, max_bytes: float = math.inf) -> str:
    """Download a file of up to `max_bytes` to `target`, complete and checked, or not at all. Returns where it came from.

    The bytes of an interrupted transfer stay beside the target. This or a later call resumes them from the same address if its
    entity tag has not changed. `check` raises `DataError` for a wrong file. Raises `DataError` with the answer of each address,
    and `StorageError` if the disk is full or fails.
    """
    make_folder(target.parent)
    part = target.with_name(f"{target.name}.part")
    answers = []
    for url in urls:
        try:
            _transfer(url, part, max_bytes)
            if check:
                check(part)
        except (requests.exceptions.ConnectionError, requests.exceptions.Timeout) as error:
            answers.append(f"{urlsplit(url).netloc}: cannot be reached ({type(error).__name__})")
        except (_Interrupted, requests.exceptions.RequestException, DataError) as error:
            if isinstance(error, DataError):
                _discard(part)
            answers.append(f"{urlsplit(url).netloc}: {error}")
        else:
            with storage_errors(target, 0):
                part.replace(target)
                sync_folder(target.parent)
            _discard(part)
            return url
    raise DataError(f"{target} could not be fetched ({'; '.join(answers)})")


def _transfer(url: str, part: Path, max_bytes: float) -> None:
    """Bring the complete content of an address to `part`, with as many requests as it takes."""
    fruitless = 0
    while True:
        before = _size(part)
        try:
            return _request(url, part, max_bytes)
        except _Interrupted as error:
            fruitless = 0 if _size(part) > before else fruitless + 1
            if fruitless == _MAX_FRUITLESS:
                raise _Interrupted(f"{error}, {_MAX_FRUITLESS} times in a row, after {_size(part)} bytes") from error
            time.sleep(_PAUSE * fruitless)


def _request(url: str, part: Path, max_bytes: float) -> None:
    """Request the bytes that are missing once, and append them to `part`."""
    try:
        known = json.loads(part.with_suffix(_ORIGIN).read_text())
    except (OSError, ValueError):
        known = {}
    size = _size(part) if known.get("url") == url and known["validator"] else 0
    # The file itself, not compressed for the transfer.
    headers = {"Accept-Encoding": "identity", "User-Agent": "stlight"}
    if size:
        headers |= {"Range": f"bytes={size}-", "If-Range": known["validator"]}
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as answer:
        status, received = answer.status_code, answer.headers
        if status == HTTPStatus.OK:
            size = 0
        elif size and received.get("Content-Range") == f"bytes */{size}":
            return  # all bytes are there already
        elif status in (HTTPStatus.PARTIAL_CONTENT, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE):
            if not received.get("Content-Range", "").startswith(f"bytes {size}-"):
                _discard(part)
                raise _Interrupted(f"{status} with another range than requested")
        elif status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS:
            raise _Interrupted(f"{status} {answer.reason}")
        else:
            raise requests.exceptions.HTTPError(f"{status} {answer.reason}")
        if received.get("Content-Type", "").lower().startswith("text/html"):
            raise requests.exceptions.InvalidHeader("a web page instead of the file (a sign-in page?)")
        length = int(received["Content-Length"]) if received.get("Content-Length", "").isdigit() else None
        if size + (length or 0) > max_bytes:
            raise DataError(f"more than {max_bytes / 1e6:.0f} MB, which is too much for this file")
        needed, free = length or 0, shutil.disk_usage(part.parent).free
        if needed > free:
            raise StorageError(f"{part.parent} is full: {needed / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free")
        validator = received.get("ETag") or received.get("Last-Modified") or ""
        with storage_errors(part, needed):
            # A weak tag does not promise equal bytes.
            strong = "" if validator.startswith("W/") else validator
            part.with_suffix(_ORIGIN).write_text(json.dumps({"url": url, "validator": strong}))
            _append(answer, part, size, None if length is None else size + length, max_bytes)


def _append(answer: requests.Response, part: Path, size: int, total: int | None, max_bytes: float) -> None:
    """Append the body of an answer to the first `size` bytes of `part`. The bytes are kept if the transfer breaks off."""
    quiet = not sys.stderr.isatty()
    with (
        part.open("ab" if size else "wb") as file,
        tqdm(total=total, initial=size, desc=part.stem, unit="B", unit_scale=True, disable=quiet) as bar,
    ):
        try:
            # Servers may label the file itself as encoded: never decode it.
            while chunk := answer.raw.read1(_CHUNK, decode_content=False):
                file.write(chunk)
                bar.update(len(chunk))
                if file.tell() > max_bytes:
                    # A server that states no length may send without end.
                    raise DataError(f"more than {max_bytes / 1e6:.0f} MB, which is too much for this file")
        except HTTPError as error:
            raise _Interrupted("interrupted") from error
        file.flush()
        os.fsync(file.fileno())
    if total is not None and _size(part) != total:
        raise _Interrupted("interrupted")


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _discard(part: Path) -> None:
    for path in (part, part.with_suffix(_ORIGIN)):
        path.unlink(missing_ok=True)


def unpack(archive: Path, target: Path, members: Sequence[str], max_bytes: int, check: Callable[[Path], object]) -> None:
    """Unpack an untrusted .zip or .tar to `target`: a folder with the folders named in `members`, or a file.

    Nothing is written outside the target, and it appears complete or not at all.
    The members may lie in any folder of the archive. An interrupted call leaves a hidden folder, which the next call removes.
    `check` raises `DataError` for wrong content, before the target appears.
    Raises `DataError` naming an archive that is damaged, lacks a member, or holds links, devices or more than `max_bytes`, and
    `StorageError` if the disk is full or fails.
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
    """Extract all entries if they are files or folders. The standard library keeps every path within the folder.

    A link within the folder could lead outside after the rename to the target.
    """
    with zipfile.ZipFile(archive) if zipfile.is_zipfile(archive) else tarfile.open(archive) as opened:
        extract: Callable[[Path], None]
        if isinstance(opened, zipfile.ZipFile):
            extract, sizes = opened.extractall, [entry.file_size for entry in opened.infolist()]
            kinds = {entry.filename: stat.S_IFMT(entry.external_attr >> 16) for entry in opened.infolist()}
            special = [name for name, kind in kinds.items() if kind not in (0, stat.S_IFREG, stat.S_IFDIR)]
        else:
            extract, sizes = partial(opened.extractall, filter="data"), [entry.size for entry in opened]
            special = [entry.name for entry in opened if entry.issparse() or not (entry.isreg() or entry.isdir())]
        if special:
            raise DataError(f"{archive} holds {special[0]!r}, a link, device or sparse file: nothing was unpacked")
        if sum(sizes) > max_bytes:
            raise DataError(
                f"{archive} holds {sum(sizes) / 1e6:.0f} MB, expected at most {max_bytes / 1e6:.0f}: nothing was unpacked"
            )
        extract(folder)
