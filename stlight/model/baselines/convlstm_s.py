"""ConvLSTM (Shi et al., 2015): an LSTM whose products are convolutions."""

import torch
from torch import Tensor, nn

from stlight.model.baselines.recurrent import Recurrent, gate_conv
from stlight.registry.dataset_specs import ClipShape


class ConvLSTMCell(nn.Module):
    """One layer. The benchmark's cell also holds two unused weights, which its parameter count includes.

    Up to version 0.3.0 the benchmark reads h from the candidate g, so that the memory c never reaches the output.
    """

    def __init__(self, in_channels: int, hidden_dim: int, *, corrected: bool) -> None:
        super().__init__()
        self.corrected = corrected
        self.of_input = gate_conv(in_channels, 4 * hidden_dim)
        self.of_hidden = gate_conv(hidden_dim, 4 * hidden_dim)
        self.unused = nn.ModuleList([gate_conv(2 * hidden_dim, hidden_dim), gate_conv(2 * hidden_dim, hidden_dim, 1)])

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Map the input and the states h, c, all (B, ·, H', W'), to the next h and c."""
        i, f, g, o = (self.of_input(x) + self.of_hidden(h)).chunk(4, 1)
        g = torch.tanh(g)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * g
        return torch.sigmoid(o) * (torch.tanh(c) if self.corrected else g), c


class ConvLSTM(Recurrent):
    """Four layers of 128 channels, 5 × 5 filters. The state holds h and c of each layer."""

    def __init__(
        self, shape: ClipShape, *, width: float = 1.0, depth: float = 1.0, patch_size: int = 4, corrected: bool = False
    ) -> None:
        super().__init__(shape, width=width, depth=depth, patch_size=patch_size)
        inputs = self.layer_inputs(self.deep(4))
        self.cells = nn.ModuleList(ConvLSTMCell(channels, self.hidden_dim, corrected=corrected) for channels in inputs)
        self.readout = gate_conv(self.hidden_dim, self.patch_channels, 1)

    def begin(self, frame: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return zeros."""
        return [(self.zeros(frame),) * 2 for _ in self.cells]

    def step(self, frame: Tensor, state: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Pass the frame upward through all layers."""
        x, after = frame, []
        for cell, (h, c) in zip(self.cells, state, strict=True):
            x, c = cell(x, h, c)
            after.append((x, c))
        return self.readout(x), after
