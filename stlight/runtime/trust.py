"""Decide which files found on the disk to trust, by owner, mode and checksum.

Code, locks and decisions are taken only from private folders: they belong to this user, and nobody else may write to them.
Results and data may lie in folders that others can write, so they are read in formats that cannot hold code, and compared with
the checksums that their record states.
"""

import errno
import hashlib
import os
import stat
from pathlib import Path


def private_folder(folder: Path) -> Path:
    """Return a folder that nobody else can write to; create it if it is missing.

    Raises `PermissionError`, in one line, if another user owns it, could write to it, or could exchange it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    why = weakness(folder)
    for parent in folder.resolve().parents:
        mode = parent.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            why = why or f"everyone may rename folders in {parent}"
    if why:
        raise PermissionError(f"{folder}: must belong to this user alone: {why}")
    return folder


def weakness(path: Path) -> str:
    """Return how another user could have changed a file or folder; empty if only this user can."""
    facts = path.lstat()
    if stat.S_ISLNK(facts.st_mode):
        return "it is a link"
    if facts.st_uid != os.getuid():
        return f"its owner is user {facts.st_uid}, not {os.getuid()}"
    if facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others may write to it (mode {stat.S_IMODE(facts.st_mode):o}): chmod go-w"
    return ""


def sha256(content: bytes) -> str:
    """Return the SHA-256 of a file's content as hex digits."""
    return hashlib.sha256(content).hexdigest()


def read_file(path: Path) -> bytes:
    """Read a file. Raises `OSError` for what is no file, because to open a pipe would wait for ever."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is not a file")
    return path.read_bytes()
