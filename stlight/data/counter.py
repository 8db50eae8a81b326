"""Counter-based random numbers: a pure function of key, clip and draw, so that order and batch size cannot matter.

The code uses only integer operations and single IEEE additions and multiplications (no library `sin`, no fused operations),
so that CPU and GPU, and any two machines, agree to the bit.
"""

import math

import torch
from torch import Tensor

# SplitMix64 (Steele, Lea and Flood, 2014): Weyl increment and the two multipliers of its finaliser, as signed 64-bit.
_INCREMENT = 0x9E3779B97F4A7C15 - 2**64
_MULTIPLIER_1 = 0xBF58476D1CE4E5B9 - 2**64
_MULTIPLIER_2 = 0x94D049BB133111EB - 2**64

# Taylor coefficients in x², highest first. For |x| ≤ π the first omitted term is below 1e-16.
_SIN = [(-1) ** k / math.factorial(2 * k + 1) for k in range(14, -1, -1)]
_COS = [(-1) ** k / math.factorial(2 * k) for k in range(14, -1, -1)]


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
