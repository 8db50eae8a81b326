"""MIM, Memory In Memory (Wang et al., 2019): cells that model changes of the hidden state instead of a forget gate."""

import torch
from torch import Tensor, nn

from stlight.model.baselines.predrnn import SpatioTemporalLSTMCell
from stlight.model.baselines.recurrent import Recurrent, gate_conv
from stlight.registry.dataset_specs import ClipShape


class Peephole(nn.Module):
    """LSTM cell whose gates read its memory at each position: the paper's module N, and module S within `MIMCell`."""

    def __init__(self, hidden_dim: int, height: int, width: int) -> None:
        super().__init__()
        self.of_cell = nn.Parameter(torch.zeros(2 * hidden_dim, height, width))
        self.of_new_cell = nn.Parameter(torch.zeros(hidden_dim, height, width))
        self.of_hidden = gate_conv(hidden_dim, 4 * hidden_dim)
        self.of_input = gate_conv(hidden_dim, 4 * hidden_dim)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Map the input and the states h, c, all (B, C, H', W'), to the next h and c."""
        i, g, f, o = (self.of_hidden(h) + self.of_input(x)).chunk(4, 1)
        i_c, f_c = (c.repeat(1, 2, 1, 1) * self.of_cell).chunk(2, 1)
        c = torch.sigmoid(f + f_c + 1) * c + torch.sigmoid(i + i_c) * torch.tanh(g)
        return torch.sigmoid(o + c * self.of_new_cell) * torch.tanh(c), c


class MIMCell(nn.Module):
    """ST-LSTM in which module S replaces the forget gate of c. Module S reads the change of the layer below."""

    def __init__(self, hidden_dim: int, height: int, width: int) -> None:
        super().__init__()
        self.stationary = Peephole(hidden_dim, height, width)
        self.of_hidden = gate_conv(hidden_dim, 3 * hidden_dim)
        self.of_memory = gate_conv(hidden_dim, 4 * hidden_dim)
        self.of_input = gate_conv(hidden_dim, 4 * hidden_dim)
        self.merge = gate_conv(2 * hidden_dim, hidden_dim, 1)

    def forward(
        self, x: Tensor, change: Tensor, h: Tensor, c: Tensor, m: Tensor, s: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Map the input, the change of the layer below and the states, all (B, C, H', W'), to the next h, c, m and s."""
        i_x, g_x, f_x, o_x = self.of_input(x).chunk(4, 1)
        i_h, g_h, o_h = self.of_hidden(h).chunk(3, 1)
        i_m, g_m, f_m, o_m = self.of_memory(m).chunk(4, 1)
        m = torch.sigmoid(f_x + f_m + 1) * m + torch.sigmoid(i_x + i_m) * torch.tanh(g_x + g_m)
        remembered, s = self.stationary(change, c, s.detach())
        c = remembered + torch.sigmoid(i_x + i_h) * torch.tanh(g_x + g_h)
        output = torch.sigmoid(o_x + o_h + o_m)
        return output * torch.tanh(self.merge(torch.cat((c, m), 1))), c, m, s


Pair = tuple[Tensor, Tensor]
MIMState = tuple[Pair, list[tuple[Tensor, Tensor, Tensor]], Tensor, list[Pair]]
"""h and c of the ST-LSTM; h, c and S's memory s of each MIM layer; shared memory m; h and c of each module N."""


class MIM(Recurrent):
    """One ST-LSTM and three MIM layers of 128 channels, 5 × 5 filters.

    Every state starts at zero in every clip; the benchmark carries the memory of module S from one batch into the next. No
    gradient flows through that memory, as in the benchmark.
    """

    def __init__(self, shape: ClipShape, *, width: float = 1.0, depth: float = 1.0, patch_size: int = 4) -> None:
        super().__init__(shape, width=width, depth=depth, patch_size=patch_size)
        d, layers = self.hidden_dim, self.deep(4, least=2) - 1
        self.first = SpatioTemporalLSTMCell(self.patch_channels, d)
        self.cells = nn.ModuleList(MIMCell(d, *self.frame_size) for _ in range(layers))
        self.non_stationary = nn.ModuleList(Peephole(d, *self.frame_size) for _ in range(layers))
        # Unused layers of module N: the benchmark's parameter count includes them.
        self.unused = nn.ModuleList(gate_conv(2 * d, d, 1) for _ in range(layers))
        self.readout = gate_conv(d, self.patch_channels, 1)

    def begin(self, frame: Tensor) -> MIMState:
        """Return zeros."""
        zero = self.zeros(frame)
        return (zero, zero), [(zero, zero, zero) for _ in self.cells], zero, []

    def step(self, frame: Tensor, state: MIMState) -> tuple[Tensor, MIMState]:
        """Pass the frame upward through all layers, and the change of the first layer's h through the modules N."""
        (h, c), before, m, changes_before = state
        x, c, m, *_ = self.first(frame, h, c, m)
        first, layers, changes = (x, c), [], list[Pair]()
        change = x - h
        for non_stationary, pair in zip(self.non_stationary, changes_before, strict=False):
            change, cell_of_change = non_stationary(change, *pair)
            changes.append((change, cell_of_change))
        # There is no change at the first frame.
        changes = changes or [(torch.zeros_like(x),) * 2] * len(self.cells)
        for cell, (change, _), (h, c, s) in zip(self.cells, changes, before, strict=True):
            x, c, m, s = cell(x, change, h, c, m, s)
            layers.append((x, c, s))
        return self.readout(x), (first, layers, m, changes)
