"""Counter-based random numbers: a pure function of (key, clip, draw), so order, batch size and device cannot matter.

Only integer operations and single IEEE additions and multiplications are used (no library `sin`, no fused operations),
so that a CPU and a GPU, or two machines, agree to the bit.
"""

import math

import torch
from torch import Tensor

# SplitMix64 (Steele, Lea and Flood, 2014): Weyl increment and the two multipliers of its finaliser, as signed 64-bit.
_INCREMENT = 0x9E3779B97F4A7C15 - 2**64
_MULTIPLIER_1 = 0xBF58476D1CE4E5B9 - 2**64
_MULTIPLIER_2 = 0x94D049BB133111EB - 2**64

# Taylor coefficients in x², highest first; for |x| ≤ π the first one left out is below 1e-16.
_SIN = [(-1) ** k / math.factorial(2 * k + 1) for k in range(14, -1, -1)]
_COS = [(-1) ** k / math.factorial(2 * k) for k in range(14, -1, -1)]


def _shift_right(bits: Tensor, count: int) -> Tensor:
    """Logical right shift: torch's own keeps the sign bit."""
    return (bits >> count) & ((1 << (64 - count)) - 1)


def _mix(bits: Tensor) -> Tensor:
    bits = (bits ^ _shift_right(bits, 30)) * _MULTIPLIER_1
    bits = (bits ^ _shift_right(bits, 27)) * _MULTIPLIER_2
    return bits ^ _shift_right(bits, 31)


def random_bits(key: tuple[int, ...], index_N: Tensor, num_draws: int) -> Tensor:
    """64 random bits for each clip and draw: (N,) int64 clip numbers → (N, num_draws) int64.

    `key` names the stream, for example (seed, split, epoch); every entry takes part by a full mixing round.
    """
    state = torch.zeros((), dtype=torch.int64, device=index_N.device)
    for part in key:
        state = _mix(state + _INCREMENT + part)
    state_N1 = _mix(state + _INCREMENT + index_N).unsqueeze(1)
    counter_D = torch.arange(1, num_draws + 1, device=index_N.device)
    return _mix(state_N1 + counter_D * _INCREMENT)


def uniform(bits: Tensor) -> Tensor:
    """Random bits → float64 uniform in [0, 1), all 53 bits of the mantissa used."""
    return _shift_right(bits, 11).to(torch.float64) * 2.0**-53


def integers(bits: Tensor, upper: int) -> Tensor:
    """Random bits → int64 uniform in [0, upper); `upper` far below 2**53, where the bias is negligible."""
    return (uniform(bits) * upper).to(torch.int64)


def unit_circle(turn: Tensor) -> tuple[Tensor, Tensor]:
    """(cos, sin) of 2π·turn for turn in [0, 1), float64, to about 1e-15 and equal on every device."""
    angle = (turn - 0.5) * (2 * math.pi)
    square = angle * angle
    sine, cosine = torch.zeros_like(angle), torch.zeros_like(angle)
    for sine_term, cosine_term in zip(_SIN, _COS, strict=True):
        sine = sine * square + sine_term
        cosine = cosine * square + cosine_term
    # The half turn taken away above changes both signs.
    return -cosine, -(sine * angle)
