"""KTH actions as the benchmark ships them: a folder of JPEG frames for each recording.

`kth/<action>/personNN_<action>_dM_uncomp/image_KKKK.jpg`. Persons 1 to 16 are for training and 17 to 25 for the test. The
benchmark has no validation clips, so we keep back person 16. A clip is 30 frames with consecutive numbers, counted from the
end of a recording: the next clip starts 30 frames earlier, or 3 if the person soon leaves the picture. Folders and files are
sorted by name, so that the clips do not depend on the file system.
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stlight.data.clips import DataError, Split, StandIn, reading
from stlight.data.prepare import Prepared, write_frames
from stlight.data.windows import open_windows
from stlight.registry.dataset_specs import DATASETS, KTH_ACTIONS

_VALIDATION_PERSON, _LAST_PERSON = 16, 25
_NUM_FRAMES = DATASETS["kth"].shape.context_frames + DATASETS["kth"].shape.horizon_frames
_STRIDES = {"jogging": 3, "running": 3}
_RECORDING = re.compile(r"person(\d\d)_.*")
_IMAGE = re.compile(r"image_(\d+)\.jpe?g")

open_clips = open_windows


def count(dataset: str, data_root: Path) -> tuple[int, int]:
    """Return the numbers of training clips (validation included) and test clips, from the file names alone."""
    starts = clip_starts(find_recordings(data_root / dataset))
    return len(starts["train"]) + len(starts["validation"]), len(starts["test"])


def convert(dataset: str, data_root: Path) -> Prepared:
    """Convert all images to one array of frames in their original size and find the clips. Raises `DataError`."""
    recordings = find_recordings(data_root / dataset)
    num_frames = sum(len(recording.images) for recording in recordings)
    starts = clip_starts(recordings)
    return Prepared(starts, write_frames(data_root, dataset, read_frames(recordings), num_frames))


class Recording(NamedTuple):
    """One film of one person doing one action, with the sorted file names of its frames."""

    folder: Path
    action: str
    person: int
    images: list[str]

    @property
    def split(self) -> Split:
        """The split that its clips belong to."""
        return "test" if self.person > _VALIDATION_PERSON else "validation" if self.person == _VALIDATION_PERSON else "train"

    def starts(self) -> list[int]:
        """Return the positions among the frames where clips start, ascending."""
        numbers = [int(_IMAGE.sub(r"\1", name)) for name in self.images]
        stride, starts = _STRIDES.get(self.action, _NUM_FRAMES), []
        last = len(numbers) - 1
        while last >= _NUM_FRAMES - 1:
            first = last - _NUM_FRAMES + 1
            consecutive = numbers[last] - numbers[first] == _NUM_FRAMES - 1
            if consecutive:
                starts.append(first)
            last -= stride if consecutive else 1
        return starts[::-1]


def find_recordings(folder: Path) -> list[Recording]:
    """Return every recording under `kth`, sorted by name. Raises `DataError` for a missing or empty folder."""
    recordings: list[Recording] = []
    for action in KTH_ACTIONS:
        if not (folder / action).is_dir():
            raise DataError(f"{folder / action} is missing: expected folders personNN_{action}_d1_uncomp and so on")
        for path in sorted((folder / action).iterdir()):
            match = _RECORDING.fullmatch(path.name)
            if match and path.is_dir() and 1 <= int(match[1]) <= _LAST_PERSON:
                images = sorted(entry.name for entry in path.iterdir() if _IMAGE.fullmatch(entry.name))
                if not images:
                    raise DataError(f"{path} holds no frame: expected image_0001.jpg and so on")
                recordings.append(Recording(path, action, int(match[1]), images))
    return recordings


def clip_starts(recordings: list[Recording]) -> dict[Split, np.ndarray]:
    """Return for each split the int64 positions of its clips among the frames of all recordings. Raises `DataError` if none."""
    starts: dict[Split, list[int]] = {"train": [], "validation": [], "test": []}
    first = 0
    for recording in recordings:
        starts[recording.split] += [first + start for start in recording.starts()]
        first += len(recording.images)
    for split, found in starts.items():
        if not found:
            root = recordings[0].folder.parents[1]
            raise DataError(f"{root} holds no {split} clip: expected {_NUM_FRAMES} frames in a row, and persons 1 to 25")
    return {split: np.array(found, np.int64) for split, found in starts.items()}


def read_frames(recordings: list[Recording]) -> Iterator[np.ndarray]:
    """Yield the frames of each recording in their original size: uint8 (n, 1, H, W).

    Raises `DataError` naming an image that cannot be read or differs in size from the first.
    """
    size: tuple[int, ...] = ()
    for recording in recordings:
        frames = [_read_image(recording.folder / name) for name in recording.images]
        for name, frame in zip(recording.images, frames, strict=True):
            size = size or frame.shape
            if frame.shape != size:
                raise DataError(f"{recording.folder / name} is (height, width) {frame.shape}, the frames before are {size}")
        yield np.stack(frames)[:, None]


def _read_image(path: Path) -> np.ndarray:
    """Read an image as grey: uint8 (H, W). Of a colour image we take the first channel, like the benchmark."""
    from PIL import Image

    with reading(path, "a complete JPEG image"), Image.open(path) as image:
        pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
        raise DataError(f"{path} holds {pixels.dtype} {pixels.shape}, expected 8-bit grey or colour")
    return pixels if pixels.ndim == 2 else pixels[..., 0]


class KTHStandIn(StandIn):
    """Generated clips of a grey figure that walks across shaded ground and swings its limbs, (N, 30, 1, 128, 128)."""

    num_draws = 8
    # Draw at half the size and enlarge: a quarter of the work, and soft edges like those of the real recordings.
    _SIDE = 64

    def _draw(self, u_ND: Tensor) -> Tensor:
        u = u_ND.unsqueeze(-1)
        frame = torch.arange(30, device=u.device)
        towards_right = torch.where(u[:, 0] < 0.5, 1.0, -1.0)
        hip_x = 0.5 + towards_right * (u[:, 1] * 0.25 - 0.35 + (0.008 + 0.02 * u[:, 2]) * frame)
        phase = 2 * math.pi * (u[:, 3] + (0.03 + 0.04 * u[:, 4]) * frame)
        size = 0.8 + 0.3 * u[:, 5]
        hip_y = 0.55 + 0.01 * torch.cos(2 * phase)
        swing = 0.5 * torch.sin(phase) * towards_right
        shoulder_y = hip_y - 0.2 * size

        grid = torch.linspace(0, 1, self._SIDE, device=u.device)

        def limb(x: Tensor, y: Tensor, angle: Tensor, length: Tensor, thickness: float) -> Tensor:
            """Return a soft mask of a rounded segment that hangs from (x, y) at `angle`: (N, T, 64, 64)."""
            end_x, end_y = x + length * torch.sin(angle), y + length * torch.cos(angle)
            x, y, end_x, end_y = (value[..., None, None] for value in torch.broadcast_tensors(x, y, end_x, end_y))
            from_x, from_y, along_x, along_y = grid - x, grid.unsqueeze(-1) - y, end_x - x, end_y - y
            share = ((from_x * along_x + from_y * along_y) / (along_x**2 + along_y**2 + 1e-9)).clamp(0, 1)
            distance = torch.sqrt((from_x - share * along_x) ** 2 + (from_y - share * along_y) ** 2 + 1e-12)
            return torch.sigmoid((thickness - distance) * 2 * self._SIDE)

        none = torch.zeros_like(swing)
        figure = torch.stack(
            [
                limb(hip_x, shoulder_y, none, 0.2 * size + none, 0.05),
                limb(hip_x, shoulder_y - 0.09 * size, none, none, 0.05),
                limb(hip_x, hip_y, swing, 0.27 * size + none, 0.028),
                limb(hip_x, hip_y, -swing, 0.27 * size + none, 0.028),
                limb(hip_x, shoulder_y, -swing, 0.2 * size + none, 0.02),
                limb(hip_x, shoulder_y, swing, 0.2 * size + none, 0.02),
            ]
        ).amax(0)
        ground = 0.75 - 0.25 * grid.view(1, 1, -1, 1) * u[:, 6].view(-1, 1, 1, 1)
        shade = (0.15 + 0.3 * u[:, 7]).view(-1, 1, 1, 1)
        frames = ground * (1 - figure) + shade * figure
        return F.interpolate(frames, scale_factor=2, mode="bilinear", align_corners=False).unsqueeze(2)


stand_in = KTHStandIn
