"""MIM, Memory In Memory (Wang et al., 2019): cells that model how the hidden state changes, in place of a forget gate."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stlight.model.baselines.cells import SpatioTemporalLSTMCell, zeros
from stlight.model.baselines.recurrent import Recurrent, conv
from stlight.registry.dataset_specs import ClipShape


class Peephole(nn.Module):
    """An LSTM cell whose gates see its memory place by place: the module N of a layer, and S within `MIMCell`."""

    def __init__(self, hidden_dim: int, height: int, width: int, kernel_size: int = 5) -> None:
        super().__init__()
        self.of_cell = nn.Parameter(torch.zeros(2 * hidden_dim, height, width))
        self.of_new_cell = nn.Parameter(torch.zeros(hidden_dim, height, width))
        self.of_hidden = conv(hidden_dim, 4 * hidden_dim, kernel_size)
        self.of_input = conv(hidden_dim, 4 * hidden_dim, kernel_size)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Input and states (B, ·, H', W') → h and c."""
        i, g, f, o = (self.of_hidden(h) + self.of_input(x)).chunk(4, 1)
        i_c, f_c = (c.repeat(1, 2, 1, 1) * self.of_cell).chunk(2, 1)
        c = torch.sigmoid(f + f_c + 1) * c + torch.sigmoid(i + i_c) * torch.tanh(g)
        return torch.sigmoid(o + c * self.of_new_cell) * torch.tanh(c), c


class MIMCell(nn.Module):
    """An ST-LSTM in which the module S, told how the layer below has changed, stands for the forget gate of c."""

    def __init__(self, hidden_dim: int, height: int, width: int, kernel_size: int = 5) -> None:
        super().__init__()
        self.stationary = Peephole(hidden_dim, height, width, kernel_size)
        self.of_hidden = conv(hidden_dim, 3 * hidden_dim, kernel_size)
        self.of_memory = conv(hidden_dim, 4 * hidden_dim, kernel_size)
        self.of_input = conv(hidden_dim, 4 * hidden_dim, kernel_size)
        self.merge = conv(2 * hidden_dim, hidden_dim, 1)

    def forward(
        self, x: Tensor, change: Tensor, h: Tensor, c: Tensor, m: Tensor, s: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Input, change of the layer below, and states (B, ·, H', W') → h, c, m and S's own memory s."""
        i_x, g_x, f_x, o_x = self.of_input(x).chunk(4, 1)
        i_h, g_h, o_h = self.of_hidden(h).chunk(3, 1)
        i_m, g_m, f_m, o_m = self.of_memory(m).chunk(4, 1)
        m = torch.sigmoid(f_x + f_m + 1) * m + torch.sigmoid(i_x + i_m) * torch.tanh(g_x + g_m)
        remembered, s = self.stationary(change, c, s)
        c = remembered + torch.sigmoid(i_x + i_h) * torch.tanh(g_x + g_h)
        output = torch.sigmoid(o_x + o_h + o_m)
        return output * torch.tanh(self.merge(torch.cat((c, m), 1))), c, m, s


@dataclass(frozen=True)
class State:
    """Hidden states and memories of the layers, the shared memory, and the states of the modules S and N."""

    h: list[Tensor]
    c: list[Tensor]
    m: Tensor
    s: list[Tensor]
    change: list[tuple[Tensor, Tensor]]


class MIM(Recurrent):
    """An ST-LSTM and three MIM layers of 128 channels, filters of 5 × 5.

    Every state begins with zeros in every clip, and gradients flow through all of them. In the benchmark's code the memory of
    S goes on from one batch into the next, without its gradient.
    """

    name = "MIM"

    def __init__(self, shape: ClipShape, *, width: float = 1.0, depth: float = 1.0) -> None:
        super().__init__(shape, width=width, depth=depth)
        self.hidden_dim = d = self.wide(128)
        size = shape.height // self.patch_size, shape.width // self.patch_size
        layers = self.deep(4, least=2) - 1
        self.first = SpatioTemporalLSTMCell(self.patch_channels, d)
        self.cells = nn.ModuleList(MIMCell(d, *size) for _ in range(layers))
        self.non_stationary = nn.ModuleList(Peephole(d, *size) for _ in range(layers))
        # The benchmark's modules N have one layer each that is counted and never used.
        self.unused = nn.ModuleList(conv(2 * d, d, 1) for _ in range(layers))
        self.readout = conv(d, self.patch_channels, 1)

    def begin(self, frame: Tensor) -> State:
        """Zeros."""
        zero, layers = zeros(frame, self.hidden_dim), len(self.cells)
        return State([zero] * (layers + 1), [zero] * (layers + 1), zero, [zero] * layers, [])

    def step(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        """Through all layers, and the change of the first one's hidden state up beside them."""
        x, c, m, *_ = self.first(frame, state.h[0], state.c[0], state.m)
        hidden, cells, memories = [x], [c], []
        changes = self.changes(x - state.h[0], state.change)
        layers = zip(self.cells, changes, state.h[1:], state.c[1:], state.s, strict=True)
        for cell, (change, _), h, c, s in layers:
            x, c, m, s = cell(x, change, h, c, m, s)
            hidden.append(x)
            cells.append(c)
            memories.append(s)
        return self.readout(x), State(hidden, cells, m, memories, changes)

    def changes(self, change: Tensor, before: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
        """How each layer's hidden state changes, by the module N beside it; nothing has changed yet at the first frame."""
        if not before:
            return [(torch.zeros_like(change),) * 2] * len(self.cells)
        after = []
        for non_stationary, states in zip(self.non_stationary, before, strict=True):
            change, cell = non_stationary(change, *states)
            after.append((change, cell))
        return after
