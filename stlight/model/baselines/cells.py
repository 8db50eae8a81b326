"""The cell that PredRNN, PredRNN.V2 and MIM are made of."""

import torch
from torch import Tensor, nn

from stlight.model.baselines.recurrent import conv


class SpatioTemporalLSTMCell(nn.Module):
    """ST-LSTM (Wang et al., 2017): a memory c of its own layer through time, and one, m, that all layers share."""

    def __init__(self, in_channels: int, hidden_dim: int, kernel_size: int = 5) -> None:
        super().__init__()
        self.of_input = conv(in_channels, 7 * hidden_dim, kernel_size)
        self.of_hidden = conv(hidden_dim, 4 * hidden_dim, kernel_size)
        self.of_memory = conv(hidden_dim, 3 * hidden_dim, kernel_size)
        self.output_gate = conv(2 * hidden_dim, hidden_dim, kernel_size)
        self.merge = conv(2 * hidden_dim, hidden_dim, 1)

    def forward(self, x: Tensor, h: Tensor, c: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Input and states (B, ·, H', W') → h, c and m, then what was added to c and to m."""
        i_x, f_x, g_x, i_x2, f_x2, g_x2, o_x = self.of_input(x).chunk(7, 1)
        i_h, f_h, g_h, o_h = self.of_hidden(h).chunk(4, 1)
        i_m, f_m, g_m = self.of_memory(m).chunk(3, 1)

        added_c = torch.sigmoid(i_x + i_h) * torch.tanh(g_x + g_h)
        c = torch.sigmoid(f_x + f_h + 1) * c + added_c
        added_m = torch.sigmoid(i_x2 + i_m) * torch.tanh(g_x2 + g_m)
        m = torch.sigmoid(f_x2 + f_m + 1) * m + added_m

        both = torch.cat((c, m), 1)
        output = torch.sigmoid(o_x + o_h + self.output_gate(both))
        return output * torch.tanh(self.merge(both)), c, m, added_c, added_m


def layer_inputs(first: int, hidden_dim: int, depth: int) -> list[int]:
    """Channels that each layer of a stack reads."""
    return [first] + [hidden_dim] * (depth - 1)


def zeros(frame: Tensor, channels: int) -> Tensor:
    """A state (B, channels, H', W') beside a frame of patches (B, C', H', W')."""
    return frame.new_zeros((len(frame), channels, *frame.shape[2:]))
