"""A data set of one's own: a folder under the data root with train.npy, test.npy and perhaps validation.npy.

Each is (N, T, C, H, W): uint8, or floating point in [0, 1]. Without validation.npy the last tenth of the training clips, at
least one, is kept back for validation. The files are used where they lie.
"""

from pathlib import Path

import numpy as np

from stlight.data.arrays import open_array
from stlight.data.clips import DataError, Split

_BYTES_AT_ONCE = 2**26


def read_folder(folder: Path) -> dict[Split, tuple[Path, np.ndarray]]:
    """The file of each split, and where its clips begin among the frames. Every value is looked at.

    Raises `DataError` for a file that is missing, no array, or of a wrong shape, type or range.
    """
    train, test, validation = (folder / f"{split}.npy" for split in ("train", "test", "validation"))
    counts = {path: _check(path) for path in ((train, test, validation) if validation.exists() else (train, test))}
    if len({shape for _, shape in counts.values()}) > 1:
        words = ", ".join(f"{path.name} {shape}" for path, (_, shape) in counts.items())
        raise DataError(f"{folder} holds clips of several shapes, expected one (T, C, H, W): {words}")
    num_frames = counts[train][1][0]
    clips = {path: np.arange(count, dtype=np.int64) * num_frames for path, (count, _) in counts.items()}
    held_out = max(1, len(clips[train]) // 10)
    if validation not in clips and len(clips[train]) <= held_out:
        raise DataError(f"{train} holds a single clip: expected two or more, or a validation.npy beside it")
    kept, file = (clips[train], validation) if validation in clips else (clips[train][:-held_out], train)
    return {
        "train": (train, kept),
        "validation": (file, clips[file][-held_out:] if file == train else clips[file]),
        "test": (test, clips[test]),
    }


def _check(path: Path) -> tuple[int, tuple[int, ...]]:
    """The number and the shape of a file's clips."""
    array = open_array(path)
    if array.ndim != 5 or 0 in array.shape:
        raise DataError(f"{path} is {array.shape}, expected clips (N, T, C, H, W)")
    count, shape = len(array), array.shape[1:]
    if array.dtype != np.uint8 and array.dtype.str not in ("<f2", "<f4", "<f8"):
        raise DataError(f"{path} is {array.dtype.str}, expected uint8 or little-endian floating point")
    if not array.flags.c_contiguous:
        raise DataError(f"{path} is stored column by column: save it again from np.ascontiguousarray")
    at_once = max(1, _BYTES_AT_ONCE // (array.nbytes // count))
    for first in range(0, count, at_once) if array.dtype != np.uint8 else ():
        # Mapped anew for each part, so that the whole does not stay in memory.
        clips = open_array(path)[first : first + at_once]
        bad = ~((clips >= 0) & (clips <= 1))
        if bad.any():
            clip = first + int(bad.reshape(len(clips), -1).any(1).argmax())
            raise DataError(f"{path}: clip {clip} holds {clips[bad][0]:g}, expected values from 0 to 1")
    return count, shape
