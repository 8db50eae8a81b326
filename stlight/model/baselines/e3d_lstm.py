"""E3D-LSTM (Wang et al., 2019): 3D convolutions over a window of frames; each cell attends to all its past states."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stlight.model.baselines.recurrent import Recurrent
from stlight.registry.dataset_specs import ClipShape

FRAMES = 2
"""Number of frames that a convolution spans."""


class WindowConv(nn.Module):
    """Convolution over the whole window; its single result is repeated for each frame of the window.

    A stride skips positions, which then take the result of a neighbour.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, (FRAMES, 5, 5), (1, stride, stride), (0, 2, 2), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, 2, H', W') → (B, C', 2, H', W')."""
        result = self.conv(x)
        if result.shape[3:] != x.shape[3:]:
            result = F.interpolate(result, (1, *x.shape[3:]), mode="nearest")
        return result.expand(-1, -1, FRAMES, -1, -1)


class Eidetic3DLSTMCell(nn.Module):
    """One layer.

    The cell deviates from the paper twice. It passes on the shared memory unchanged, as the authors' and the benchmark's code
    do. Attention reshapes states in memory order, as the benchmark's code does, so its rows hold neighbouring positions
    instead of channels.
    """

    def __init__(self, in_channels: int, hidden_dim: int, height: int, width: int, stride: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm([hidden_dim, FRAMES, height, width])
        self.of_input = WindowConv(in_channels, 7 * hidden_dim, stride)
        self.of_hidden = WindowConv(hidden_dim, 4 * hidden_dim, stride)
        self.of_memory = WindowConv(hidden_dim, 4 * hidden_dim, stride)
        self.cell_to_output = WindowConv(hidden_dim, hidden_dim, stride)
        self.memory_to_output = WindowConv(hidden_dim, hidden_dim, stride)
        self.merge = nn.Conv3d(2 * hidden_dim, hidden_dim, 1, bias=False)

    def forward(self, x: Tensor, h: Tensor, c: Tensor, m: Tensor, past: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Map the input and states, all (B, ·, 2, H', W'), and all c up to this one, to the next h and c."""
        i_h, g_h, r_h, o_h = self.of_hidden(h).chunk(4, 1)
        i_x, g_x, r_x, o_x, i_x2, g_x2, f_x2 = self.of_input(x).chunk(7, 1)
        rows, keys = (part.reshape(len(x), -1, c.shape[1])[:, None] for part in (torch.sigmoid(r_x + r_h), torch.cat(past, 1)))
        # The fused operator does not store an attention weight for each pair of positions.
        recalled = F.scaled_dot_product_attention(rows, keys, keys, scale=1.0).reshape(c.shape)
        c = self.norm(c + recalled) + torch.sigmoid(i_x + i_h) * torch.tanh(g_x + g_h)

        i_m, f_m, g_m, m_m = self.of_memory(m).chunk(4, 1)
        forget = torch.sigmoid(f_x2 + f_m + 1)
        m = forget * torch.tanh(m_m) + torch.sigmoid(i_x2 + i_m) * torch.tanh(g_x2 + g_m)

        output = torch.tanh(o_x + o_h + self.cell_to_output(c) + self.memory_to_output(m))
        return torch.tanh(self.merge(torch.cat((c, m), 1))) * torch.sigmoid(output), c


E3DLSTMState = tuple[Tensor, list[tuple[Tensor, Tensor, list[Tensor]]], Tensor]
"""The previous frame; h, c and all past c of each layer; and the memory m that all layers share."""


class E3DLSTM(Recurrent):
    """Four layers of 128 channels, 2 × 5 × 5 filters."""

    def __init__(
        self, shape: ClipShape, *, width: float = 1.0, depth: float = 1.0, patch_size: int = 4, stride: int = 1
    ) -> None:
        """`stride` is that of the gates' convolutions."""
        super().__init__(shape, width=width, depth=depth, patch_size=patch_size)
        d, inputs = self.hidden_dim, self.layer_inputs(self.deep(4))
        self.cells = nn.ModuleList(Eidetic3DLSTMCell(channels, d, *self.frame_size, stride) for channels in inputs)
        self.readout = nn.Conv3d(d, self.patch_channels, (FRAMES, 1, 1), bias=False)

    def begin(self, frame: Tensor) -> E3DLSTMState:
        """Return zeros."""
        zero = frame.new_zeros((len(frame), self.hidden_dim, FRAMES, *frame.shape[2:]))
        return torch.zeros_like(frame), [(zero, zero, []) for _ in self.cells], zero

    def step(self, frame: Tensor, state: E3DLSTMState) -> tuple[Tensor, E3DLSTMState]:
        """Pass the previous and the current frame upward through all layers."""
        previous, before, m = state
        x, layers = torch.stack((previous, frame), 2), []
        for cell, (h, c, past) in zip(self.cells, before, strict=True):
            past = [*past, c]
            x, c = cell(x, h, c, m, past)
            layers.append((x, c, past))
        return self.readout(x).squeeze(2), (frame, layers, m)

    def error(self, predicted: Tensor, target: Tensor, states: list[E3DLSTMState]) -> Tensor:
        """Return the mean squared error plus the mean absolute error."""
        return F.mse_loss(predicted, target) + F.l1_loss(predicted, target)
