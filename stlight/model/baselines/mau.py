"""MAU (Chang et al., 2021): a motion-aware unit, which attends to its last states by how alike the frames were."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stlight.model.baselines.cells import zeros
from stlight.model.baselines.recurrent import Recurrent
from stlight.registry.dataset_specs import ClipShape

REMEMBERED = 5
"""Steps that the attention looks back (tau)."""
HALVINGS = 2
"""Of the frame's sides by the encoder (spatial reduction 4)."""


def normalized_conv(in_channels: int, out_channels: int, size: tuple[int, int], kernel_size: int = 5) -> nn.Sequential:
    """Same-padded, then LayerNorm over the whole frame."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
    return nn.Sequential(conv, nn.LayerNorm([out_channels, *size]))


class MAUCell(nn.Module):
    """One layer: a temporal state T and a spatial state S, each fused into the other."""

    def __init__(self, hidden_dim: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.scale = math.sqrt(hidden_dim * size[0] * size[1])
        self.of_fused = normalized_conv(hidden_dim, 3 * hidden_dim, size)
        self.of_temporal = normalized_conv(hidden_dim, hidden_dim, size)
        self.of_spatial = normalized_conv(hidden_dim, 3 * hidden_dim, size)
        self.query = normalized_conv(hidden_dim, hidden_dim, size)

    def forward(self, temporal: Tensor, spatial: Tensor, past_t: Tensor, past_s: Tensor) -> tuple[Tensor, Tensor]:
        """States (B, ·, H', W') and those of the last steps (5, B, ·, H', W') → both states."""
        alike = (past_s * self.query(spatial)).sum((2, 3, 4)) / self.scale
        trend = (past_t * torch.softmax(alike, 0)[..., None, None, None]).sum(0)
        gate = torch.sigmoid(self.of_temporal(temporal))
        g_t, t_t, s_t = self.of_fused(temporal * gate + (1 - gate) * trend).chunk(3, 1)
        g_s, t_s, s_s = self.of_spatial(spatial).chunk(3, 1)
        gate_t, gate_s = torch.sigmoid(g_t), torch.sigmoid(g_s)
        return gate_t * t_t + (1 - gate_t) * t_s, gate_s * s_s + (1 - gate_s) * s_t


@dataclass(frozen=True)
class State:
    """For each layer its temporal state, and the last temporal states and inputs, the newest last."""

    temporal: list[Tensor]
    past_t: list[list[Tensor]]
    past_s: list[list[Tensor]]


class MAU(Recurrent):
    """Four layers of 64 channels, filters of 5 × 5, on frames that an encoder has halved twice."""

    name = "MAU"
    patch_size = 1

    def __init__(self, shape: ClipShape, *, width: float = 1.0, depth: float = 1.0) -> None:
        super().__init__(shape, width=width, depth=depth)
        self.hidden_dim = d = self.wide(64)
        size = shape.height // 2**HALVINGS, shape.width // 2**HALVINGS
        self.cells = nn.ModuleList(MAUCell(d, size) for _ in range(self.deep(4)))
        halve = [layer for _ in range(HALVINGS) for layer in (nn.Conv2d(d, d, 3, 2, 1), nn.LeakyReLU(0.2))]
        self.encoder = nn.Sequential(nn.Conv2d(self.patch_channels, d, 1), nn.LeakyReLU(0.2), *halve)
        double = [
            layer for _ in range(HALVINGS) for layer in (nn.ConvTranspose2d(d, d, 3, 2, 1, output_padding=1), nn.LeakyReLU(0.2))
        ]
        self.decoder = nn.Sequential(*double[:-1])
        self.readout = nn.Conv2d(d, self.patch_channels, 1)
        # Of the benchmark's model: counted and never used.
        self.unused = nn.ModuleList([nn.Conv2d(2 * d, d, 1), nn.Conv2d(2 * self.patch_channels, self.patch_channels, 1)])

    def begin(self, frame: Tensor) -> State:
        """Zeros."""
        zero = zeros(frame[..., :: 2**HALVINGS, :: 2**HALVINGS], self.hidden_dim)
        past = [zero] * REMEMBERED
        return State([zero] * len(self.cells), [past] * len(self.cells), [past] * len(self.cells))

    def step(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        """Encode, through all layers, decode."""
        spatial, after = self.encoder(frame), State([], [], [])
        for cell, temporal, past_t, past_s in zip(self.cells, state.temporal, state.past_t, state.past_s, strict=True):
            after.past_s.append([*past_s[1:], spatial])
            temporal, spatial = cell(temporal, spatial, torch.stack(past_t), torch.stack(past_s))
            after.temporal.append(temporal)
            after.past_t.append([*past_t[1:], temporal])
        return self.readout(self.decoder(spatial)), after
