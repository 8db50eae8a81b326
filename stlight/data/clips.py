"""The interface of every source of clips, and how they read files.

Clip i of epoch e of seed s is the same in any order and any batch.
"""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from stlight.data.counter import random_bits, uniform
from stlight.runtime.atomic_files import StorageError

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

# Held-out clips do not depend on a run's seed.
HELD_OUT_SEED = 0x57_1167


class DataError(ValueError):
    """A data file is missing or wrong; the message names the file and says what would be right."""


@contextlib.contextmanager
def reading(path: Path, expected: str) -> Iterator[None]:
    """Raise any error in the block as a `DataError` about `path`, but pass on `DataError` and `StorageError`."""
    try:
        yield
    except (DataError, StorageError):
        raise
    except FileNotFoundError:
        raise DataError(f"{path} is missing") from None
    # Readers raise many undocumented types for damaged content.
    except Exception as error:
        message = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} is not {expected} ({message})") from error


def open_array(path: Path) -> np.ndarray:
    """Memory-map an .npy file, never unpickling. Raises `DataError` unless it is a complete array of numbers."""
    with reading(path, "a readable .npy array"):
        return np.lib.format.open_memmap(path, mode="r")


class Clips(ABC):
    """A source of clips on a device."""

    def __init__(self, *, seed: int = 0, device: torch.device | str = "cpu") -> None:
        self.seed = seed
        self.device = torch.device(device)

    @property
    def index_device(self) -> torch.device:
        """Device on which the caller should create clip numbers."""
        return self.device

    def available(self, split: Split) -> int | None:
        """Return the number of different clips of a split, or None if it is unlimited."""
        return None

    @abstractmethod
    def clips(self, split: Split, index_N: Tensor, epoch: int = 0) -> Tensor:
        """Return clips by number: int64 (N,) → float32 (N, T + T', C, H, W) in [0, 1] on `device`.

        Training clips depend on seed, epoch and number only, held-out clips on the number only.
        """

    def batches(self, split: Split, indices: Iterable[Tensor], epoch: int = 0) -> Iterator[Tensor]:
        """Yield the clips of each index in turn; see `clips`."""
        for index_N in indices:
            yield self.clips(split, index_N, epoch)

    def _stream(self, split: Split, epoch: int) -> tuple[int, ...]:
        """Return the key of the random numbers that a split's clips are drawn from."""
        return (self.seed if split == "train" else HELD_OUT_SEED, SPLITS.index(split), epoch)


class StandIn(Clips):
    """Generated clips in the shape of a data set, so that its experiments run without a download.

    They resemble the real data in shape and kind of motion only. Tables label every number made with them "stand-in".
    """

    num_draws: int
    """Number of uniform random numbers that a clip is drawn from."""

    def clips(self, split: Split, index_N: Tensor, epoch: int = 0) -> Tensor:
        """Return clips by number; see `Clips.clips`."""
        bits = random_bits(self._stream(split, epoch), index_N.to(self.device), self.num_draws)
        return self._draw(uniform(bits).float())

    @abstractmethod
    def _draw(self, u_ND: Tensor) -> Tensor:
        """Return the clips that uniform numbers (N, num_draws) stand for."""
