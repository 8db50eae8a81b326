"""TaxiBJ as the benchmark ships it: `dataset.npz` with X_train, Y_train, X_test, Y_test, each (N, 4, 2, 32, 32) in [-1, 1]."""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO
from zipfile import ZipFile

import numpy as np
import torch
from torch import Tensor

from stlight.data.clips import SPLITS, DataError, StandIn, reading
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

# The values of an array, one after the other, their type, and the shape of a clip.
_Stream = tuple[IO[bytes], np.dtype, tuple[int, ...]]

open_clips = open_windows


def count(dataset: str, data_root: Path) -> tuple[int, int]:
    """Return the numbers of training and test clips that the file's headers state. Raises `DataError`."""
    with _open(data_root / DATASETS[dataset].files[0]) as (_, counts):
        return counts["train"], counts["test"]


def convert(dataset: str, data_root: Path) -> Prepared:
    """Convert the file to one array of frames in [0, 1] and split its clips. Raises `DataError` for wrong content."""
    path = data_root / DATASETS[dataset].files[0]
    num_train, num_test = count(dataset, data_root)
    held_out = min(_VALIDATION_CLIPS, num_train // 5)
    if not held_out:
        raise DataError(f"{path} holds {num_train} training clips, at least 5 are needed (the published file has 20461)")
    starts = np.arange(num_train + num_test, dtype=np.int64) * _NUM_FRAMES
    blocks = (clips.reshape(-1, *_FRAME) for clips in read_clips(path))
    splits = dict(zip(SPLITS, np.split(starts, [num_train - held_out, num_train]), strict=True))
    return Prepared(splits, write_frames(data_root, dataset, blocks, len(starts) * _NUM_FRAMES))


def read_clips(path: Path) -> Iterator[np.ndarray]:
    """Yield all training clips, then all test clips, in blocks: float32 (n, 8, 2, 32, 32) in [0, 1]. Raises `DataError`."""
    with _open(path) as (streams, counts):
        for split, num_clips in counts.items():
            for first in range(0, num_clips, _CLIPS_AT_ONCE):
                count = min(_CLIPS_AT_ONCE, num_clips - first)
                parts = []
                for file, dtype, shape in (streams[f"{part}_{split}"] for part in "XY"):
                    content = file.read(count * math.prod(shape) * dtype.itemsize)
                    parts.append(np.frombuffer(content, dtype).reshape(count, *shape))
                clips = np.concatenate(parts, 1)
                bad = ~(np.abs(clips) <= _LIMIT[split])
                if bad.any():
                    clip = first + int(bad.reshape(count, -1).any(1).argmax())
                    raise DataError(f"{path}: {split} clip {clip} holds {clips[bad][0]:g}, expected values in [-1, 1]")
                yield ((clips + 1) / 2).astype(np.float32)


@contextmanager
def _open(path: Path) -> Iterator[tuple[dict[str, _Stream], dict[str, int]]]:
    """Open the four arrays, and yield them with the number of clips of each split.

    Damage that is met while the block reads is a `DataError`, too.
    """
    streams: dict[str, _Stream] = {}
    counts: dict[str, int] = {}
    expected = "a complete .npz file of X_train, Y_train, X_test and Y_test"
    with reading(path, expected), ZipFile(path) as archive, ExitStack() as stack:
        for split in _LIMIT:
            for part, num_frames in (("X", _SHAPE.context_frames), ("Y", _SHAPE.horizon_frames)):
                name = f"{part}_{split}"
                file = stack.enter_context(archive.open(f"{name}.npy"))
                # The two versions of the format that arrays of numbers have.
                read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
                shape, fortran_order, dtype = read[np.lib.format.read_magic(file)](file)
                wanted = (counts.setdefault(split, shape[0]), num_frames, *_FRAME)
                if shape != wanted or not shape[0] or fortran_order or dtype.str not in ("<f4", "<f8"):
                    order = " in column-major order" * fortran_order
                    raise DataError(
                        f"{path}: {name} is {dtype.str} {shape}{order}, expected <f4 or <f8 {('N', *wanted[1:])} in row-major"
                        " order, with one N for X and Y"
                    )
                streams[name] = file, dtype, shape[1:]
        yield streams, counts


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
