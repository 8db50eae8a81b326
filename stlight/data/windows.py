"""Clips on disk: windows into arrays of frames. Only the frames being read are in memory."""

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stlight.data.clips import HELD_OUT_SEED, SPLITS, Clips, Split, random_bits
from stlight.data.prepare import Prepared
from stlight.registry.dataset_specs import ClipShape

# An .npy file of frames (C, H, W), and the position of the first frame of each clip.
Frames = tuple[Path, np.ndarray]


class Windows(Clips):
    """Clips of a given shape from files; frames of another size are resized bilinearly, without anti-aliasing.

    uint8 frames are divided by 255, others are not scaled. Training clips come in a new order every epoch, and each clip comes
    once before any is repeated. Held-out clips come in one fixed, shuffled order, so that the first few are of all kinds.
    """

    def __init__(
        self, frames: dict[Split, Frames], shape: ClipShape, *, seed: int = 0, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(seed=seed, device=device)
        self.shape = shape
        self._frames = frames

    @property
    def index_device(self) -> torch.device:
        """The CPU, which reads the files. Indices on a GPU would make it wait for the GPU's queue at every batch."""
        return torch.device("cpu")

    def available(self, split: Split) -> int:
        """Return the number of different clips of a split."""
        return len(self._frames[split][1])

    def clips(self, split: Split, index_N: Tensor, epoch: int = 0) -> Tensor:
        """Return clips by number; see `Clips.clips`. Raises `IndexError` beyond the last held-out clip."""
        frames_NTCHW = self._read(split, self._starts(split, index_N.cpu(), epoch)).to(self.device, non_blocking=True)
        clips = frames_NTCHW.float()
        if clips.shape[-2:] != self.shape[-2:]:
            resized = F.interpolate(clips.flatten(0, 1), self.shape[-2:], mode="bilinear", align_corners=False)
            clips = resized.unflatten(0, clips.shape[:2])
        return clips.div_(255) if frames_NTCHW.dtype == torch.uint8 else clips

    def batches(self, split: Split, indices: Iterable[Tensor], epoch: int = 0) -> Iterator[Tensor]:
        """Yield the clips of each index in turn, and read the next batch in a thread while the caller uses this one."""
        pending: Future[Tensor] | None = None
        with ThreadPoolExecutor(1) as pool:
            for index_N in indices:
                previous, pending = pending, pool.submit(self.clips, split, index_N, epoch)
                if previous:
                    yield previous.result()
            if pending:
                yield pending.result()

    def _starts(self, split: Split, index_N: Tensor, epoch: int) -> np.ndarray:
        """Return the position of the first frame of each clip."""
        count = self.available(split)
        if split != "train" and len(index_N) and int(index_N.max()) >= count:
            raise IndexError(f"there are {count} {split} clips, clip {int(index_N.max())} was asked for")
        key = (self.seed, epoch) if split == "train" else (HELD_OUT_SEED, 0)
        round_N = torch.div(index_N, count, rounding_mode="floor")
        chosen = torch.empty_like(index_N)
        for round_number in round_N.unique().tolist():
            in_round = round_N == round_number
            order = _shuffled((*key, SPLITS.index(split), round_number), count)
            chosen[in_round] = order[index_N[in_round] % count]
        return self._frames[split][1][chosen.numpy()]

    def _read(self, split: Split, starts_N: np.ndarray) -> Tensor:
        # Map the file again each time, because pages of one mapping stay in the process's memory.
        stored = np.load(self._frames[split][0], mmap_mode="r")
        frames = stored.reshape(-1, *stored.shape[-3:])
        num_frames = self.shape.context_frames + self.shape.horizon_frames
        clips = torch.from_numpy(np.empty((len(starts_N), num_frames, *frames.shape[1:]), frames.dtype))
        clips = clips.pin_memory() if self.device.type == "cuda" else clips
        for clip, start in zip(clips.numpy(), starts_N, strict=True):
            clip[:] = frames[start : start + num_frames]
        return clips


@lru_cache(maxsize=2)
def _shuffled(key: tuple[int, ...], count: int) -> Tensor:
    """Return 0 … count - 1 in an order that depends on the key only. Cached because every step needs the last one."""
    return random_bits(key, torch.arange(count), 1).flatten().argsort(stable=True)


def open_windows(prepared: Prepared, shape: ClipShape, data_root: Path, *, seed: int, device: torch.device | str) -> Windows:
    """Open the clips of a prepared data set of frames."""
    files = prepared.facts["frames"]
    frames = {split: (data_root / files[split]["file"], starts) for split, starts in prepared.arrays.items()}
    return Windows(frames, shape, seed=seed, device=device)
