"""Clips in a lower resolution."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from stlight.data.clips import Clips, Split


class Downsampled(Clips):
    """The clips of a source with frames reduced by averaging `factor` × `factor` pixels."""

    def __init__(self, source: Clips, factor: int) -> None:
        super().__init__(seed=source.seed, device=source.device)
        self._source, self._factor = source, factor

    @property
    def index_device(self) -> torch.device:
        """Device on which the caller should create clip numbers."""
        return self._source.index_device

    def available(self, split: Split) -> int | None:
        """Return the number of different clips of a split, or None if it is unlimited."""
        return self._source.available(split)

    def clips(self, split: Split, index_N: Tensor, epoch: int = 0) -> Tensor:
        """Return clips by number, with smaller frames; see `Clips.clips`."""
        return self._reduce(self._source.clips(split, index_N, epoch))

    def batches(self, split: Split, indices: Iterable[Tensor], epoch: int = 0) -> Iterator[Tensor]:
        """Yield the clips of each index in turn; see `clips`."""
        yield from map(self._reduce, self._source.batches(split, indices, epoch))

    def _reduce(self, clips: Tensor) -> Tensor:
        return F.avg_pool2d(clips.flatten(0, 1), self._factor).unflatten(0, clips.shape[:2])
