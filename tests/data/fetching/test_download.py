import socket
import time

import pytest

from stlight.data.clips import DataError
from stlight.data.fetching import download as module
from stlight.data.fetching.download import download
from stlight.runtime.atomic_files import StorageError

CONTENT = bytes(range(256)) * 5000


@pytest.fixture(autouse=True)
def in_small_pieces(monkeypatch):
    """So that a transfer of a megabyte has several, and pauses cost no time."""
    monkeypatch.setattr(module, "_CHUNK", 2**14)
    monkeypatch.setattr(module, "_PAUSE", 0.01)


def check(path):
    if path.read_bytes() != CONTENT:
        raise DataError(f"gives {path.stat().st_size} other bytes")


def bring(site, target, *paths, resumable=True, hopeless=None, at_most=2_000_000):
    urls = [path if "://" in path else site.url + path for path in paths]
    return download(
        urls, target, check=check, resumable=resumable, at_most=at_most, hopeless=set() if hopeless is None else hopeless
    )


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_brought_whole(site, tmp_path):
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


def test_an_error_of_the_server_is_waited_out_and_then_the_next_address_tried(site, tmp_path):
    site.files |= {"/a": CONTENT, "/b": CONTENT}
    site.status["/a"] = [500, 503]
    assert bring(site, tmp_path / "file", "/a").endswith("/a")
    site.status["/a"] = 500
    assert bring(site, tmp_path / "other", "/a", "/b").endswith("/b")


def test_redirects_are_followed_but_not_in_a_circle(site, tmp_path):
    site.files["/a"] = CONTENT
    site.redirects |= {"/moved": "/further", "/further": "/a", "/x": "/y", "/y": "/x"}
    bring(site, tmp_path / "file", "/moved")
    with pytest.raises(DataError, match="redirects in a circle"):
        bring(site, tmp_path / "other", "/x")


def test_a_transfer_that_is_cut_off_goes_on_where_it_was(site, tmp_path):
    site.files["/a"] = CONTENT
    site.cuts["/a"] = [300_000, 0, 300_000, 300_000]
    bring(site, tmp_path / "file", "/a")
    assert (tmp_path / "file").read_bytes() == CONTENT
    begins = [int(wanted[6:-1]) for _, wanted in site.asked if wanted]
    assert begins == sorted(begins)
    assert len(begins) == 4
    assert begins[-1] > 800_000


def test_what_is_cut_off_for_good_is_gone_on_from_at_another_address(site, tmp_path):
    site.files |= {"/a": CONTENT, "/b": CONTENT}
    site.cuts["/a"] = [300_000, 0, 0, 0]
    assert bring(site, tmp_path / "file", "/a", "/b").endswith("/b")
    path, wanted = site.asked[-1]
    assert (path, int(wanted[6:-1]) > 250_000) == ("/b", True)
    assert left(tmp_path) == ["file"]


def test_a_later_call_goes_on_from_what_an_earlier_one_left(site, tmp_path):
    site.files["/a"] = CONTENT
    site.cuts["/a"] = [300_000, 0, 0, 0]
    with pytest.raises(DataError, match="cut off after [0-9]+ bytes, again and again"):
        bring(site, tmp_path / "file", "/a", resumable=False)
    part = (tmp_path / "file.part").stat().st_size
    site.asked = []
    bring(site, tmp_path / "file", "/a", resumable=False)
    assert site.asked == [("/a", f"bytes={part}-")]
    assert part > 250_000


@pytest.mark.parametrize("case", ["changed", "weak", "elsewhere", "unknown"])
def test_without_a_checksum_only_the_same_file_is_gone_on_from(site, tmp_path, case):
    """A server's strong entity tag vouches for it; anything else is brought from the beginning."""
    site.files |= {"/a": b"x" * 700_000, "/b": CONTENT}
    site.cuts["/a"] = [300_000, 0, 0, 0]
    site.etag = 'W/"1"' if case == "weak" else '"1"'
    if case == "unknown":
        site.cuts = {}
        (tmp_path / "file.part").write_bytes(b"x" * 300_000)
    else:
        with pytest.raises(DataError, match="cut off"):
            bring(site, tmp_path / "file", "/a", resumable=False)
    site.files["/a"] = CONTENT
    site.etag = '"2"' if case == "changed" else site.etag
    bring(site, tmp_path / "file", "/b" if case == "elsewhere" else "/a", resumable=False)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_wrong_bytes_are_thrown_away_and_the_next_address_tried(site, tmp_path):
    site.files |= {"/a": b"x" + CONTENT[1:], "/b": CONTENT}
    assert bring(site, tmp_path / "file", "/a", "/b").endswith("/b")
    site.asked = []
    with pytest.raises(DataError, match=r"other could not be fetched \(127\.0\.0\.1:[0-9]+: gives 1280000 other bytes\)"):
        bring(site, tmp_path / "other", "/a")
    assert left(tmp_path) == ["file"]


def test_what_is_whole_or_too_long_already_is_not_asked_for_in_vain(site, tmp_path):
    site.files["/a"] = CONTENT
    (tmp_path / "file.part").write_bytes(CONTENT)
    bring(site, tmp_path / "file", "/a")
    (tmp_path / "other.part").write_bytes(CONTENT + b"more")
    bring(site, tmp_path / "other", "/a")
    assert (tmp_path / "other").read_bytes() == CONTENT


def test_a_server_without_ranges_sends_all_again(site, tmp_path):
    site.files["/a"], site.ranges = CONTENT, False
    site.cuts["/a"] = [300_000]
    bring(site, tmp_path / "file", "/a")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_server_that_falls_silent_is_asked_again_from_where_it_stopped_and_a_mute_one_left(site, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_TIMEOUT", (1, 0.3))
    site.files |= {"/mute": CONTENT, "/stops": CONTENT}
    site.silent |= {"/mute": -1, "/stops": 120_000}
    started = time.monotonic()
    with pytest.raises(DataError, match="does not answer"):
        bring(site, tmp_path / "file", "/mute")
    assert time.monotonic() - started < 1
    bring(site, tmp_path / "file", "/mute", "/stops")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert len(site.asked) > 10


def test_a_server_that_only_trickles_is_left_for_the_next(site, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SLOW_FOR", 0.2)
    monkeypatch.setattr(module, "_SLOWEST", 50_000.0)
    site.files |= {"/slow": CONTENT, "/b": CONTENT}
    site.trickle["/slow"] = 500
    started = time.monotonic()
    assert bring(site, tmp_path / "file", "/slow", "/b").endswith("/b")
    assert time.monotonic() - started < 3
    with pytest.raises(DataError, match="sends less than 50 kB a second"):
        bring(site, tmp_path / "other", "/slow")


def test_no_more_is_taken_than_expected_at_most(site, tmp_path):
    site.files["/a"] = CONTENT
    with pytest.raises(DataError, match="offers 1280000 bytes, expected at most 1000000"):
        bring(site, tmp_path / "file", "/a", at_most=1_000_000)


def test_the_bytes_are_taken_as_they_are_whatever_the_server_calls_them(site, tmp_path):
    site.files["/a"], site.encoding = CONTENT, "gzip"
    bring(site, tmp_path / "file", "/a")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_web_page_in_place_of_the_file_is_none(site, tmp_path):
    site.files["/a"], site.content_type = b"<html>Sign in</html>", "text/html; charset=utf-8"
    with pytest.raises(DataError, match="answers with a web page"):
        bring(site, tmp_path / "file", "/a")


def test_a_host_that_is_not_reached_is_asked_once(site, tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}"
        hopeless = set()
        started = time.monotonic()
        with pytest.raises(DataError, match="not reached"):
            bring(site, tmp_path / "file", f"{nobody}/a", "http://no-such-host.invalid/a", hopeless=hopeless)
        assert time.monotonic() - started < 5
        assert hopeless == {nobody.removeprefix("http://"), "no-such-host.invalid"}
    site.files["/a"] = CONTENT
    with pytest.raises(DataError, match="not reached"):
        bring(site, tmp_path / "file", "/a", hopeless={site.url.removeprefix("http://")})
    assert site.asked == []


def test_a_disk_without_room_is_told_before_the_transfer(site, tmp_path, monkeypatch):
    site.files["/a"] = CONTENT
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1_000_000})())
    with pytest.raises(StorageError, match="has no room: 1 MB are needed, 1 MB are free"):
        bring(site, tmp_path / "file", "/a")
    assert left(tmp_path) == []
