"""The interface of every source of clips, how they read files, and how they draw random numbers.

Clip i of epoch e of seed s is the same in any order and any batch. Random numbers are a pure function of key, clip and draw,
computed with integer operations and single IEEE additions and multiplications (no library `sin`, no fused operations), so that
CPU and GPU, and any two machines, agree to the bit.
"""

import contextlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from stlight.runtime.atomic_files import StorageError

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

# Held-out clips do not depend on a run's seed.
HELD_OUT_SEED = 0x57_1167

# SplitMix64 (Steele, Lea and Flood, 2014): Weyl increment and the two multipliers of its finaliser, as signed 64-bit.
_INCREMENT = 0x9E3779B97F4A7C15 - 2**64
_MULTIPLIER_1 = 0xBF58476D1CE4E5B9 - 2**64
_MULTIPLIER_2 = 0x94D049BB133111EB - 2**64

# Taylor coefficients in x², highest first. For |x| ≤ π the first omitted term is below 1e-16.
_SIN = [(-1) ** k / math.factorial(2 * k + 1) for k in range(14, -1, -1)]
_COS = [(-1) ** k / math.factorial(2 * k) for k in range(14, -1, -1)]


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


def _shift_right(bits: Tensor, count: int) -> Tensor:
    """Shift right and fill with zeros, because torch's own shift repeats the sign bit."""
    return (bits >> count) & ((1 << (64 - count)) - 1)


def _mix(bits: Tensor) -> Tensor:
    bits = (bits ^ _shift_right(bits, 30)) * _MULTIPLIER_1
    bits = (bits ^ _shift_right(bits, 27)) * _MULTIPLIER_2
    return bits ^ _shift_right(bits, 31)


def random_bits(key: tuple[int, ...], index_N: Tensor, num_draws: int) -> Tensor:
    """Return 64 random bits for each clip and draw: (N,) int64 clip numbers → (N, num_draws) int64.

    `key` names the stream, for example (seed, split, epoch); each entry is mixed in by a full round.
    """
    state = torch.zeros((), dtype=torch.int64, device=index_N.device)
    for part in key:
        state = _mix(state + _INCREMENT + part)
    state_N1 = _mix(state + _INCREMENT + index_N).unsqueeze(1)
    counter_D = torch.arange(1, num_draws + 1, device=index_N.device)
    return _mix(state_N1 + counter_D * _INCREMENT)


def uniform(bits: Tensor) -> Tensor:
    """Convert random bits to float64 numbers uniform in [0, 1), with all 53 bits of the mantissa."""
    return _shift_right(bits, 11).to(torch.float64) * 2.0**-53


def integers(bits: Tensor, upper: int) -> Tensor:
    """Convert random bits to int64 numbers uniform in [0, upper). The bias is negligible if `upper` is far below 2**53."""
    return (uniform(bits) * upper).to(torch.int64)


def unit_circle(turn: Tensor) -> tuple[Tensor, Tensor]:
    """Return (cos, sin) of 2π·turn for turn in [0, 1): float64, accurate to about 1e-15, equal on every device."""
    angle = (turn - 0.5) * (2 * math.pi)
    square = angle * angle
    sine, cosine = torch.zeros_like(angle), torch.zeros_like(angle)
    for sine_term, cosine_term in zip(_SIN, _COS, strict=True):
        sine = sine * square + sine_term
        cosine = cosine * square + cosine_term
    # The half turn subtracted above flips both signs.
    return -cosine, -(sine * angle)
