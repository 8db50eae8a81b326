"""What every source of clips offers: clip i of epoch e of seed s, the same in whatever order and batches it is asked for."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Literal, get_args

import torch
from torch import Tensor

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

# Held-out clips are the same for every run, whatever its seed.
HELD_OUT_SEED = 0x57_1167


class DataError(ValueError):
    """A data file that is missing or is not what it should be; the message names it and says what would be right."""


class Clips(ABC):
    """A source of clips on a device."""

    def __init__(self, *, seed: int = 0, device: torch.device | str = "cpu") -> None:
        self.seed = seed
        self.device = torch.device(device)

    @property
    def index_device(self) -> torch.device:
        """Where the numbers of clips are best made."""
        return self.device

    @abstractmethod
    def clips(self, split: Split, index_N: Tensor, epoch: int = 0) -> Tensor:
        """Clips by number: int64 (N,) → float32 (N, T + T', C, H, W) in [0, 1] on `device`.

        Training clips depend on (seed, epoch, number) alone; held-out clips on the number alone.
        """

    def batches(self, split: Split, indices: Iterable[Tensor], epoch: int = 0) -> Iterator[Tensor]:
        """The clips of each index in turn; see `clips`."""
        for index_N in indices:
            yield self.clips(split, index_N, epoch)
