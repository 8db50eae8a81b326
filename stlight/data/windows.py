"""Clips that lie on the disk: windows into arrays of frames, of which no more is ever in memory than what is being read."""

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stlight.data.clips import HELD_OUT_SEED, SPLITS, Clips, Split
from stlight.data.counter import random_bits
from stlight.registry.dataset_specs import ClipShape


class Frames(NamedTuple):
    """A split's windows: an .npy file whose frames (C, H, W) follow each other, and where each window begins among them."""

    path: Path
    starts: np.ndarray


class Windows(Clips):
    """Clips of a given shape from files; frames of another size are resized to it, bilinearly and without smoothing.

    uint8 frames are divided by 255, others taken as they are. Training clips come in a new order every epoch, each once before
    any comes again; held-out clips in one order, mixed, so that the first few are of all kinds.
    """

    def __init__(
        self, frames: dict[Split, Frames], shape: ClipShape, *, seed: int = 0, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(seed=seed, device=device)
        self.shape = shape
        self._frames = frames
        self._order: tuple[tuple[int, ...], Tensor] = ((), torch.empty(0))

    @property
    def index_device(self) -> torch.device:
        """The host, which reads: it would have to wait for numbers from a GPU until that has done all it was given."""
        return torch.device("cpu")

    def available(self, split: Split) -> int:
        """How many different clips a split has."""
        return len(self._frames[split].starts)

    def clips(self, split: Split, index_N: Tensor, epoch: int = 0) -> Tensor:
        """Clips by number; see `Clips.clips`. Raises `IndexError` beyond the last held-out clip."""
        frames_NTCHW = self._read(split, self._chosen(split, index_N.cpu(), epoch)).to(self.device, non_blocking=True)
        clips = frames_NTCHW.float()
        if clips.shape[-2:] != self.shape[-2:]:
            resized = F.interpolate(clips.flatten(0, 1), self.shape[-2:], mode="bilinear", align_corners=False)
            clips = resized.unflatten(0, clips.shape[:2])
        return clips.div_(255) if frames_NTCHW.dtype == torch.uint8 else clips

    def batches(self, split: Split, indices: Iterable[Tensor], epoch: int = 0) -> Iterator[Tensor]:
        """The clips of each index in turn, each read while what is done with the one before takes its time."""
        coming: Future[Tensor] | None = None
        with ThreadPoolExecutor(1) as pool:
            for index_N in indices:
                before, coming = coming, pool.submit(self.clips, split, index_N, epoch)
                if before:
                    yield before.result()
            if coming:
                yield coming.result()

    def _chosen(self, split: Split, index_N: Tensor, epoch: int) -> np.ndarray:
        """Where the clips asked for begin."""
        count = self.available(split)
        if split != "train" and len(index_N) and int(index_N.max()) >= count:
            raise IndexError(f"there are {count} {split} clips, clip {int(index_N.max())} was asked for")
        key = (self.seed, epoch) if split == "train" else (HELD_OUT_SEED, 0)
        chosen = torch.empty_like(index_N)
        for round_number in torch.div(index_N, count, rounding_mode="floor").unique().tolist():
            of_round = torch.div(index_N, count, rounding_mode="floor") == round_number
            chosen[of_round] = self._shuffled((*key, SPLITS.index(split), round_number), count)[index_N[of_round] % count]
        return self._frames[split].starts[chosen.numpy()]

    def _shuffled(self, key: tuple[int, ...], count: int) -> Tensor:
        """0 … count - 1 in an order that depends on the key alone. The last one is kept: an epoch asks for it every step."""
        known, order = self._order
        if known != key:
            order = random_bits(key, torch.arange(count), 1).flatten().argsort(stable=True)
            self._order = (key, order)
        return order

    def _read(self, split: Split, starts_N: np.ndarray) -> Tensor:
        # Mapped anew each time, so that what was read before does not stay in the process.
        frames = np.load(self._frames[split].path, mmap_mode="r")
        frames = frames.reshape(-1, *frames.shape[-3:])
        num_frames = self.shape.context_frames + self.shape.horizon_frames
        size = (len(starts_N), num_frames, *frames.shape[1:])
        dtype = torch.from_numpy(np.empty(0, frames.dtype)).dtype
        clips = torch.empty(size, dtype=dtype, pin_memory=self.device.type == "cuda")
        into = clips.numpy()
        for place, start in enumerate(starts_N):
            into[place] = frames[start : start + num_frames]
        return clips
