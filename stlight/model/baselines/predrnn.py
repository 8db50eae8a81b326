"""PredRNN (Wang et al., 2017): layers of ST-LSTM cells, with a shared memory that zigzags through all layers.

PredRNN.V2 (Wang et al., 2021) adds a decoupling loss and reverse scheduled sampling.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stlight.model.baselines.recurrent import Recurrent, gate_conv
from stlight.model.forecaster import TrainingStep
from stlight.registry.dataset_specs import ClipShape


class SpatioTemporalLSTMCell(nn.Module):
    """ST-LSTM: a memory c of this layer, carried through time, and a memory m that all layers share."""

    def __init__(self, in_channels: int, hidden_dim: int) -> None:
        super().__init__()
        self.of_input = gate_conv(in_channels, 7 * hidden_dim)
        self.of_hidden = gate_conv(hidden_dim, 4 * hidden_dim)
        self.of_memory = gate_conv(hidden_dim, 3 * hidden_dim)
        self.output_gate = gate_conv(2 * hidden_dim, hidden_dim)
        self.merge = gate_conv(2 * hidden_dim, hidden_dim, 1)

    def forward(self, x: Tensor, h: Tensor, c: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Map the input and states (B, ·, H', W') to the next h, c and m, then the terms added to c and to m."""
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


class PredRNNState(NamedTuple):
    """h and c of each layer, the shared memory m, and the terms that each layer's last step added to c and m."""

    layers: list[tuple[Tensor, Tensor]]
    m: Tensor
    added: list[tuple[Tensor, Tensor]]


class PredRNN(Recurrent):
    """Four layers of 128 channels, 5 × 5 filters."""

    def __init__(self, shape: ClipShape, *, width: float = 1.0, depth: float = 1.0, patch_size: int = 4) -> None:
        super().__init__(shape, width=width, depth=depth, patch_size=patch_size)
        inputs = self.layer_inputs(self.deep(4))
        self.cells = nn.ModuleList(SpatioTemporalLSTMCell(channels, self.hidden_dim) for channels in inputs)
        self.readout = gate_conv(self.hidden_dim, self.patch_channels, 1)

    def begin(self, frame: Tensor) -> PredRNNState:
        """Return zeros."""
        zero = self.zeros(frame)
        return PredRNNState([(zero, zero) for _ in self.cells], zero, [])

    def step(self, frame: Tensor, state: PredRNNState) -> tuple[Tensor, PredRNNState]:
        """Pass the frame and the shared memory upward through all layers."""
        x, m, layers, added = frame, state.m, [], []
        for cell, (h, c) in zip(self.cells, state.layers, strict=True):
            x, c, m, added_c, added_m = cell(x, h, c, m)
            layers.append((x, c))
            added.append((added_c, added_m))
        return self.readout(x), PredRNNState(layers, m, added)


class PredRNNV2(PredRNN):
    """PredRNN whose two memories are pushed apart, trained from its own predictions early on."""

    def __init__(
        self, shape: ClipShape, *, width: float = 1.0, depth: float = 1.0, patch_size: int = 4, decoupling: float = 0.1
    ) -> None:
        """`decoupling` is the weight of the decoupling loss."""
        super().__init__(shape, width=width, depth=depth, patch_size=patch_size)
        self.decoupling = decoupling
        self.adapter = gate_conv(self.hidden_dim, self.hidden_dim, 1)

    def truth_probabilities(self, step: TrainingStep) -> tuple[float, float]:
        """Return the probabilities of reverse scheduled sampling: within the context they rise, after it they fall."""
        half, decay = step.sampling_steps / 2, step.sampling_steps / 10
        past = step.index - half
        if past < 0:
            return 0.5, 0.5
        if past >= half:
            return 1.0, 0.0
        return 1 - 0.5 * math.exp(-past / decay), 0.5 * (1 - past / half)

    def error(self, predicted: Tensor, target: Tensor, states: list[PredRNNState]) -> Tensor:
        """Return the mean squared error plus the weighted similarity (cosine per channel) of the terms added to c and m."""
        pairs = [[self.adapter(added).flatten(2) for added in both] for state in states for both in state.added]
        cosines = [torch.cosine_similarity(c, m, dim=2).abs().mean() for c, m in pairs]
        return F.mse_loss(predicted, target) + self.decoupling * torch.stack(cosines).mean()

    def counted_by_benchmark(self, context: Tensor) -> object:
        """Run the prediction and the decoupling loss's adapter, which a prediction does not need."""
        clip = torch.cat((context, context.new_zeros((len(context), self.shape.horizon_frames, *context.shape[2:]))), 1)
        predicted, states = self.unroll(clip, torch.ones((clip.shape[1] - 1, len(clip)), dtype=torch.bool))
        return predicted, [[self.adapter(added) for both in state.added for added in both] for state in states]
