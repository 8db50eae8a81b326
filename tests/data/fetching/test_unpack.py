import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from stlight.data.clips import DataError
from stlight.data.fetching.unpack import finish, unpack

MAX_BYTES = 10_000


def as_zip(path, members, **infos):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = infos.get("mode", stat.S_IFREG | 0o644) << 16
            archive.writestr(info, content)
    return path


def as_tar(path, members, kind=tarfile.REGTYPE, compressed=""):
    with tarfile.open(path, f"w:{compressed}") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.type = (len(content) if kind == tarfile.REGTYPE else 0), kind
            info.linkname = "/etc/passwd"
            archive.addfile(info, io.BytesIO(content))
    return path


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("make", [as_zip, as_tar, lambda path, members: as_tar(path, members, compressed="gz")])
@pytest.mark.parametrize("inside", ["", "top/", "a/b/"])
def test_what_is_wanted_is_found_in_whatever_folder(tmp_path, make, inside):
    wanted = {"boxing/p/1.jpg": b"one", "boxing/p/2.jpg": b"", "running/x": b"r" * 3000}
    other = {f"{inside}README": b"?", f"__MACOSX/{inside}boxing/p/._1.jpg": b"?"}
    archive = make(tmp_path / "archive", {inside + name: content for name, content in wanted.items()} | other)
    unpack(archive, tmp_path / "out", ["boxing", "running"], MAX_BYTES, folders=True)
    assert files(tmp_path / "out") == wanted
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["boxing", "running"]


@pytest.mark.parametrize("name", ["../data.npy", "/data.npy", "sub/../../data.npy", "..\\data.npy", "C:/data.npy"])
@pytest.mark.parametrize("make", [as_zip, as_tar])
def test_no_path_leads_out(tmp_path, make, name):
    archive = make(tmp_path / "archive", {"data.npy": b"good", name: b"bad"})
    with pytest.raises(DataError, match="which leads out of it: nothing was unpacked"):
        unpack(archive, tmp_path / "out", ["data.npy"], MAX_BYTES, folders=False)
    assert files(tmp_path) == {"archive": archive.read_bytes()}


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (tarfile.SYMTYPE, "a link"),
        (tarfile.LNKTYPE, "a link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.BLKTYPE, "a device"),
        (tarfile.FIFOTYPE, "a device"),
    ],
)
def test_links_and_devices_are_refused(tmp_path, kind, words):
    archive = as_tar(tmp_path / "archive", {"data.npy": b""}, kind)
    with pytest.raises(DataError, match=f"holds 'data.npy', {words}: nothing was unpacked"):
        unpack(archive, tmp_path / "out", ["data.npy"], MAX_BYTES, folders=False)


@pytest.mark.parametrize(("mode", "words"), [(stat.S_IFLNK, "a link"), (stat.S_IFCHR, "a device"), (stat.S_IFIFO, "a device")])
def test_links_and_devices_in_a_zip_are_refused(tmp_path, mode, words):
    archive = as_zip(tmp_path / "archive", {"data.npy": b"/etc/passwd"}, mode=mode | 0o777)
    with pytest.raises(DataError, match=f"holds 'data.npy', {words}"):
        unpack(archive, tmp_path / "out", ["data.npy"], MAX_BYTES, folders=False)


def test_the_size_is_bounded_whatever_the_archive_says(tmp_path):
    archive = as_zip(tmp_path / "bomb", {"data.npy": b"\0" * (MAX_BYTES + 1)})
    assert archive.stat().st_size < 500
    with pytest.raises(DataError, match="expected at most 0: nothing was unpacked"):
        unpack(archive, tmp_path / "out", ["data.npy"], MAX_BYTES, folders=False)
    # One that lies about it: the size in its directory says 100.
    content = bytearray(archive.read_bytes())
    directory = content.rindex(b"PK\x01\x02")
    content[directory + 24 : directory + 28] = (100).to_bytes(4, "little")
    archive.write_bytes(content)
    with pytest.raises(DataError):
        unpack(archive, tmp_path / "out", ["data.npy"], MAX_BYTES, folders=False)
    assert not (tmp_path / "out" / "data.npy").exists()


@pytest.mark.parametrize("make", [as_zip, as_tar])
def test_what_is_no_whole_archive_is_named(tmp_path, make):
    content = make(tmp_path / "archive", {"data.npy": b"x" * 5000}).read_bytes()
    for bad in (b"", b"no archive", content[: len(content) // 3]):
        (tmp_path / "archive").write_bytes(bad)
        with pytest.raises(DataError, match="archive is (not a whole|neither a)"):
            unpack(tmp_path / "archive", tmp_path / "out", ["data.npy"], MAX_BYTES, folders=False)
    assert files(tmp_path / "out") == {}


def test_what_lacks_or_repeats_a_wanted_name_is_refused(tmp_path):
    archive = as_tar(tmp_path / "archive", {"boxing/1": b"1"})
    with pytest.raises(DataError, match="lacks running: nothing was unpacked"):
        unpack(archive, tmp_path / "out", ["boxing", "running"], MAX_BYTES, folders=True)
    archive = as_tar(tmp_path / "archive", {"a/boxing/1": b"1", "b/boxing/1": b"2"})
    with pytest.raises(DataError, match="holds boxing/1 twice"):
        unpack(archive, tmp_path / "out", ["boxing"], MAX_BYTES, folders=True)


def test_a_folder_of_the_name_of_a_file_is_not_that_file(tmp_path):
    archive = as_zip(tmp_path / "archive", {"data.npy/x": b"1"})
    with pytest.raises(DataError, match="lacks data.npy: nothing was unpacked"):
        unpack(archive, tmp_path / "out", ["data.npy"], MAX_BYTES, folders=False)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_damage_inside_an_archive_is_one_line_whatever_its_compression(tmp_path, method, rng):
    with zipfile.ZipFile(tmp_path / "archive", "w", method) as archive:
        archive.writestr("data.npy", rng.bytes(5000))
    content = bytearray((tmp_path / "archive").read_bytes())
    content[2000] ^= 255
    (tmp_path / "archive").write_bytes(content)
    with pytest.raises(DataError, match="archive is not a whole archive"):
        unpack(tmp_path / "archive", tmp_path / "out", ["data.npy"], MAX_BYTES, folders=False)
    assert files(tmp_path / "out") == {}


def test_what_was_stopped_while_it_was_moved_is_finished(tmp_path, monkeypatch):
    members = {f"{name}/1": name.encode() for name in "abc"}
    archive = as_tar(tmp_path / "archive", members)
    rename = Path.rename

    def stopped(path, target):
        if path.name == "b":
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", stopped)
    with pytest.raises(KeyboardInterrupt):
        unpack(archive, tmp_path / "out", list("abc"), MAX_BYTES, folders=True)
    monkeypatch.undo()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".archive.unpacking", "a"]
    assert finish(archive, tmp_path / "out", list("abc"))
    assert files(tmp_path / "out") == members
    assert not finish(archive, tmp_path / "out", list("abc"))


def test_what_is_there_is_kept(tmp_path):
    archive = as_tar(tmp_path / "archive", {"data.npy": b"new"})
    (tmp_path / "data.npy").write_bytes(b"old")
    with pytest.raises(DataError, match="is there already: move it away"):
        unpack(archive, tmp_path, ["data.npy"], MAX_BYTES, folders=False)
    assert (tmp_path / "data.npy").read_bytes() == b"old"
