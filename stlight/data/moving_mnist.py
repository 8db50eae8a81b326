"""Moving MNIST: two digits drift over a 64×64 canvas and turn back at its edges (10 → 10 frames).

The motion follows the benchmark's generator: position (x, y) uniform in [0, 1]², angle uniform, step 0.1 a frame, move
first, then clamp to [0, 1] and turn that axis back on touching an edge; pixel offset = floor(36 · position); digits are
pasted with the maximum.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stlight.data.clips import HELD_OUT_SEED, SPLITS, Clips, Split
from stlight.data.counter import integers, random_bits, uniform, unit_circle
from stlight.data.moving_mnist_files import read_test_sequence
from stlight.kernels.frames import paste

CANVAS = 64
DIGIT = 28
STEP = 0.1
DIGITS_PER_CLIP = 2


def positions(start: Tensor, velocity: Tensor, num_frames: int) -> Tensor:
    """Positions in [0, 1] after 1 … num_frames moves, in closed form: (…,) float64 → (…, num_frames).

    Clamping on touch makes the path periodic from the first touch on: every crossing takes the same whole number of
    moves, ceil(1 / |velocity|), however far the last of them overshoots. So no frame needs the one before it.
    """
    speed = velocity.abs().clamp_min(1e-12).unsqueeze(-1)
    forward = (velocity > 0).unsqueeze(-1)
    start = start.unsqueeze(-1)
    move = torch.arange(1, num_frames + 1, device=start.device, dtype=torch.float64)

    # As if every digit first moved towards 1; those that move towards 0 are mirrored.
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
    num_clips, num_digits, num_frames = top_NGT.shape
    device = digits_NGHW.device
    pixel = torch.arange(DIGIT, device=device)
    in_patch = (pixel.unsqueeze(1) * CANVAS + pixel).flatten()
    frame = torch.arange(num_clips * num_frames, device=device).view(num_clips, num_frames) * CANVAS**2
    canvas = torch.zeros(num_digits, num_clips * num_frames * CANVAS**2, dtype=torch.uint8, device=device)
    for digit in range(num_digits):
        corner_NT = frame + top_NGT[:, digit] * CANVAS + left_NGT[:, digit]
        index = (corner_NT.unsqueeze(-1) + in_patch).flatten()
        values = digits_NGHW[:, digit].reshape(num_clips, 1, -1).expand(-1, num_frames, -1).flatten()
        canvas[digit].scatter_(0, index, values)
    return canvas.amax(0).view(num_clips, num_frames, CANVAS, CANVAS).float().div_(255)


def moving_digits(digits_KHW: Tensor, key: tuple[int, ...], index_N: Tensor, num_frames: int) -> Tensor:
    """The clips numbered `index_N` of the stream `key`: float32 (N, num_frames, 1, 64, 64) in [0, 1]."""
    bits = random_bits(key, index_N, 4 * DIGITS_PER_CLIP).view(-1, 4, DIGITS_PER_CLIP)
    which_NG = integers(bits[:, 0], len(digits_KHW))
    x_y_turn = uniform(bits[:, 1:])
    direction = torch.stack(unit_circle(x_y_turn[:, 2]), 1)
    offset = (positions(x_y_turn[:, :2], STEP * direction, num_frames) * (CANVAS - DIGIT)).to(torch.int64)
    left, top = offset.unbind(1)
    return render(digits_KHW[which_NG], top, left).unsqueeze(2)


class MovingMNIST(Clips):
    """Moving MNIST clips, (N, 20, 1, 64, 64): made as they are asked for, or read where the test sequence is given.

    `digits` holds uint8 (K, 28, 28) images for each split, disjoint. `test_sequence` is the benchmark's own file, uint8
    (20, 10000, 64, 64); without it the test clips are drawn from the test digits.
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
        for split, images in digits.items():
            if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1:] != (DIGIT, DIGIT) or not len(images):
                raise ValueError(
                    f"{split} digits must be uint8 (K, {DIGIT}, {DIGIT}) with K at least 1, got {images.dtype} {images.shape}"
                )
        self._digits = {split: torch.from_numpy(images.copy()).to(self.device) for split, images in digits.items()}
        self._test_sequence = test_sequence

    def clips(self, split: Split, index_N: Tensor, epoch: int = 0) -> Tensor:
        """Clips by number; see `Clips.clips`. Raises `IndexError` beyond the end of a given test sequence."""
        if split == "test" and self._test_sequence is not None:
            # Mapped anew each time, so that what was read before does not stay in the process.
            sequence = read_test_sequence(self._test_sequence)
            available = sequence.shape[1]
            if int(index_N.max()) >= available:
                raise IndexError(f"the test sequence holds {available} clips, clip {int(index_N.max())} was asked for")
            chosen = np.ascontiguousarray(sequence[:, index_N.cpu().numpy()].swapaxes(0, 1))
            return torch.from_numpy(chosen).to(self.device).unsqueeze(2).float().div_(255)
        key = (self.seed if split == "train" else HELD_OUT_SEED, SPLITS.index(split), epoch)
        return moving_digits(self._digits[split], key, index_N.to(self.device), 20)
