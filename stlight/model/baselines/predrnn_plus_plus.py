"""PredRNN++ (Wang et al., 2018): causal LSTMs, whose two memories come one after the other, and a gradient highway."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stlight.model.baselines.cells import layer_inputs, zeros
from stlight.model.baselines.recurrent import Recurrent, conv
from stlight.registry.dataset_specs import ClipShape


class CausalLSTMCell(nn.Module):
    """The memory c of a layer feeds the gates of the memory m that all layers share."""

    def __init__(self, in_channels: int, hidden_dim: int, kernel_size: int = 5) -> None:
        super().__init__()
        self.of_input = conv(in_channels, 7 * hidden_dim, kernel_size)
        self.of_hidden = conv(hidden_dim, 4 * hidden_dim, kernel_size)
        self.of_cell = conv(hidden_dim, 3 * hidden_dim, kernel_size)
        self.of_memory = conv(hidden_dim, 3 * hidden_dim, kernel_size)
        # The benchmark's cell has a gate like the ST-LSTM's too, which it counts and never uses.
        self.unused = conv(2 * hidden_dim, hidden_dim, kernel_size)
        self.cell_to_memory = conv(hidden_dim, 4 * hidden_dim, kernel_size)
        self.memory_to_output = conv(hidden_dim, hidden_dim, kernel_size)
        self.merge = conv(2 * hidden_dim, hidden_dim, 1)

    def forward(self, x: Tensor, h: Tensor, c: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Input and states (B, ·, H', W') → h, c and m."""
        i_x, f_x, g_x, i_x2, f_x2, g_x2, o_x = self.of_input(x).chunk(7, 1)
        i_h, f_h, g_h, o_h = self.of_hidden(h).chunk(4, 1)
        i_c, f_c, g_c = self.of_cell(c).chunk(3, 1)
        i_m, f_m, g_m = self.of_memory(m).chunk(3, 1)
        forget = torch.sigmoid(f_x + f_h + f_c + 1)
        c = forget * c + torch.sigmoid(i_x + i_h + i_c) * torch.tanh(g_x + g_h + g_c)

        i_c2, g_c2, f_c2, o_c = self.cell_to_memory(c).chunk(4, 1)
        forget = torch.sigmoid(f_x2 + f_m + f_c2 + 1)
        m = forget * torch.tanh(g_m) + torch.sigmoid(i_x2 + i_m + i_c2) * torch.tanh(g_x2 + g_c2)

        output = torch.tanh(o_x + o_h + o_c + self.memory_to_output(m))
        return output * torch.tanh(self.merge(torch.cat((c, m), 1))), c, m


class GradientHighway(nn.Module):
    """A gated mean of its input and its own past, between the first two layers."""

    def __init__(self, hidden_dim: int, kernel_size: int = 5) -> None:
        super().__init__()
        self.of_past = conv(hidden_dim, 2 * hidden_dim, kernel_size)
        self.of_input = conv(hidden_dim, 2 * hidden_dim, kernel_size)
        for layer in (self.of_past, self.of_input):
            nn.init.uniform_(layer.weight, -0.001, 0.001)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """Both (B, ·, H', W')."""
        p, u = (self.of_input(x) + self.of_past(z)).chunk(2, 1)
        gate = torch.sigmoid(u)
        return gate * torch.tanh(p) + (1 - gate) * z


@dataclass(frozen=True)
class State:
    """Hidden states and memories of the layers, the shared memory, and the highway's past."""

    h: list[Tensor]
    c: list[Tensor]
    m: Tensor
    z: Tensor


class PredRNNPlusPlus(Recurrent):
    """Four layers of 128 channels, filters of 5 × 5."""

    name = "PredRNN++"

    def __init__(self, shape: ClipShape, *, width: float = 1.0, depth: float = 1.0) -> None:
        super().__init__(shape, width=width, depth=depth)
        self.hidden_dim = self.wide(128)
        self.highway = GradientHighway(self.hidden_dim)
        inputs = layer_inputs(self.patch_channels, self.hidden_dim, self.deep(4, least=2))
        self.cells = nn.ModuleList(CausalLSTMCell(channels, self.hidden_dim) for channels in inputs)
        self.readout = conv(self.hidden_dim, self.patch_channels, 1)

    def begin(self, frame: Tensor) -> State:
        """Zeros."""
        zero = zeros(frame, self.hidden_dim)
        return State([zero] * len(self.cells), [zero] * len(self.cells), zero, zero)

    def step(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        """Through all layers, by the highway from the first to the second."""
        x, m, z = frame, state.m, state.z
        hidden, cells = [], []
        for layer, (cell, h, c) in enumerate(zip(self.cells, state.h, state.c, strict=True)):
            h, c, m = cell(x, h, c, m)
            hidden.append(h)
            cells.append(c)
            if layer == 0:
                z = self.highway(h, z)
            x = z if layer == 0 else h
        return self.readout(x), State(hidden, cells, m, z)
