import socket

import pytest
from urllib3.exceptions import ReadTimeoutError
from urllib3.response import HTTPResponse

from stlight.data.clips import DataError
from stlight.data.fetching import download as module
from stlight.data.fetching.download import download
from stlight.runtime.atomic_files import StorageError

CONTENT = bytes(range(256)) * 5000


@pytest.fixture(autouse=True)
def in_small_pieces(monkeypatch):
    """Give a transfer of a megabyte many pieces, and shorten the pauses."""
    monkeypatch.setattr(module, "_CHUNK", 2**14)
    monkeypatch.setattr(module, "_PAUSE", 0.01)
    monkeypatch.setattr(module, "_RETRY", module._RETRY.new(backoff_factor=0.01))


def check(path):
    if path.read_bytes() != CONTENT:
        raise DataError(f"gives {path.stat().st_size} other bytes")


def bring(site, target, *paths, resumable=True, unreachable=None, max_bytes=2_000_000):
    urls = [path if "://" in path else site.url + path for path in paths]
    unreachable = set() if unreachable is None else unreachable
    return download(urls, target, check=check, resumable=resumable, max_bytes=max_bytes, unreachable=unreachable)


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_downloaded_completely(site, tmp_path):
    site.files["/a"] = CONTENT
    assert bring(site, tmp_path / "sub" / "file", "/a") == f"{site.url}/a"
    assert (tmp_path / "sub" / "file").read_bytes() == CONTENT
    assert left(tmp_path / "sub") == ["file"]


@pytest.mark.parametrize("status", [403, 404, 410])
def test_the_next_address_is_tried_at_once_when_one_refuses(site, tmp_path, status):
    site.files["/b"] = CONTENT
    site.status["/a"] = status
    assert bring(site, tmp_path / "file", "/a", "/b").endswith("/b")
    assert [path for path, _ in site.asked] == ["/a", "/b"]


def test_a_request_is_repeated_after_a_server_error_before_the_next_address(site, tmp_path):
    site.files |= {"/a": CONTENT, "/b": CONTENT}
    site.status["/a"] = [500, 503]
    assert bring(site, tmp_path / "file", "/a").endswith("/a")
    site.status["/a"] = 500
    assert bring(site, tmp_path / "other", "/a", "/b").endswith("/b")


def test_redirects_are_followed_but_not_endlessly(site, tmp_path):
    site.files["/a"] = CONTENT
    site.redirects |= {"/moved": "/further", "/further": "/a", "/x": "/y", "/y": "/x"}
    bring(site, tmp_path / "file", "/moved")
    with pytest.raises(DataError, match="Exceeded 30 redirects"):
        bring(site, tmp_path / "other", "/x")


def test_an_interrupted_transfer_is_resumed(site, tmp_path):
    site.files["/a"] = CONTENT
    site.cuts["/a"] = [300_000, 0, 300_000, 300_000]
    bring(site, tmp_path / "file", "/a")
    assert (tmp_path / "file").read_bytes() == CONTENT
    begins = [int(wanted[6:-1]) for _, wanted in site.asked if wanted]
    assert begins == sorted(begins)
    assert len(begins) == 4
    assert begins[-1] > 800_000


def test_another_address_resumes_what_one_cannot_finish(site, tmp_path):
    site.files |= {"/a": CONTENT, "/b": CONTENT}
    site.cuts["/a"] = [300_000, 0, 0, 0]
    assert bring(site, tmp_path / "file", "/a", "/b").endswith("/b")
    path, wanted = site.asked[-1]
    assert (path, int(wanted[6:-1]) > 250_000) == ("/b", True)
    assert left(tmp_path) == ["file"]


def test_a_later_call_resumes_an_earlier_one(site, tmp_path):
    site.files["/a"] = CONTENT
    site.cuts["/a"] = [300_000, 0, 0, 0]
    with pytest.raises(DataError, match="interrupted after [0-9]+ bytes, 3 times in a row"):
        bring(site, tmp_path / "file", "/a", resumable=False)
    part = (tmp_path / "file.part").stat().st_size
    site.asked = []
    bring(site, tmp_path / "file", "/a", resumable=False)
    assert site.asked == [("/a", f"bytes={part}-")]
    assert part > 250_000


@pytest.mark.parametrize("case", ["changed", "weak", "elsewhere", "unknown"])
def test_without_a_checksum_only_the_unchanged_file_is_resumed(site, tmp_path, case):
    """A strong entity tag proves that the file is unchanged; otherwise the transfer starts again."""
    site.files |= {"/a": b"x" * 700_000, "/b": CONTENT}
    site.cuts["/a"] = [300_000, 0, 0, 0]
    site.etag = 'W/"1"' if case == "weak" else '"1"'
    if case == "unknown":
        site.cuts = {}
        (tmp_path / "file.part").write_bytes(b"x" * 300_000)
    else:
        with pytest.raises(DataError, match="interrupted"):
            bring(site, tmp_path / "file", "/a", resumable=False)
    site.files["/a"] = CONTENT
    site.etag = '"2"' if case == "changed" else site.etag
    bring(site, tmp_path / "file", "/b" if case == "elsewhere" else "/a", resumable=False)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_wrong_bytes_are_discarded_and_the_next_address_tried(site, tmp_path):
    site.files |= {"/a": b"x" + CONTENT[1:], "/b": CONTENT}
    assert bring(site, tmp_path / "file", "/a", "/b").endswith("/b")
    site.asked = []
    with pytest.raises(DataError, match=r"other could not be fetched \(127\.0\.0\.1:[0-9]+: gives 1280000 other bytes\)"):
        bring(site, tmp_path / "other", "/a")
    assert left(tmp_path) == ["file"]


def test_a_part_that_is_complete_or_too_long_is_handled(site, tmp_path):
    site.files["/a"] = CONTENT
    (tmp_path / "file.part").write_bytes(CONTENT)
    bring(site, tmp_path / "file", "/a")
    (tmp_path / "other.part").write_bytes(CONTENT + b"more")
    bring(site, tmp_path / "other", "/a")
    assert (tmp_path / "other").read_bytes() == CONTENT


def test_a_server_without_ranges_sends_everything_again(site, tmp_path):
    site.files["/a"], site.ranges = CONTENT, False
    site.cuts["/a"] = [300_000]
    bring(site, tmp_path / "file", "/a")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_transfer_that_falls_silent_is_resumed(site, tmp_path, monkeypatch):
    read, calls = HTTPResponse.read1, []

    def silent_once(answer, *arguments, **options):
        calls.append(answer)
        if len(calls) == 20:
            raise ReadTimeoutError(None, None, "Read timed out.")
        return read(answer, *arguments, **options)

    monkeypatch.setattr(HTTPResponse, "read1", silent_once)
    site.files["/a"] = CONTENT
    bring(site, tmp_path / "file", "/a")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert [wanted is None for _, wanted in site.asked] == [True, False]


def test_a_server_that_never_answers_is_abandoned(site, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_TIMEOUT", (30, 0.1))
    site.mute.add("/mute")
    with pytest.raises(DataError, match="cannot be reached"):
        bring(site, tmp_path / "file", "/mute")


def test_a_download_that_is_too_large_is_refused(site, tmp_path):
    site.files["/a"] = CONTENT
    with pytest.raises(DataError, match="offers 1280000 bytes, expected at most 1000000"):
        bring(site, tmp_path / "file", "/a", max_bytes=1_000_000)


def test_a_content_encoding_is_not_decoded(site, tmp_path):
    site.files["/a"], site.encoding = CONTENT, "gzip"
    bring(site, tmp_path / "file", "/a")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_web_page_instead_of_the_file_is_refused(site, tmp_path):
    site.files["/a"], site.content_type = b"<html>Sign in</html>", "text/html; charset=utf-8"
    with pytest.raises(DataError, match="answers with a web page"):
        bring(site, tmp_path / "file", "/a")


def test_an_unreachable_host_is_asked_once(site, tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}"
        unreachable = set()
        with pytest.raises(DataError, match="cannot be reached"):
            bring(site, tmp_path / "file", f"{nobody}/a", "http://no-such-host.invalid/a", unreachable=unreachable)
        assert unreachable == {nobody.removeprefix("http://"), "no-such-host.invalid"}
    site.files["/a"] = CONTENT
    with pytest.raises(DataError, match="cannot be reached"):
        bring(site, tmp_path / "file", "/a", unreachable={site.url.removeprefix("http://")})
    assert site.asked == []


def test_a_full_disk_is_reported_before_the_transfer(site, tmp_path, monkeypatch):
    site.files["/a"] = CONTENT
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1_000_000})())
    with pytest.raises(StorageError, match="is full: 1 MB are needed, 1 MB are free"):
        bring(site, tmp_path / "file", "/a")
    assert left(tmp_path) == []
