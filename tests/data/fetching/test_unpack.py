import contextlib
import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from stlight.data.clips import DataError
from stlight.data.fetching.download import unpack
from stlight.runtime.atomic_files import StorageError

MAX_BYTES = 10_000


def as_zip(path, members, mode=stat.S_IFREG | 0o644, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type, info.external_attr = method, mode << 16
            archive.writestr(info, content)
    return path


def as_tar(path, members, kind=tarfile.REGTYPE, compressed="", linkname="/etc/passwd"):
    with tarfile.open(path, f"w:{compressed}") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.type = (len(content) if kind == tarfile.REGTYPE else 0), kind
            info.linkname = linkname
            archive.addfile(info, io.BytesIO(content))
    return path


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("make", [as_zip, as_tar, lambda path, members: as_tar(path, members, compressed="gz")])
@pytest.mark.parametrize("inside", ["", "top/", "a/b/"])
def test_members_are_found_in_any_folder(tmp_path, make, inside):
    wanted = {"boxing/p/1.jpg": b"one", "boxing/p/2.jpg": b"", "running/x": b"r" * 3000}
    other = {f"{inside}README": b"?", f"__MACOSX/{inside}boxing/p/._1.jpg": b"?"}
    archive = make(tmp_path / "archive", {inside + name: content for name, content in wanted.items()} | other)
    unpack(archive, tmp_path / "out", ["boxing", "running"], MAX_BYTES, lambda _: None)
    assert files(tmp_path / "out") == wanted
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive", "out"]


@pytest.mark.parametrize("name", ["../evil", "/evil", "sub/../../evil"])
@pytest.mark.parametrize("make", [as_zip, as_tar])
def test_nothing_is_written_outside_the_target(tmp_path, make, name):
    archive = make(tmp_path / "archive", {"data.npy": b"good", name: b"bad"})
    with contextlib.suppress(DataError):
        unpack(archive, tmp_path / "out" / "data.npy", [], MAX_BYTES, lambda _: None)
    assert not Path("/evil").exists()
    assert set(files(tmp_path)) <= {"archive", "out/data.npy"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
@pytest.mark.parametrize("linkname", ["/etc/passwd", "../../../q/w/secret.txt", "other"])
def test_links_and_devices_are_refused(tmp_path, kind, linkname):
    archive = as_tar(tmp_path / "archive", {"x/y/z/data.npy": b""}, kind=kind, linkname=linkname)
    with pytest.raises(DataError, match="archive holds 'x/y/z/data.npy', a link, device or sparse file: nothing was unpacked"):
        unpack(archive, tmp_path / "data.npy", [], MAX_BYTES, lambda _: None)
    assert files(tmp_path) == {"archive": archive.read_bytes()}


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_in_a_zip_are_refused(tmp_path, kind):
    archive = as_zip(tmp_path / "archive", {"data.npy": b"other"}, mode=kind | 0o777)
    with pytest.raises(DataError, match="archive holds 'data.npy', a link, device or sparse file: nothing was unpacked"):
        unpack(archive, tmp_path / "data.npy", [], MAX_BYTES, lambda _: None)


@pytest.mark.parametrize("make", [as_zip, lambda path, members: as_tar(path, members, compressed="gz")])
def test_the_size_is_limited_even_if_headers_lie(tmp_path, make):
    archive = make(tmp_path / "bomb", {"data.npy": b"\0" * (MAX_BYTES + 1)})
    assert archive.stat().st_size < 500
    with pytest.raises(DataError, match="holds 0 MB, expected at most 0: nothing was unpacked"):
        unpack(archive, tmp_path / "data.npy", [], MAX_BYTES, lambda _: None)
    if make is as_zip:
        content = bytearray(archive.read_bytes())
        directory = content.rindex(b"PK\x01\x02")
        content[directory + 24 : directory + 28] = (100).to_bytes(4, "little")
        archive.write_bytes(content)
        with pytest.raises(DataError, match="is not a complete .zip or .tar archive"):
            unpack(archive, tmp_path / "data.npy", [], MAX_BYTES, lambda _: None)
    assert files(tmp_path) == {"bomb": archive.read_bytes()}


@pytest.mark.parametrize("make", [as_zip, as_tar])
def test_an_incomplete_archive_is_named(tmp_path, make):
    content = make(tmp_path / "archive", {"data.npy": b"x" * 5000}).read_bytes()
    for bad in (b"", b"no archive", content[: len(content) // 3]):
        (tmp_path / "archive").write_bytes(bad)
        with pytest.raises(DataError, match="archive is not a complete .zip or .tar archive"):
            unpack(tmp_path / "archive", tmp_path / "data.npy", [], MAX_BYTES, lambda _: None)
    assert set(files(tmp_path)) == {"archive"}


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_damage_is_one_error_for_every_compression(tmp_path, method, rng):
    archive = as_zip(tmp_path / "archive", {"data.npy": rng.bytes(5000)}, method=method)
    content = bytearray(archive.read_bytes())
    content[2000] ^= 255
    archive.write_bytes(content)
    with pytest.raises(DataError, match="archive is not a complete .zip or .tar archive"):
        unpack(archive, tmp_path / "data.npy", [], MAX_BYTES, lambda _: None)
    assert set(files(tmp_path)) == {"archive"}


@pytest.mark.parametrize(
    ("content", "target", "members", "words"),
    [
        ({"boxing/1": b"1"}, "kth", ["boxing", "running"], "lacks running"),
        ({"a/boxing/1": b"1", "b/boxing/1": b"2"}, "kth", ["boxing"], "holds several boxing"),
        ({"data.npy/x": b"1"}, "data.npy", [], "lacks data.npy"),
    ],
)
def test_a_missing_or_ambiguous_member_is_an_error(tmp_path, content, target, members, words):
    archive = as_tar(tmp_path / "archive", content)
    with pytest.raises(DataError, match=f"{words}: nothing was unpacked"):
        unpack(archive, tmp_path / target, members, MAX_BYTES, lambda _: None)
    assert not (tmp_path / target).exists()


def test_an_interrupted_call_leaves_no_target_and_the_next_one_starts_again(tmp_path, monkeypatch):
    members = {f"{name}/1": name.encode() for name in "abc"}
    archive = as_tar(tmp_path / "archive", members)

    def killed(*_, **__):
        raise SystemExit

    with monkeypatch.context() as patch:
        # Like a kill: no clean-up runs.
        patch.setattr("shutil.rmtree", lambda *_, **__: None)
        patch.setattr("os.sync", killed)
        with pytest.raises(SystemExit):
            unpack(archive, tmp_path / "out", list("abc"), MAX_BYTES, lambda _: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".archive.unpacking", "archive"]
    unpack(archive, tmp_path / "out", list("abc"), MAX_BYTES, lambda _: None)
    assert files(tmp_path) == {"archive": archive.read_bytes()} | {f"out/{name}": text for name, text in members.items()}


def test_files_reach_the_disk_before_the_target_gets_its_name(tmp_path, monkeypatch):
    archive = as_tar(tmp_path / "archive", {"data.npy": b"1"})
    synced = []
    monkeypatch.setattr("os.sync", lambda: synced.append(files(tmp_path).keys() & {"data.npy"}))
    unpack(archive, tmp_path / "data.npy", [], MAX_BYTES, lambda _: None)
    assert synced == [set()]


def test_a_full_disk_is_a_storage_error_and_leaves_nothing(tmp_path, monkeypatch):
    archive = as_zip(tmp_path / "archive", {"data.npy": b"1"})

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(StorageError, match="data.npy: no space left"):
        unpack(archive, tmp_path / "data.npy", [], MAX_BYTES, lambda _: None)
    assert set(files(tmp_path)) == {"archive"}
