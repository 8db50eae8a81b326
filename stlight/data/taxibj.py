"""TaxiBJ as the benchmark ships it: `dataset.npz` with X_train, Y_train, X_test, Y_test, each (N, 4, 2, 32, 32) in [-1, 1]."""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from stlight.data.arrays import read_header
from stlight.data.clips import DataError
from stlight.registry.dataset_specs import DATASETS

_SHAPE = DATASETS["taxibj"].shape
_FRAME = (_SHAPE.channels, _SHAPE.height, _SHAPE.width)
_CLIPS_AT_ONCE = 256

_DAMAGE = (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)

# The training clips were scaled to fill [-1, 1] to the digit, the later test clips with the same numbers.
_LIMIT = {"train": 1 + 1e-3, "test": 2.0}


class _Member(NamedTuple):
    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    file: IO[bytes]


def count_clips(path: Path) -> tuple[int, int]:
    """Training and test clips that the headers state. Raises `DataError` saying what was found and what was expected."""
    with ExitStack() as stack:
        members = _open(path, stack)
        return members["X_train"].shape[0], members["X_test"].shape[0]


def read_clips(path: Path) -> Iterator[np.ndarray]:
    """All training clips, then all test clips, some at a time: float32 (n, 8, 2, 32, 32) in [0, 1].

    Raises `DataError` for content that is cut off, not a number, or out of range.
    """
    with ExitStack() as stack:
        members = _open(path, stack)
        for split in ("train", "test"):
            x, y = members[f"X_{split}"], members[f"Y_{split}"]
            for first in range(0, x.shape[0], _CLIPS_AT_ONCE):
                count = min(_CLIPS_AT_ONCE, x.shape[0] - first)
                clips = np.concatenate([_read(path, member, count) for member in (x, y)], 1)
                bad = ~(np.abs(clips) <= _LIMIT[split])
                if bad.any():
                    value = clips[bad][0]
                    raise DataError(
                        f"{path}: {split} clip {first + int(bad.reshape(count, -1).any(1).argmax())} holds {value:g},"
                        " expected values in [-1, 1]"
                    )
                yield ((clips + 1) / 2).astype(np.float32)


def _open(path: Path, stack: ExitStack) -> dict[str, _Member]:
    expected = [f"{part}_{split}.npy" for split in ("train", "test") for part in "XY"]
    members: dict[str, _Member] = {}
    try:
        archive = stack.enter_context(zipfile.ZipFile(path))
        if missing := sorted(set(expected) - set(archive.namelist())):
            keys = ", ".join(sorted(name.removesuffix(".npy") for name in archive.namelist())) or "nothing"
            raise DataError(f"{path} lacks {missing[0].removesuffix('.npy')}: it holds {keys}")
        for name in expected:
            file, key = stack.enter_context(archive.open(name)), name.removesuffix(".npy")
            shape, dtype = read_header(file, f"{path}: {key}")
            members[key] = _Member(key, dtype, shape, file)
    except FileNotFoundError:
        raise DataError(f"{path} is missing") from None
    except _DAMAGE as error:
        raise DataError(f"{path} is not a whole .npz file ({error}): expected X_train, Y_train, X_test and Y_test") from error
    for name, member in members.items():
        frames = _SHAPE.context_frames if name.startswith("X") else _SHAPE.horizon_frames
        wanted = (members[f"X{name[1:]}"].shape[0], frames, *_FRAME)
        if member.shape != wanted or member.shape[0] < 1:
            sides = ", ".join(map(str, wanted[1:]))
            raise DataError(f"{path}: {name} is {member.shape}, expected (N, {sides}), with one N for X and Y")
        if member.dtype not in (np.dtype("<f4"), np.dtype("<f8")):
            raise DataError(f"{path}: {name} is {member.dtype.str}, expected little-endian floating point (<f4 or <f8)")
    return members


def _read(path: Path, member: _Member, count: int) -> np.ndarray:
    size = count * int(np.prod(member.shape[1:])) * member.dtype.itemsize
    try:
        content = member.file.read(size)
    except _DAMAGE as error:
        raise DataError(f"{path}: {member.name} is damaged: {error}") from error
    if len(content) != size:
        raise DataError(f"{path}: {member.name} ends early: its header says {member.shape[0]} clips")
    return np.frombuffer(content, member.dtype).reshape(count, *member.shape[1:])
