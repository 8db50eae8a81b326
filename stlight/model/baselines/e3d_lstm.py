"""E3D-LSTM (Wang et al., 2019): 3D convolutions over a window of frames, and a cell that recalls all its past by attention."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stlight.model.baselines.cells import layer_inputs
from stlight.model.baselines.recurrent import Recurrent
from stlight.registry.dataset_specs import ClipShape

WINDOW = 2
"""Frames that a convolution spans."""


class WindowConv(nn.Module):
    """A convolution over the window, its one result the same for every frame of it."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 5) -> None:
        super().__init__()
        kernel, padding = (WINDOW, kernel_size, kernel_size), (0, kernel_size // 2, kernel_size // 2)
        self.conv = nn.Conv3d(in_channels, out_channels, kernel, padding=padding, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, 2, H', W') → (B, C', 2, H', W')."""
        return self.conv(x).expand(-1, -1, WINDOW, -1, -1)


class Eidetic3DLSTMCell(nn.Module):
    """One layer.

    As in the authors' code and the benchmark's, the shared memory that it returns is the one it was given; and as in the
    benchmark's, attention reads states as they lie in memory, so that its rows hold neighbouring places, not channels.
    """

    def __init__(self, in_channels: int, hidden_dim: int, height: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm([hidden_dim, WINDOW, height, width])
        self.of_input = WindowConv(in_channels, 7 * hidden_dim)
        self.of_hidden = WindowConv(hidden_dim, 4 * hidden_dim)
        self.of_memory = WindowConv(hidden_dim, 4 * hidden_dim)
        self.cell_to_output = WindowConv(hidden_dim, hidden_dim)
        self.memory_to_output = WindowConv(hidden_dim, hidden_dim)
        self.merge = nn.Conv3d(2 * hidden_dim, hidden_dim, 1, bias=False)

    def forward(self, x: Tensor, h: Tensor, c: Tensor, m: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Input and states (B, ·, 2, H', W'), and all cells c so far one after the other in channels → h and c."""
        i_h, g_h, r_h, o_h = self.of_hidden(h).chunk(4, 1)
        i_x, g_x, r_x, o_x, i_x2, g_x2, f_x2 = self.of_input(x).chunk(7, 1)
        recalled = self.recall(torch.sigmoid(r_x + r_h), past)
        c = self.norm(c + recalled) + torch.sigmoid(i_x + i_h) * torch.tanh(g_x + g_h)

        i_m, f_m, g_m, m_m = self.of_memory(m).chunk(4, 1)
        forget = torch.sigmoid(f_x2 + f_m + 1)
        m = forget * torch.tanh(m_m) + torch.sigmoid(i_x2 + i_m) * torch.tanh(g_x2 + g_m)

        output = torch.tanh(o_x + o_h + self.cell_to_output(c) + self.memory_to_output(m))
        return torch.tanh(self.merge(torch.cat((c, m), 1))) * torch.sigmoid(output), c

    @staticmethod
    def recall(query: Tensor, past: Tensor) -> Tensor:
        """Attention of a gate (B, C, 2, H', W') over past cells (B, n·C, 2, H', W')."""
        channels = query.shape[1]
        rows, keys = query.reshape(len(query), -1, channels), past.reshape(len(past), -1, channels)
        # One operator, which holds no weight for every pair of places.
        recalled = F.scaled_dot_product_attention(rows[:, None], keys[:, None], keys[:, None], scale=1.0)
        return recalled.reshape(query.shape)


@dataclass(frozen=True)
class State:
    """The frame before, hidden states and cells of the layers, the shared memory, and every layer's cells so far."""

    frame: Tensor
    h: list[Tensor]
    c: list[Tensor]
    m: Tensor
    past: list[list[Tensor]]


class E3DLSTM(Recurrent):
    """Four layers of 128 channels, filters of 2 × 5 × 5."""

    name = "E3D-LSTM"

    def __init__(self, shape: ClipShape, *, width: float = 1.0, depth: float = 1.0) -> None:
        super().__init__(shape, width=width, depth=depth)
        self.hidden_dim = self.wide(128)
        size = shape.height // self.patch_size, shape.width // self.patch_size
        inputs = layer_inputs(self.patch_channels, self.hidden_dim, self.deep(4))
        self.cells = nn.ModuleList(Eidetic3DLSTMCell(channels, self.hidden_dim, *size) for channels in inputs)
        self.readout = nn.Conv3d(self.hidden_dim, self.patch_channels, (WINDOW, 1, 1), bias=False)

    def begin(self, frame: Tensor) -> State:
        """Zeros."""
        zero = frame.new_zeros((len(frame), self.hidden_dim, WINDOW, *frame.shape[2:]))
        layers = len(self.cells)
        return State(torch.zeros_like(frame), [zero] * layers, [zero] * layers, zero, [[] for _ in self.cells])

    def step(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        """Through all layers, with the frame before beside this one."""
        x = torch.stack((state.frame, frame), 2)
        hidden, cells, pasts = [], [], []
        for cell, h, c, past in zip(self.cells, state.h, state.c, state.past, strict=True):
            past = [*past, c]
            x, c = cell(x, h, c, state.m, torch.cat(past, 1))
            hidden.append(x)
            cells.append(c)
            pasts.append(past)
        return self.readout(x).squeeze(2), State(frame, hidden, cells, state.m, pasts)

    def error(self, predicted: Tensor, target: Tensor, states: list[State]) -> Tensor:
        """The squared and the absolute error."""
        return F.mse_loss(predicted, target) + F.l1_loss(predicted, target)
