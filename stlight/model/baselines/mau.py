"""MAU (Chang et al., 2021): a motion-aware unit attends to its last states by the similarity of their inputs."""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from stlight.model.baselines.recurrent import Recurrent
from stlight.registry.dataset_specs import ClipShape

REMEMBERED = 5
"""Number of past steps that attention covers (tau)."""


def normalized_conv(in_channels: int, out_channels: int, size: tuple[int, int]) -> nn.Sequential:
    """Build a same-padded 5 × 5 convolution and a LayerNorm over the whole frame."""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 5, padding=2), nn.LayerNorm([out_channels, *size]))


class MAUCell(nn.Module):
    """One layer: a temporal state and a spatial state, each fused into the other."""

    def __init__(self, hidden_dim: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.scale = math.sqrt(hidden_dim * size[0] * size[1])
        self.of_fused = normalized_conv(hidden_dim, 3 * hidden_dim, size)
        self.of_temporal = normalized_conv(hidden_dim, hidden_dim, size)
        self.of_spatial = normalized_conv(hidden_dim, 3 * hidden_dim, size)
        self.query = normalized_conv(hidden_dim, hidden_dim, size)

    def forward(self, temporal: Tensor, spatial: Tensor, past_t: Tensor, past_s: Tensor) -> tuple[Tensor, Tensor]:
        """Map both states (B, C, H', W') and those of the last steps (5, B, C, H', W') to the next states."""
        similarity = (past_s * self.query(spatial)).sum((2, 3, 4)) / self.scale
        trend = (past_t * torch.softmax(similarity, 0)[..., None, None, None]).sum(0)
        gate = torch.sigmoid(self.of_temporal(temporal))
        g_t, t_t, s_t = self.of_fused(temporal * gate + (1 - gate) * trend).chunk(3, 1)
        g_s, t_s, s_s = self.of_spatial(spatial).chunk(3, 1)
        gate_t, gate_s = torch.sigmoid(g_t), torch.sigmoid(g_s)
        return gate_t * t_t + (1 - gate_t) * t_s, gate_s * s_s + (1 - gate_s) * s_t


MAUState = tuple[Tensor, list[Tensor], list[Tensor]]
"""Temporal state of one layer, then its last temporal states and its last inputs, newest last."""


class MAU(Recurrent):
    """Four layers of 64 channels, 5 × 5 filters, on frames that an encoder has halved."""

    published_dim: ClassVar[int] = 64

    def __init__(self, shape: ClipShape, *, width: float = 1.0, depth: float = 1.0, halvings: int = 2) -> None:
        """`halvings` is how often the encoder halves the frame."""
        super().__init__(shape, width=width, depth=depth, patch_size=1)
        d, channels = self.hidden_dim, shape.channels
        self.reduction = 2**halvings
        size = shape.height // self.reduction, shape.width // self.reduction
        self.cells = nn.ModuleList(MAUCell(d, size) for _ in range(self.deep(4)))
        halve = [layer for _ in range(halvings) for layer in (nn.Conv2d(d, d, 3, 2, 1), nn.LeakyReLU(0.2))]
        self.encoder = nn.Sequential(nn.Conv2d(channels, d, 1), nn.LeakyReLU(0.2), *halve)
        doubling = [nn.ConvTranspose2d(d, d, 3, 2, 1, output_padding=1) for _ in range(halvings)]
        self.decoder = nn.Sequential(*(layer for conv in doubling for layer in (conv, nn.LeakyReLU(0.2))))[:-1]
        self.readout = nn.Conv2d(d, channels, 1)
        # Unused, but the benchmark's parameter count includes them.
        self.unused = nn.ModuleList([nn.Conv2d(2 * d, d, 1), nn.Conv2d(2 * channels, channels, 1)])

    def begin(self, frame: Tensor) -> list[MAUState]:
        """Return zeros."""
        zero = self.zeros(frame[..., :: self.reduction, :: self.reduction])
        return [(zero, [zero] * REMEMBERED, [zero] * REMEMBERED) for _ in self.cells]

    def step(self, frame: Tensor, state: list[MAUState]) -> tuple[Tensor, list[MAUState]]:
        """Encode the frame, pass it upward through all layers, decode."""
        x, after = self.encoder(frame), list[MAUState]()
        for cell, (temporal, past_t, past_s) in zip(self.cells, state, strict=True):
            next_past_s = [*past_s[1:], x]
            temporal, x = cell(temporal, x, torch.stack(past_t), torch.stack(past_s))
            after.append((temporal, [*past_t[1:], temporal], next_past_s))
        return self.readout(self.decoder(x)), after
