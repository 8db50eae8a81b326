"""PredRNN++ (Wang et al., 2018): causal LSTM cells, which update two memories in turn, and a gradient highway."""

import torch
from torch import Tensor, nn

from stlight.model.baselines.recurrent import Recurrent, gate_conv
from stlight.registry.dataset_specs import ClipShape


class CausalLSTMCell(nn.Module):
    """One layer: its memory c feeds the gates of the memory m that all layers share.

    Up to version 0.3.0 the benchmark's gates of c read m where they should read c.
    """

    def __init__(self, in_channels: int, hidden_dim: int, *, corrected: bool) -> None:
        super().__init__()
        self.corrected = corrected
        self.of_input = gate_conv(in_channels, 7 * hidden_dim)
        self.of_hidden = gate_conv(hidden_dim, 4 * hidden_dim)
        self.of_cell = gate_conv(hidden_dim, 3 * hidden_dim)
        self.of_memory = gate_conv(hidden_dim, 3 * hidden_dim)
        # Unused output gate: the benchmark's parameter count includes it.
        self.unused = gate_conv(2 * hidden_dim, hidden_dim)
        self.cell_to_memory = gate_conv(hidden_dim, 4 * hidden_dim)
        self.memory_to_output = gate_conv(hidden_dim, hidden_dim)
        self.merge = gate_conv(2 * hidden_dim, hidden_dim, 1)

    def forward(self, x: Tensor, h: Tensor, c: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map the input and states (B, ·, H', W') to the next h, c and m."""
        i_x, f_x, g_x, i_x2, f_x2, g_x2, o_x = self.of_input(x).chunk(7, 1)
        i_h, f_h, g_h, o_h = self.of_hidden(h).chunk(4, 1)
        i_c, f_c, g_c = self.of_cell(c if self.corrected else m).chunk(3, 1)
        i_m, f_m, g_m = self.of_memory(m).chunk(3, 1)
        forget = torch.sigmoid(f_x + f_h + f_c + 1)
        c = forget * c + torch.sigmoid(i_x + i_h + i_c) * torch.tanh(g_x + g_h + g_c)

        i_c2, g_c2, f_c2, o_c = self.cell_to_memory(c).chunk(4, 1)
        forget = torch.sigmoid(f_x2 + f_m + f_c2 + 1)
        m = forget * torch.tanh(g_m) + torch.sigmoid(i_x2 + i_m + i_c2) * torch.tanh(g_x2 + g_c2)

        output = torch.tanh(o_x + o_h + o_c + self.memory_to_output(m))
        return output * torch.tanh(self.merge(torch.cat((c, m), 1))), c, m


class GradientHighway(nn.Module):
    """Gated mean of the input and this unit's own state, between the first two layers."""

    def __init__(self, hidden_dim: int) -> None:
        super().__init__()
        self.of_past = gate_conv(hidden_dim, 2 * hidden_dim)
        self.of_input = gate_conv(hidden_dim, 2 * hidden_dim)
        for layer in (self.of_past, self.of_input):
            nn.init.uniform_(layer.weight, -0.001, 0.001)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """Map the input and the state z, both (B, C, H', W'), to the next z."""
        p, u = (self.of_input(x) + self.of_past(z)).chunk(2, 1)
        gate = torch.sigmoid(u)
        return gate * torch.tanh(p) + (1 - gate) * z


PredRNNPlusPlusState = tuple[list[tuple[Tensor, Tensor]], Tensor, Tensor]
"""h and c of each layer, the shared memory m, and the highway's state z."""


class PredRNNPlusPlus(Recurrent):
    """Four layers of 128 channels, 5 × 5 filters."""

    def __init__(
        self, shape: ClipShape, *, width: float = 1.0, depth: float = 1.0, patch_size: int = 4, corrected: bool = False
    ) -> None:
        super().__init__(shape, width=width, depth=depth, patch_size=patch_size)
        self.highway = GradientHighway(self.hidden_dim)
        inputs = self.layer_inputs(self.deep(4, least=2))
        self.cells = nn.ModuleList(CausalLSTMCell(channels, self.hidden_dim, corrected=corrected) for channels in inputs)
        self.readout = gate_conv(self.hidden_dim, self.patch_channels, 1)

    def begin(self, frame: Tensor) -> PredRNNPlusPlusState:
        """Return zeros."""
        zero = self.zeros(frame)
        return [(zero, zero) for _ in self.cells], zero, zero

    def step(self, frame: Tensor, state: PredRNNPlusPlusState) -> tuple[Tensor, PredRNNPlusPlusState]:
        """Pass the frame upward through all layers, over the highway from the first to the second."""
        before, m, z = state
        x, layers = frame, list[tuple[Tensor, Tensor]]()
        for cell, (h, c) in zip(self.cells, before, strict=True):
            h, c, m = cell(x, h, c, m)
            x = h
            if not layers:
                x = z = self.highway(h, z)
            layers.append((h, c))
        return self.readout(x), (layers, m, z)
