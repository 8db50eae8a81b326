"""KTH actions as the benchmark ships them: a folder of JPEG frames for each recording.

`kth/<action>/personNN_<action>_dM_uncomp/image_KKKK.jpg`. Persons 1 to 16 are for training and 17 to 25 for the test; the last
one for training is kept back for validation, for the benchmark has no such clips of its own. A clip is 30 frames whose numbers
follow each other, counted from a recording's end: the next begins 30 frames before, or 3 where the person soon leaves the
picture. Folders and files are taken by name, so the clips are the same on every file system.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from stlight.data.arrays import in_a_line
from stlight.data.clips import DataError, Split
from stlight.registry.dataset_specs import DATASETS, KTH_ACTIONS

_LAST_TRAINING_PERSON, _VALIDATION_PERSON, _LAST_PERSON = 16, 16, 25
_FRAMES = DATASETS["kth"].shape.context_frames + DATASETS["kth"].shape.horizon_frames
_STRIDES = {"jogging": 3, "running": 3}
_RECORDING = re.compile(r"person(\d\d)_.*")
_IMAGE = re.compile(r"image_(\d+)\.jpe?g")


class Recording(NamedTuple):
    """One person doing one thing, filmed once."""

    folder: Path
    action: str
    person: int
    images: list[str]
    """Names of the frames, sorted."""

    @property
    def split(self) -> Split:
        """Which clips its frames are for."""
        if self.person > _LAST_TRAINING_PERSON:
            return "test"
        return "validation" if self.person == _VALIDATION_PERSON else "train"

    def starts(self) -> list[int]:
        """Where clips begin among its frames, ascending."""
        numbers = [int(_number(name)) for name in self.images]
        stride, starts = _STRIDES.get(self.action, _FRAMES), []
        last = len(numbers) - 1
        while last >= _FRAMES - 1:
            first = last - _FRAMES + 1
            follow = numbers[last] - numbers[first] == _FRAMES - 1
            if follow:
                starts.append(first)
            last -= stride if follow else 1
        return starts[::-1]


def find_recordings(folder: Path) -> list[Recording]:
    """Every recording under `kth`, in the order of their names. Raises `DataError` for a missing or an empty folder."""
    recordings: list[Recording] = []
    for action in KTH_ACTIONS:
        if not (folder / action).is_dir():
            raise DataError(f"{folder / action} is missing: expected folders personNN_{action}_d1_uncomp and so on")
        before = len(recordings)
        for path in sorted((folder / action).iterdir()):
            match = _RECORDING.fullmatch(path.name)
            if match and path.is_dir() and 1 <= int(match[1]) <= _LAST_PERSON:
                images = sorted(entry.name for entry in path.iterdir() if _IMAGE.fullmatch(entry.name))
                if not images:
                    raise DataError(f"{path} holds no frame: expected image_0001.jpg and so on")
                recordings.append(Recording(path, action, int(match[1]), images))
        if len(recordings) == before:
            raise DataError(f"{folder / action} holds no recording: expected folders personNN_{action}_d1_uncomp and so on")
    return recordings


def windows(recordings: list[Recording]) -> dict[Split, np.ndarray]:
    """Where the clips of each split begin among all frames, one recording's after the other's: int64 (N,).

    Raises `DataError` if a split has none.
    """
    starts: dict[Split, list[int]] = {"train": [], "validation": [], "test": []}
    first = 0
    for recording in recordings:
        starts[recording.split] += [first + start for start in recording.starts()]
        first += len(recording.images)
    persons = {"train": "1 to 15", "validation": "16", "test": "17 to 25"}
    for split, found in starts.items():
        if not found:
            where = recordings[0].folder.parent.parent
            raise DataError(f"{where} holds no {split} clip: expected {_FRAMES} frames in a row of persons {persons[split]}")
    return {split: np.array(found, np.int64) for split, found in starts.items()}


def read_frames(recordings: list[Recording]) -> Iterator[np.ndarray]:
    """The frames of each recording in turn, as they were filmed: uint8 (n, 1, H, W), all of one size.

    Raises `DataError` naming an image that cannot be read or is of another size than the first.
    """
    size: tuple[int, ...] = ()
    for recording in recordings:
        frames = []
        for name in recording.images:
            frame = _read_image(recording.folder / name)
            size = size or frame.shape
            if frame.shape != size:
                raise DataError(
                    f"{recording.folder / name} is {frame.shape[1]}x{frame.shape[0]}, the frames before are {size[1]}x{size[0]}"
                )
            frames.append(frame)
        yield np.stack(frames)[:, None]


def _number(name: str) -> str:
    match = _IMAGE.fullmatch(name)
    assert match
    return match[1]


def _read_image(path: Path) -> np.ndarray:
    """Grey: the first channel, as in the benchmark, where there are several."""
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image)
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as an image ({in_a_line(error)}): expected a whole JPEG") from error
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
        raise DataError(f"{path} holds {pixels.dtype} {pixels.shape}, expected 8-bit grey or colour")
    return pixels if pixels.ndim == 2 else pixels[..., 0]
