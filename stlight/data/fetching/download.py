"""Files over HTTP: from the first of several addresses that has the right one, going on where a transfer was cut off."""

import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3.exceptions import HTTPError, NewConnectionError, ReadTimeoutError
from urllib3.util import Retry

from stlight.data.clips import DataError
from stlight.runtime.atomic_files import StorageError, explained, make_folder, sync_folder

# Seconds to connect, and to wait for the next bytes.
_TIMEOUT = (3.0, 30.0)
_CHUNK = 2**16
# Bytes a second below which a transfer is given up, and the seconds that it must be so.
_SLOWEST, _SLOW_FOR = 1000.0, 30.0
# Transfers in a row that are cut off before they bring anything, after which an address is given up.
_FRUITLESS = 3
# Requests more that an error of the server's own is worth.
_AGAIN = 2
_PAUSE = 0.5


class Unavailable(Exception):  # noqa: N818 - says what is
    """An address that does not give the file; the message says why."""


def download(
    urls: Sequence[str], target: Path, *, check: Callable[[Path], None], resumable: bool, at_most: int, hopeless: set[str]
) -> str:
    """Bring a file to `target`, whole and checked, or not at all; returns the address it came from.

    `check` raises `DataError` for a file that is not the right one. What a cut-off transfer has brought stays beside the target
    and is gone on from, in this call or a later one: from any address if `resumable`, which takes a checksum to be safe, else
    from the same one as long as it vouches for the file being the same. More than `at_most` bytes are not taken.
    Hosts that cannot be reached are added to `hopeless`, and not tried again.
    Raises `DataError` with what each address answered, `StorageError` where the disk has no room.
    """
    make_folder(target.parent)
    part = target.with_name(f"{target.name}.part")
    answers = []
    with requests.Session() as session:
        # A server may ask for an hour, and there may be another one.
        again = Retry(
            total=_AGAIN,
            connect=0,
            read=0,
            status_forcelist=(429, 500, 502, 503, 504),
            backoff_factor=_PAUSE,
            respect_retry_after_header=False,
        )
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=again))
        for url in urls:
            host = urlsplit(url).netloc
            try:
                if host in hopeless:
                    raise Unavailable("not reached")
                _transfer(session, url, part, resumable=resumable, at_most=at_most)
                check(part)
            except Unavailable as error:
                answers.append(f"{host}: {error}")
            except requests.exceptions.ConnectionError:
                hopeless.add(host)
                answers.append(f"{host}: not reached")
            except requests.exceptions.RequestException as error:
                answers.append(f"{host}: {_in_words(error)}")
            except DataError as error:
                # Of no use to go on from.
                _forget(part)
                answers.append(f"{host}: {error}")
            else:
                with explained(target, 0):
                    part.replace(target)
                    sync_folder(target.parent)
                _forget(part)
                return url
    raise DataError(f"{target} could not be fetched ({'; '.join(dict.fromkeys(answers))})")


def _transfer(session: requests.Session, url: str, part: Path, *, resumable: bool, at_most: int) -> None:
    """Bring the whole of an address to `part`, with as many requests as it takes."""
    fruitless = 0
    while True:
        before = _size(part)
        try:
            _request(session, url, part, resumable=resumable, at_most=at_most)
            return
        except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ConnectionError) as error:
            if _never_connected(error):
                raise
            if isinstance(_reason(error), ReadTimeoutError):
                raise Unavailable("does not answer") from error
            fruitless = 0 if _size(part) > before else fruitless + 1
            if fruitless == _FRUITLESS:
                raise Unavailable(f"cut off after {_size(part)} bytes, again and again") from error
            time.sleep(_PAUSE * fruitless)


def _never_connected(error: requests.exceptions.RequestException) -> bool:
    kinds = (requests.exceptions.ConnectTimeout, requests.exceptions.SSLError, requests.exceptions.ProxyError)
    return isinstance(error, kinds) or isinstance(_reason(error), NewConnectionError)


def _reason(error: requests.exceptions.RequestException) -> object:
    """What kept a request from being answered at all."""
    return getattr(error.args[0], "reason", None) if error.args else None


def _request(session: requests.Session, url: str, part: Path, *, resumable: bool, at_most: int) -> None:
    """One request, for what is not there yet."""
    origin = part.with_name(f"{part.name}.from")
    headers = {"Accept-Encoding": "identity", "User-Agent": "stlight"}
    size = _size(part)
    known = _origin(origin)
    same = known.get("url") == url and known.get("validator")
    if size and (resumable or same):
        headers["Range"] = f"bytes={size}-"
        headers |= {"If-Range": known["validator"]} if same else {}
    else:
        size = 0
    with session.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as answer:
        if size and answer.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            if answer.headers.get("Content-Range") == f"bytes */{size}":
                return
            _forget(part)
            raise requests.exceptions.ChunkedEncodingError("begins anew")
        if answer.status_code not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            raise Unavailable(f"{answer.status_code} {answer.reason}".strip())
        if answer.headers.get("Content-Type", "").startswith("text/html"):
            raise Unavailable("answers with a web page")
        if answer.status_code == HTTPStatus.OK:
            size = 0
        elif not answer.headers.get("Content-Range", "").startswith(f"bytes {size}-"):
            raise Unavailable(f"answers with another part than was asked for: {answer.headers.get('Content-Range')}")
        length = answer.headers.get("Content-Length", "")
        total = size + int(length) if length.isdigit() else None
        if (total or 0) > at_most:
            raise Unavailable(f"offers {total} bytes, expected at most {at_most}")
        _check_room(part, (total or size) - size)
        validator = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        with explained(part, total or at_most):
            origin.write_text(json.dumps({"url": url, "validator": "" if validator.startswith("W/") else validator}))
            file = part.open("ab" if size else "wb")
        quiet = not sys.stderr.isatty()
        with file, tqdm(total=total, initial=size, desc=part.stem, unit="B", unit_scale=True, disable=quiet) as bar:
            for chunk in _chunks(answer):
                size += len(chunk)
                if size > at_most:
                    raise Unavailable(f"sends more than the {at_most} bytes that are expected at most")
                with explained(part, total or at_most):
                    file.write(chunk)
                bar.update(len(chunk))
            with explained(part, total or at_most):
                file.flush()
                os.fsync(file.fileno())
        if total is not None and size != total:
            raise requests.exceptions.ChunkedEncodingError(f"{size} of {total} bytes")


def _chunks(answer: requests.Response) -> Iterator[bytes]:
    """The bytes as they come and as they are, whatever encoding the server says they have. A trickle is no transfer."""
    begun, received = time.monotonic(), 0
    try:
        while chunk := answer.raw.read1(_CHUNK, decode_content=False):
            yield chunk
            received += len(chunk)
            if (passed := time.monotonic() - begun) > _SLOW_FOR:
                if received < _SLOWEST * passed:
                    raise Unavailable(f"sends less than {_SLOWEST / 1000:g} kB a second")
                begun, received = time.monotonic(), 0
    except HTTPError as error:
        raise requests.exceptions.ChunkedEncodingError(error) from error


def _check_room(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise StorageError(f"{part.parent} has no room: {needed / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free")


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _origin(origin: Path) -> dict[str, str]:
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads(origin.read_text()))
    return {}


def _forget(part: Path) -> None:
    for path in (part, part.with_name(f"{part.name}.from")):
        path.unlink(missing_ok=True)


def _in_words(error: requests.exceptions.RequestException) -> str:
    if isinstance(error, requests.exceptions.TooManyRedirects):
        return "redirects in a circle"
    if isinstance(error, requests.exceptions.RetryError):
        return "answers with errors of its own (5xx)"
    return type(error).__name__
