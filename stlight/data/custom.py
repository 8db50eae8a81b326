"""A custom data set: a folder under the data root with train.npy, test.npy and optionally validation.npy.

Each file is (N, T, C, H, W), uint8 or floating point in [0, 1]. Without validation.npy, the last tenth of the training
clips, at least one, becomes the validation split. The files are read in place, without conversion.
"""

from pathlib import Path

import numpy as np
import torch

from stlight.data.clips import SPLITS, Clips, DataError, Split, open_array
from stlight.data.prepare import Prepared, frame_facts
from stlight.data.windows import open_windows
from stlight.registry.dataset_specs import ClipShape

_BYTES_AT_ONCE = 2**26


def count(dataset: str, data_root: Path) -> tuple[int, int]:
    """Return the numbers of training clips (validation included) and test clips. Checks every value, like `convert`."""
    starts = {split: len(starts) for split, (_, starts) in _read_folder(data_root / dataset).items()}
    return starts["train"] + starts["validation"], starts["test"]


def convert(dataset: str, data_root: Path) -> Prepared:
    """Check every value and return where the clips of each split start. Raises `DataError` naming a wrong file."""
    found = _read_folder(data_root / dataset)
    starts = {split: starts for split, (_, starts) in found.items()}
    return Prepared(starts, frame_facts(data_root, {split: path for split, (path, _) in found.items()}))


def open_clips(prepared: Prepared, shape: ClipShape, data_root: Path, *, seed: int, device: torch.device | str) -> Clips:
    """Open the clips. Raises `DataError` if the files do not have the shape that the experiment states."""
    train = prepared.facts["frames"]["train"]
    stated, found = (shape.context_frames + shape.horizon_frames, *shape[2:]), tuple(train["shape"][1:])
    if found != stated:
        raise DataError(f"{data_root / train['file']} holds clips (T, C, H, W) of {found}, the data_sets state {stated}")
    return open_windows(prepared, shape, data_root, seed=seed, device=device)


def _read_folder(folder: Path) -> dict[Split, tuple[Path, np.ndarray]]:
    """Return the file of each split and the int64 positions where its clips start among the file's frames."""
    if not folder.is_dir():
        raise DataError(f"{folder} is missing: expected a folder with train.npy and test.npy, each (N, T, C, H, W)")
    files: dict[Split, Path] = {split: folder / f"{split}.npy" for split in SPLITS}
    if not files["validation"].exists():
        del files["validation"]
    shapes = {split: _check(path) for split, path in files.items()}
    if len({shape[1:] for shape in shapes.values()}) > 1:
        listed = ", ".join(f"{split}.npy {shape[1:]}" for split, shape in shapes.items())
        raise DataError(f"{folder} holds clips of several shapes, expected one (T, C, H, W): {listed}")
    found = {split: (files[split], np.arange(n, dtype=np.int64) * num_frames) for split, (n, num_frames, *_) in shapes.items()}
    if "validation" not in files:
        path, train = found["train"]
        if len(train) < 2:
            raise DataError(f"{path} holds a single clip: expected two or more, or a validation.npy beside it")
        held_out = max(1, len(train) // 10)
        found |= {"train": (path, train[:-held_out]), "validation": (path, train[-held_out:])}
    return {split: found[split] for split in SPLITS}


def _check(path: Path) -> tuple[int, ...]:
    """Return the shape of a file after checking all values."""
    array = open_array(path)
    if array.ndim != 5 or 0 in array.shape:
        raise DataError(f"{path} is {array.shape}, expected clips (N, T, C, H, W)")
    if array.dtype.str not in ("|u1", "<f2", "<f4", "<f8") or not array.flags.c_contiguous:
        order = "" if array.flags.c_contiguous else " in column-major order"
        raise DataError(
            f"{path} is {array.dtype.str}{order}, expected uint8 or little-endian floating point in row-major order"
        )
    count = len(array)
    at_once = max(1, _BYTES_AT_ONCE // (array.nbytes // count))
    for first in range(0, count, at_once) if array.dtype != np.uint8 else ():
        # Map the file again for each part, because pages of one mapping stay in the process's memory.
        clips = open_array(path)[first : first + at_once]
        bad = ~((clips >= 0) & (clips <= 1))
        if bad.any():
            clip = first + int(bad.reshape(len(clips), -1).any(1).argmax())
            raise DataError(f"{path}: clip {clip} holds {clips[bad][0]:g}, expected values from 0 to 1")
    return array.shape
