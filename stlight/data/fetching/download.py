"""Download a file from the first of several addresses that has the right one, and resume interrupted transfers."""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from stlight.data.clips import DataError
from stlight.runtime.atomic_files import StorageError, make_folder, storage_errors, sync_folder

# Seconds to connect, and to wait for the next bytes.
_TIMEOUT = (3.0, 30.0)
_CHUNK = 2**16
# Give up an address after so many transfers in a row that brought nothing.
_MAX_FRUITLESS = 3
_PAUSE = 0.5
# Repeat a request if the server fails. Ignore Retry-After, which may ask for an hour, because other addresses may work.
_RETRY = Retry(
    total=2, connect=0, read=1, status_forcelist=(429, 500, 502, 503, 504), backoff_factor=0.5, respect_retry_after_header=False
)


class _UnusableAnswer(Exception):  # noqa: N818
    """The answer of an address is not the file; the message says why."""


class _Interrupted(Exception):  # noqa: N818
    """A transfer ended before all bytes were there."""


def download(
    urls: Sequence[str], target: Path, *, check: Callable[[Path], None], resumable: bool, max_bytes: int, unreachable: set[str]
) -> str:
    """Download a file to `target`, complete and checked, or not at all. Returns the address it came from.

    The bytes of an interrupted transfer stay beside the target, and this or a later call resumes them: from any address if
    `resumable`, which is safe only with a checksum, otherwise from the same address if its entity tag has not changed.
    `check` raises `DataError` for a wrong file. Hosts in `unreachable` are skipped; hosts that do not answer are added.
    Raises `DataError` with the answer of each address, and `StorageError` if the disk is full or fails.
    """
    make_folder(target.parent)
    part = target.with_name(f"{target.name}.part")
    answers: dict[str, None] = {}
    with requests.Session() as session:
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=_RETRY))
        for url in urls:
            host = urlsplit(url).netloc
            try:
                if host in unreachable:
                    raise _UnusableAnswer("cannot be reached")
                _transfer(session, url, part, resumable=resumable, max_bytes=max_bytes)
                check(part)
            except (requests.exceptions.ConnectionError, requests.exceptions.Timeout) as error:
                unreachable.add(host)
                answers[f"{host}: cannot be reached ({type(error).__name__})"] = None
            except (_UnusableAnswer, requests.exceptions.RequestException) as error:
                answers[f"{host}: {error}"] = None
            except DataError as error:
                _discard(part)
                answers[f"{host}: {error}"] = None
            else:
                with storage_errors(target, 0):
                    part.replace(target)
                    sync_folder(target.parent)
                _discard(part)
                return url
    raise DataError(f"{target} could not be fetched ({'; '.join(answers)})")


def _transfer(session: requests.Session, url: str, part: Path, *, resumable: bool, max_bytes: int) -> None:
    """Bring the complete content of an address to `part`, with as many requests as it takes."""
    fruitless = 0
    while True:
        before = _size(part)
        try:
            _request(session, url, part, resumable=resumable, max_bytes=max_bytes)
            return
        except _Interrupted as error:
            fruitless = 0 if _size(part) > before else fruitless + 1
            if fruitless == _MAX_FRUITLESS:
                raise _UnusableAnswer(f"interrupted after {_size(part)} bytes, {_MAX_FRUITLESS} times in a row") from error
            time.sleep(_PAUSE * fruitless)


def _request(session: requests.Session, url: str, part: Path, *, resumable: bool, max_bytes: int) -> None:
    """Request the bytes that are missing once, and append them to `part`."""
    origin = _origin(part)
    try:
        known = json.loads(origin.read_text())
    except (OSError, ValueError):
        known = {}
    validator = known["validator"] if known.get("url") == url else ""
    size = _size(part)
    # The file itself, not compressed for the transfer.
    headers = {"Accept-Encoding": "identity", "User-Agent": "stlight"}
    if size and (resumable or validator):
        headers["Range"] = f"bytes={size}-"
        headers |= {"If-Range": validator} if validator else {}
    else:
        size = 0
    with session.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as answer:
        received = answer.headers
        if answer.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and size:
            if received.get("Content-Range") == f"bytes */{size}":
                return
            _discard(part)
            raise _Interrupted
        if answer.status_code not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            raise _UnusableAnswer(f"{answer.status_code} {answer.reason}")
        if received.get("Content-Type", "").startswith("text/html"):
            raise _UnusableAnswer("answers with a web page")
        if answer.status_code == HTTPStatus.OK:
            size = 0
        elif not received.get("Content-Range", "").startswith(f"bytes {size}-"):
            raise _UnusableAnswer(f"answers with another range than requested: {received.get('Content-Range')}")
        length = received.get("Content-Length", "")
        total = size + int(length) if length.isdigit() else None
        if (total or 0) > max_bytes:
            raise _UnusableAnswer(f"offers {total} bytes, expected at most {max_bytes}")
        free = shutil.disk_usage(part.parent).free
        if (needed := (total or size) - size) > free:
            raise StorageError(f"{part.parent} is full: {needed / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free")
        tag = received.get("ETag") or received.get("Last-Modified") or ""
        with storage_errors(part, total or max_bytes):
            # A weak tag does not promise equal bytes.
            origin.write_text(json.dumps({"url": url, "validator": "" if tag.startswith("W/") else tag}))
            _append(answer, part, size, total, max_bytes)


def _append(answer: requests.Response, part: Path, size: int, total: int | None, max_bytes: int) -> None:
    """Append the body of an answer to the first `size` bytes of `part`. The bytes are kept if the transfer breaks off."""
    quiet = not sys.stderr.isatty()
    with (
        part.open("ab" if size else "wb") as file,
        tqdm(total=total, initial=size, desc=part.stem, unit="B", unit_scale=True, disable=quiet) as bar,
    ):
        try:
            # Servers may label the file itself as encoded: never decode it.
            while chunk := answer.raw.read1(_CHUNK, decode_content=False):
                size += len(chunk)
                if size > max_bytes:
                    raise _UnusableAnswer(f"sends more than {max_bytes} bytes, the most expected")
                file.write(chunk)
                bar.update(len(chunk))
        except HTTPError as error:
            raise _Interrupted from error
        file.flush()
        os.fsync(file.fileno())
    if total is not None and size != total:
        raise _Interrupted


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _origin(part: Path) -> Path:
    """Return the path of the file that holds the address and entity tag of `part`."""
    return part.with_name(f"{part.name}.from")


def _discard(part: Path) -> None:
    for path in (part, _origin(part)):
        path.unlink(missing_ok=True)
