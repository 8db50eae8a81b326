"""PhyDNet (Le Guen and Thome, 2020): a cell of partial differential equations beside ConvLSTMs, in a common encoding."""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from stlight.model.baselines.baseline import Baseline
from stlight.model.forecaster import TrainingStep
from stlight.registry.dataset_specs import ClipShape

ORDER = 7
"""Side of the filters whose moments are derivatives of orders below it in both directions."""


def block(conv: nn.Module, channels: int) -> nn.Sequential:
    """A convolution, GroupNorm of up to 16 groups, and a leaky ReLU."""
    return nn.Sequential(conv, nn.GroupNorm(math.gcd(16, channels), channels), nn.LeakyReLU(0.2))


def down(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """Encode: (H, W) → (H / stride, W / stride)."""
    return block(nn.Conv2d(in_channels, out_channels, 3, stride, 1), out_channels)


def up(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """Decode: (H, W) → (H · stride, W · stride)."""
    return block(nn.ConvTranspose2d(in_channels, out_channels, 3, stride, 1, output_padding=stride - 1), out_channels)


class PhyCell(nn.Module):
    """Predict by a learnt differential equation, then correct by the frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.derivatives = nn.Conv2d(channels, ORDER**2, ORDER, padding=ORDER // 2)
        self.norm = nn.GroupNorm(7, ORDER**2)
        self.combine = nn.Conv2d(ORDER**2, channels, 1)
        self.gate = nn.Conv2d(2 * channels, channels, 3, padding=1)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """Input and state (B, ·, H', W') → state."""
        gain = torch.sigmoid(self.gate(torch.cat((x, h), 1)))
        predicted = h + self.combine(self.norm(self.derivatives(h)))
        return predicted + gain * (x - predicted)


class ConvLSTMCell(nn.Module):
    """A layer for what no equation says."""

    def __init__(self, in_channels: int, hidden_dim: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(in_channels + hidden_dim, 4 * hidden_dim, 3, padding=1)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Input and states (B, ·, H', W') → h and c."""
        i, f, o, g = self.gates(torch.cat((x, h), 1)).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


@dataclass(frozen=True)
class State:
    """Of the physical cell, and of the layers beside it."""

    physical: Tensor
    residual: list[tuple[Tensor, Tensor]]


class PhyDNet(Baseline):
    """Codes of 64 channels at a quarter of the frame's sides; ConvLSTMs of 128, 128 and 64 channels."""

    name = "PhyDNet"

    def __init__(self, shape: ClipShape, *, width: float = 1.0, depth: float = 1.0) -> None:
        super().__init__(shape, width=width, depth=depth)
        self.channels = d = self.wide(64)
        half, layers = d // 2, self.deep(3)
        self.physical = PhyCell(d)
        self.residual_dims = dims = [2 * d] * (layers - 1) + [d]
        self.residual = nn.ModuleList(ConvLSTMCell(*pair) for pair in pairwise([d, *dims]))
        self.encoder = nn.Sequential(down(shape.channels, half, 2), down(half, half, 1), down(half, d, 2))
        self.encoder_physical, self.encoder_residual = (nn.Sequential(down(d, d, 1), down(d, d, 1)) for _ in range(2))
        self.decoder_physical, self.decoder_residual = (nn.Sequential(up(d, d, 1), up(d, d, 1)) for _ in range(2))
        readout = nn.ConvTranspose2d(half, shape.channels, 3, 2, 1, output_padding=1)
        self.decoder = nn.Sequential(up(d, half, 2), up(half, half, 1), readout)

    def step(self, frame: Tensor, state: State | None) -> tuple[Tensor, State]:
        """A frame (B, C, H, W) and the state, none at first → the next frame as predicted, and the next state."""
        code = self.encoder(frame)
        if state is None:
            states = [code.new_zeros((len(code), dim, *code.shape[2:])) for dim in self.residual_dims]
            state = State(torch.zeros_like(code), [(zero, zero) for zero in states])
        physical = self.physical(self.encoder_physical(code), state.physical)
        x, residual = self.encoder_residual(code), []
        for cell, (h, c) in zip(self.residual, state.residual, strict=True):
            x, c = cell(x, h, c)
            residual.append((x, c))
        both = self.decoder_physical(physical) + self.decoder_residual(x)
        return torch.sigmoid(self.decoder(both)), State(physical, residual)

    def unroll(self, clip: Tensor, given: int) -> Tensor:
        """All next frames, the first `given` of them from the clip's own (B, T, C, H, W), the others each from the last."""
        state: State | None = None
        predicted: list[Tensor] = []
        for t in range(self.shape.context_frames + self.shape.horizon_frames - 1):
            prediction, state = self.step(clip[:, t] if t < given else predicted[-1], state)
            predicted.append(prediction)
        return torch.stack(predicted, 1)

    def predict(self, context: Tensor) -> Tensor:
        """(B, T, C, H, W) → (B, T', C, H, W)."""
        return self.unroll(context, self.shape.context_frames)[:, -self.shape.horizon_frames :]

    def training_loss(self, context: Tensor, target: Tensor, step: TrainingStep) -> Tensor:
        """The squared errors of all next frames, summed over time, and how far the filters' moments are from derivatives.

        With a probability that falls by 0.003 an epoch, of 625 steps, all true frames are given, else those of the context.
        """
        # The 50,000 steps of the benchmark's scheduled sampling are 80 of its epochs.
        epoch = math.floor(80 * step.index / step.sampling_steps)
        forced = float(torch.rand((), generator=step.generator)) < 1 - 0.003 * epoch
        clip = torch.cat((context, target), 1)
        predicted = self.unroll(clip, clip.shape[1] - 1 if forced else context.shape[1]).to(clip.dtype)
        errors = ((predicted - clip[:, 1:]) ** 2).mean((0, 2, 3, 4))
        return errors.sum() + self.moment_loss()

    def moment_loss(self) -> Tensor:
        """The i-th filter of each channel should have a single moment, 1, of the orders that i stands for."""
        weight = self.physical.derivatives.weight
        filters = weight.double()
        matrix = moment_matrix().to(filters.device)
        moments = matrix @ filters @ matrix.T
        wanted = torch.eye(ORDER**2, dtype=torch.float64, device=filters.device).view(-1, 1, ORDER, ORDER)
        return ((moments - wanted) ** 2).mean((0, 2, 3)).sum().to(weight.dtype)


def moment_matrix() -> Tensor:
    """M (7, 7), float64: M k Mᵀ are the moments of a filter k, M[i, j] = (j - 3)^i / i!."""
    places = torch.arange(ORDER, dtype=torch.float64) - ORDER // 2
    return torch.stack([places**i / math.factorial(i) for i in range(ORDER)])
