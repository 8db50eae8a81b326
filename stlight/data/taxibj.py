"""TaxiBJ as the benchmark ships it: `dataset.npz` with X_train, Y_train, X_test, Y_test, each (N, 4, 2, 32, 32) in [-1, 1]."""

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from stlight.data.arrays import read_header
from stlight.data.clips import SPLITS, DataError, StandIn
from stlight.data.prepare import Prepared, write_frames
from stlight.data.windows import open_windows
from stlight.registry.dataset_specs import DATASETS

_SHAPE = DATASETS["taxibj"].shape
_NUM_FRAMES = _SHAPE.context_frames + _SHAPE.horizon_frames
_FRAME = (_SHAPE.channels, _SHAPE.height, _SHAPE.width)
_CLIPS_AT_ONCE = 256

# The benchmark has no validation clips: keep back the last training clips.
_VALIDATION_CLIPS = 500

# The publisher scaled the training clips to fill [-1, 1] exactly, and the later test clips with the same factors.
_LIMIT = {"train": 1 + 1e-3, "test": 2.0}

_DAMAGE = (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)

open_clips = open_windows


class _Member(NamedTuple):
    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    file: IO[bytes]


def count(dataset: str, data_root: Path) -> tuple[int, int]:
    """Return the numbers of training and test clips that the file's headers state. Raises `DataError`."""
    with ExitStack() as stack:
        members = _open(data_root / DATASETS[dataset].files[0], stack)
        return members["X_train"].shape[0], members["X_test"].shape[0]


def convert(dataset: str, data_root: Path) -> Prepared:
    """Convert the file to one array of frames in [0, 1] and split its clips. Raises `DataError` for wrong content."""
    path = data_root / DATASETS[dataset].files[0]
    num_train, num_test = count(dataset, data_root)
    held_out = min(_VALIDATION_CLIPS, num_train // 5)
    if not held_out:
        raise DataError(f"{path} holds {num_train} training clips, at least 5 are needed (the published file has 20461)")
    starts = np.arange(num_train + num_test, dtype=np.int64) * _NUM_FRAMES
    blocks = (clips.reshape(-1, *_FRAME) for clips in read_clips(path))
    facts = write_frames(data_root, dataset, blocks, (len(starts) * _NUM_FRAMES, *_FRAME), np.dtype("<f4"))
    splits = np.split(starts, [num_train - held_out, num_train])
    return Prepared(dict(zip(SPLITS, splits, strict=True)), facts)


def read_clips(path: Path) -> Iterator[np.ndarray]:
    """Yield all training clips, then all test clips, in blocks: float32 (n, 8, 2, 32, 32) in [0, 1]. Raises `DataError`."""
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
        raise DataError(
            f"{path} is not a complete .npz file ({error}): expected X_train, Y_train, X_test and Y_test"
        ) from error
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


class TaxiBJStandIn(StandIn):
    """Generated traffic-like flow, (N, 8, 2, 32, 32): centres of activity drift and pulsate, outflow lags behind inflow."""

    _CENTRES = 6
    num_draws = _CENTRES * 7

    def _draw(self, u_ND: Tensor) -> Tensor:
        u = u_ND.view(-1, 1, 1, self._CENTRES, 7)
        frame = torch.arange(8, device=u.device).view(1, -1, 1, 1)
        lag = torch.tensor([0.0, 1.5], device=u.device).view(1, 1, -1, 1)
        time = frame - lag
        x = u[..., 0] + 0.04 * (u[..., 1] - 0.5) * time
        y = u[..., 2] + 0.04 * (u[..., 3] - 0.5) * time
        width = 0.04 + 0.1 * u[..., 4]
        height = u[..., 5] * (0.6 + 0.4 * torch.sin(2 * math.pi * (u[..., 6] + time / 16)))
        grid = torch.linspace(0, 1, 32, device=u.device)
        in_x = torch.exp(-((grid - x.unsqueeze(-1)) ** 2) / (2 * width**2).unsqueeze(-1))
        in_y = torch.exp(-((grid - y.unsqueeze(-1)) ** 2) / (2 * width**2).unsqueeze(-1))
        # Sum separable bumps over the centres: (N, T, C, centres, 32) twice → (N, T, C, 32, 32).
        flow = ((in_y * height.unsqueeze(-1)).unsqueeze(-1) * in_x.unsqueeze(-2)).sum(3)
        return 1 - torch.exp(-flow)


stand_in = TaxiBJStandIn
