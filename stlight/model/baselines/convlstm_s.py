"""ConvLSTM (Shi et al., 2015): an LSTM whose products are convolutions."""

import torch
from torch import Tensor, nn

from stlight.model.baselines.cells import layer_inputs, zeros
from stlight.model.baselines.recurrent import Recurrent, conv
from stlight.registry.dataset_specs import ClipShape

State = list[tuple[Tensor, Tensor]]


class ConvLSTMCell(nn.Module):
    """One layer. The last two weights are in the benchmark's cell and its count of parameters, but in no computation."""

    def __init__(self, in_channels: int, hidden_dim: int, kernel_size: int = 5) -> None:
        super().__init__()
        self.of_input = conv(in_channels, 4 * hidden_dim, kernel_size)
        self.of_hidden = conv(hidden_dim, 4 * hidden_dim, kernel_size)
        self.unused = nn.ModuleList([conv(2 * hidden_dim, hidden_dim, kernel_size), conv(2 * hidden_dim, hidden_dim, 1)])

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Input and states (B, ·, H', W') → h and c."""
        i, f, g, o = (self.of_input(x) + self.of_hidden(h)).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class ConvLSTM(Recurrent):
    """Four layers of 128 channels, filters of 5 × 5."""

    name = "ConvLSTM-S"

    def __init__(self, shape: ClipShape, *, width: float = 1.0, depth: float = 1.0) -> None:
        super().__init__(shape, width=width, depth=depth)
        self.hidden_dim = self.wide(128)
        inputs = layer_inputs(self.patch_channels, self.hidden_dim, self.deep(4))
        self.cells = nn.ModuleList(ConvLSTMCell(channels, self.hidden_dim) for channels in inputs)
        self.readout = conv(self.hidden_dim, self.patch_channels, 1)

    def begin(self, frame: Tensor) -> State:
        """Zeros."""
        return [(zeros(frame, self.hidden_dim),) * 2 for _ in self.cells]

    def step(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        """Through all layers."""
        x, after = frame, []
        for cell, (h, c) in zip(self.cells, state, strict=True):
            x, c = cell(x, h, c)
            after.append((x, c))
        return self.readout(x), after
