import json
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


def check(path):
    if path.read_bytes() != CONTENT:
        raise DataError(f"gives {path.stat().st_size} other bytes")


def bring(site, target, *paths):
    return download([path if "://" in path else site.url + path for path in paths], target, check)


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


def test_a_later_call_resumes_an_earlier_one(site, tmp_path):
    site.files["/a"] = CONTENT
    site.cuts["/a"] = [300_000, 0, 0, 0]
    with pytest.raises(DataError, match="interrupted, 3 times in a row, after [0-9]+ bytes"):
        bring(site, tmp_path / "file", "/a")
    part = (tmp_path / "file.part").stat().st_size
    site.asked = []
    bring(site, tmp_path / "file", "/a")
    assert site.asked == [("/a", f"bytes={part}-")]
    assert part > 250_000


@pytest.mark.parametrize("case", ["changed", "weak", "elsewhere", "unknown"])
def test_only_the_unchanged_file_is_resumed(site, tmp_path, case):
    """A strong entity tag proves that the file is unchanged; otherwise the transfer starts again."""
    site.files |= {"/a": b"x" * 700_000, "/b": CONTENT}
    site.cuts["/a"] = [300_000, 0, 0, 0]
    site.etag = 'W/"1"' if case == "weak" else '"1"'
    if case == "unknown":
        site.cuts = {}
        (tmp_path / "file.part").write_bytes(b"x" * 300_000)
    else:
        with pytest.raises(DataError, match="interrupted"):
            bring(site, tmp_path / "file", "/a")
    site.files["/a"] = CONTENT
    site.etag = '"2"' if case == "changed" else site.etag
    bring(site, tmp_path / "file", "/b" if case == "elsewhere" else "/a")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_wrong_bytes_are_discarded_and_the_next_address_tried(site, tmp_path):
    site.files |= {"/a": b"x" + CONTENT[1:], "/b": CONTENT}
    assert bring(site, tmp_path / "file", "/a", "/b").endswith("/b")
    site.asked = []
    with pytest.raises(DataError, match=r"other could not be fetched \(127\.0\.0\.1:[0-9]+: gives 1280000 other bytes\)"):
        bring(site, tmp_path / "other", "/a")
    assert left(tmp_path) == ["file"]


@pytest.mark.parametrize(("content", "asked"), [(CONTENT, 1), (CONTENT + b"more", 2)], ids=["complete", "too long"])
def test_only_a_part_that_is_too_long_is_fetched_again(site, tmp_path, content, asked):
    site.files["/a"] = CONTENT
    (tmp_path / "file.part").write_bytes(content)
    (tmp_path / "file.from").write_text(json.dumps({"url": f"{site.url}/a", "validator": site.etag}))
    bring(site, tmp_path / "file", "/a")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert len(site.asked) == asked


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


def test_a_content_encoding_is_not_decoded(site, tmp_path):
    site.files["/a"], site.encoding = CONTENT, "gzip"
    bring(site, tmp_path / "file", "/a")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_the_next_address_is_tried_when_a_host_is_unreachable(site, tmp_path):
    site.files["/a"] = CONTENT
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(DataError, match="127.*: cannot be reached .*; no-such-host.invalid: cannot be reached"):
            bring(site, tmp_path / "file", f"{nobody}/a", "http://no-such-host.invalid/a")
        assert bring(site, tmp_path / "file", f"{nobody}/a", "/a") == f"{site.url}/a"


def test_a_web_page_is_refused_and_the_next_address_tried(site, tmp_path):
    site.files |= {"/sign-in": CONTENT, "/a": CONTENT}
    site.content_types["/sign-in"] = "Text/HTML; charset=utf-8"
    with pytest.raises(DataError, match="a web page instead of the file"):
        bring(site, tmp_path / "file", "/sign-in")
    assert left(tmp_path) == []
    assert bring(site, tmp_path / "file", "/sign-in", "/a") == f"{site.url}/a"


def test_a_full_disk_is_reported_before_the_transfer(site, tmp_path, monkeypatch):
    site.files["/a"] = CONTENT
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1_000_000})())
    with pytest.raises(StorageError, match="is full: 1 MB are needed, 1 MB are free"):
        bring(site, tmp_path / "file", "/a")
    assert left(tmp_path) == []


def test_a_server_that_sends_without_end_is_left(site, tmp_path):
    site.files = {"/a": bytes(2**16), "/b": b"right"}
    site.endless = {"/a"}
    target = tmp_path / "file"
    assert download([f"{site.url}/a", f"{site.url}/b"], target, None, 10**6) == f"{site.url}/b"
    assert target.read_bytes() == b"right"
    target.unlink()
    with pytest.raises(DataError, match="more than 1 MB, which is too much for this file"):
        download([f"{site.url}/a"], target, None, 10**6)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("stated", "words"), [("3", "not the five bytes"), (str(10**15), "more than 1 MB"), ("-1", "not the five bytes")]
)
def test_a_server_that_states_a_wrong_length_gives_no_file(site, tmp_path, stated, words):
    def check(path):
        if path.read_bytes() != b"right":
            raise DataError("not the five bytes")

    site.files, site.stated_lengths = {"/a": b"wrong", "/b": b"right"}, {"/a": stated}
    target = tmp_path / "file"
    assert download([f"{site.url}/a", f"{site.url}/b"], target, check, 10**6) == f"{site.url}/b"
    with pytest.raises(DataError, match=words):
        download([f"{site.url}/a"], tmp_path / "other", check, 10**6)
    assert target.read_bytes() == b"right"
