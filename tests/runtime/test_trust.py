"""Which folders and files are trusted: those that only this user can change."""

import os
import re

import pytest

from stlight.runtime.atomic_files import StorageError, write_atomically
from stlight.runtime.run_lock import hold
from stlight.runtime.trust import private_folder, weakness


def test_a_missing_folder_is_created_for_this_user_alone(tmp_path):
    previous = os.umask(0)
    try:
        folder = private_folder(tmp_path / "a")
    finally:
        os.umask(previous)
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_folder_that_others_can_write_to_is_refused(mode, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder").chmod(mode)
    with pytest.raises(PermissionError, match=rf"others may write to it \(mode {mode:o}\): chmod go-w"):
        private_folder(tmp_path / "folder")


def test_a_folder_of_another_user_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(PermissionError, match="its owner is user"):
        private_folder(tmp_path)


def test_a_folder_that_everyone_could_exchange_is_refused(tmp_path):
    (tmp_path / "open" / "folder").mkdir(parents=True)
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(PermissionError, match=f"everyone may rename folders in {tmp_path}/open"):
        private_folder(tmp_path / "open" / "folder")
    # In a sticky folder, such as /tmp, only the owner may.
    (tmp_path / "open").chmod(0o1777)
    assert private_folder(tmp_path / "open" / "folder").is_dir()


def test_a_link_is_not_trusted(tmp_path):
    (tmp_path / "file").touch(mode=0o600)
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert weakness(tmp_path / "file") == ""
    assert weakness(tmp_path / "link") == "it is a link"


@pytest.mark.parametrize("exists", [True, False])
def test_a_planted_link_overwrites_no_file(exists, tmp_path):
    victim, run = tmp_path / "victim", tmp_path / "run"
    run.mkdir()
    if exists:
        victim.write_text("precious")
    (run / ".lock").symlink_to(victim)
    (run / f".file.{os.getpid()}.partial").symlink_to(victim)
    with (
        pytest.raises(StorageError, match=re.escape(f"{run / '.lock'}: is a link, which no lock can be: delete it")),
        hold(run),
    ):
        pass
    write_atomically(run / "file", "content")
    assert (run / "file").read_text() == "content"
    assert victim.exists() == exists
    assert not exists or victim.read_text() == "precious"
