"""The cells of the recurrent baselines by the compiled kernels; each computes what the cell in its docstring does."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from stlight.kernels.attention import SpectralEidetic3DLSTM
from stlight.kernels.gates import Sum, emit, pointwise
from stlight.model.baselines.convlstm_s import ConvLSTMCell
from stlight.model.baselines.e3d_lstm import Eidetic3DLSTMCell
from stlight.model.baselines.mim import MIMCell, Peephole
from stlight.model.baselines.predrnn import PredRNNV2, SpatioTemporalLSTMCell
from stlight.model.baselines.predrnn_plus_plus import CausalLSTMCell, GradientHighway
from stlight.model.baselines.recurrent import Recurrent


class SpectralConvLSTM:
    """ConvLSTMCell. At version 0.3.0 the memory c reaches no output, so that it is not computed."""

    def __init__(self, cell: ConvLSTMCell, model: Recurrent) -> None:
        self.corrected, d = cell.corrected, model.hidden_dim
        gates = [conv.weight for conv in (cell.of_input, cell.of_hidden)]
        self.sum = Sum(model, *gates if cell.corrected else [w[2 * d :] for w in gates])

    def __call__(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Do what the cell's `forward` does."""
        if self.corrected:
            c, o, _ = self.sum.memory(c, x, h, bias=0.0)
            return emit(o, c), c
        g, o = self.sum(x, h).chunk(2, 1)
        return emit(o, g), c


class SpectralSpatioTemporalLSTM:
    """SpatioTemporalLSTMCell."""

    def __init__(self, cell: SpatioTemporalLSTMCell, model: Recurrent) -> None:
        self.merge, self.keep, d = cell.merge.weight, isinstance(model, PredRNNV2), model.hidden_dim
        c_x, m_x, o_x = cell.of_input.weight.split([3 * d, 3 * d, d])
        c_h, o_h = cell.of_hidden.weight.split([3 * d, d])
        self.c, self.m = Sum(model, c_x, c_h), Sum(model, m_x, cell.of_memory.weight)
        self.o = Sum(model, o_x, o_h, *cell.output_gate.weight.split(d, 1))

    def __call__(self, x: Tensor, h: Tensor, c: Tensor, m: Tensor) -> tuple[Tensor | None, ...]:
        """Do what the cell's `forward` does."""
        c, _, added_c = self.c.memory(c, x, h, keep=self.keep)
        m, _, added_m = self.m.memory(m, x, m, keep=self.keep)
        return self.o.output(self.merge, c, m, x, h), c, m, added_c, added_m


class SpectralCausalLSTM:
    """CausalLSTMCell."""

    def __init__(self, cell: CausalLSTMCell, model: Recurrent) -> None:
        self.cell, d = cell, model.hidden_dim
        c_x, if_x, g_x, o_x = cell.of_input.weight.split([3 * d, 2 * d, d, d])
        c_h, o_h = cell.of_hidden.weight.split([3 * d, d])
        i_c, g_c, f_c, o_c = cell.cell_to_memory.weight.split(d)
        if_m, kept_m = cell.of_memory.weight.split([2 * d, d])
        self.c = Sum(model, c_x, c_h, cell.of_cell.weight)
        self.kept = Sum(model, kept_m)
        # The candidate g does not read m.
        of_m = torch.cat((if_m, torch.zeros_like(kept_m)))
        self.m = Sum(model, torch.cat((if_x, g_x)), of_m, torch.cat((i_c, f_c, g_c)))
        self.o = Sum(model, o_x, o_h, o_c, cell.memory_to_output.weight)

    def __call__(self, x: Tensor, h: Tensor, c: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Do what the cell's `forward` does."""
        c, *_ = self.c.memory(c, x, h, c if self.cell.corrected else m)
        m, *_ = self.m.memory(torch.tanh(self.kept(m)), x, m, c)
        return self.o.output(self.cell.merge.weight, c, m, x, h, both=True), c, m


class SpectralGradientHighway:
    """GradientHighway: 1 - sigmoid(u) = sigmoid(-u), so that it is a memory whose forget gate is -u."""

    def __init__(self, cell: GradientHighway, model: Recurrent) -> None:
        gates = []
        for weight in (cell.of_input.weight, cell.of_past.weight):
            p, u = weight.chunk(2)
            gates.append(torch.cat((u, -u, p)))
        self.z = Sum(model, *gates)

    def __call__(self, x: Tensor, z: Tensor) -> Tensor:
        """Do what the cell's `forward` does."""
        return self.z.memory(z, x, z, bias=0.0)[0]


def by_position(peephole: Tensor) -> Tensor:
    """(C, H, W) → the same as (H, W, C) in memory."""
    return peephole.permute(1, 2, 0).contiguous()


class SpectralPeephole:
    """Peephole."""

    def __init__(self, cell: Peephole, model: Recurrent) -> None:
        gates = []
        for conv in (cell.of_input, cell.of_hidden):
            i, g, f, o = conv.weight.chunk(4)
            gates.append(torch.cat((i, f, g, o)))
        self.sum = Sum(model, *gates)
        self.of_cell = by_position(cell.of_cell).unflatten(2, (2, -1)).unsqueeze(2)
        self.of_new_cell = by_position(cell.of_new_cell).permute(2, 0, 1)

    def __call__(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Do what the cell's `forward` does."""
        c, o, _ = self.sum.memory(c, x, h, peephole=self.of_cell)
        return emit(torch.addcmul(o, c, self.of_new_cell), c), c


class SpectralMIM:
    """MIMCell."""

    def __init__(self, cell: MIMCell, model: Recurrent) -> None:
        self.cell, self.stationary, d = cell, SpectralPeephole(cell.stationary, model), model.hidden_dim
        (i_x, g_x, f_x, o_x), (i_m, g_m, f_m, o_m) = (w.weight.chunk(4) for w in (cell.of_input, cell.of_memory))
        c_h, o_h = cell.of_hidden.weight.split([2 * d, d])
        self.m = Sum(model, torch.cat((i_x, f_x, g_x)), torch.cat((i_m, f_m, g_m)))
        self.c = Sum(model, torch.cat((i_x, g_x)), c_h)
        self.o = Sum(model, o_x, o_h, o_m)

    def __call__(
        self, x: Tensor, change: Tensor, h: Tensor, c: Tensor, m: Tensor, s: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Do what the cell's `forward` does."""
        before = m
        m, *_ = self.m.memory(m, x, m)
        remembered, s = self.stationary(change, c, s.detach())
        c = remembered + emit(*self.c(x, h).chunk(2, 1))
        return self.o.output(self.cell.merge.weight, c, m, x, h, before), c, m, s


def _readout(conv: nn.Conv2d, model: Recurrent) -> Callable[[Tensor], Tensor]:
    return partial(pointwise, conv.weight)


def _window_readout(conv: nn.Conv3d, model: Recurrent) -> Callable[[Tensor], Tensor]:
    return lambda x: pointwise(conv.weight, x.flatten(1, 2)).unsqueeze(2)


SPECTRAL: dict[type[nn.Module], Callable[[Any, Recurrent], Any]] = {
    ConvLSTMCell: SpectralConvLSTM,
    SpatioTemporalLSTMCell: SpectralSpatioTemporalLSTM,
    CausalLSTMCell: SpectralCausalLSTM,
    GradientHighway: SpectralGradientHighway,
    Peephole: SpectralPeephole,
    MIMCell: SpectralMIM,
    Eidetic3DLSTMCell: SpectralEidetic3DLSTM,
    nn.Conv2d: _readout,
    nn.Conv3d: _window_readout,
}
"""By type of a model's children, what makes their replacement for one unrolling from the module and the model."""
