"""The recurrent baselines by the compiled kernels: cells whose convolutions are computed by frequency, and fused gates."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from stlight.kernels.spectral import Frequencies, Weights, call, convolve, frequencies, spectrum
from stlight.model.baselines.convlstm_s import ConvLSTMCell
from stlight.model.baselines.mim import MIMCell, Peephole
from stlight.model.baselines.predrnn import PredRNNV2, SpatioTemporalLSTMCell
from stlight.model.baselines.predrnn_plus_plus import CausalLSTMCell, GradientHighway
from stlight.model.baselines.recurrent import Recurrent


class _Remember(torch.autograd.Function):
    """c' = sigmoid(f + bias) c + added, and added = sigmoid(i) tanh(g), if it is asked for."""

    @staticmethod
    def forward(ctx: Any, i: Tensor, f: Tensor, g: Tensor, c: Tensor, bias: float, keep: bool) -> Any:
        c = c.contiguous()
        out, added = torch.empty_like(c), torch.empty_like(c) if keep else None
        ctx.sizes, ctx.bias = (c.shape[0] * c.shape[1], c.shape[2], i.stride(1)), bias
        ctx.set_materialize_grads(False)
        call("remember", *ctx.sizes, bias, i, f, g, c, out, added)
        ctx.save_for_backward(i, f, g, c)
        return (out, added) if keep else out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor | None, dadded: Tensor | None = None) -> tuple[Tensor | None, ...]:
        i, f, g, c = ctx.saved_tensors
        gradients = torch.empty_like(c), torch.empty_like(c), torch.empty_like(c), torch.empty_like(c)
        dout = torch.zeros_like(c) if dout is None else dout.contiguous()
        dadded = None if dadded is None else dadded.contiguous()
        call("remember_backward", *ctx.sizes, ctx.bias, i, f, g, c, dout, dadded, *gradients)
        return (*gradients, None, None)


class _Emit(torch.autograd.Function):
    """h = sigmoid(o) tanh(y), or tanh(o) tanh(y) if `both`."""

    @staticmethod
    def forward(ctx: Any, o: Tensor, y: Tensor, both: bool) -> Tensor:
        o, y = o.contiguous(), y.contiguous()
        out, ctx.both = torch.empty_like(y), both
        call("emit", y.numel(), both, o, y, out)
        ctx.save_for_backward(o, y)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        o, y = ctx.saved_tensors
        d_o, dy = torch.empty_like(o), torch.empty_like(y)
        call("emit_backward", y.numel(), ctx.both, o, y, dout.contiguous(), d_o, dy)
        return d_o, dy, None


def remember(gates: Tensor, c: Tensor, bias: float = 1.0, order: str = "ifg") -> Tensor:
    """Return the next memory from gates (P, B, 3 C) in this order."""
    parts = dict(zip(order, gates.chunk(3, 2), strict=True))
    return _Remember.apply(parts["i"], parts["f"], parts["g"], c, bias, False)


class Unroll:
    """The size of frames of patches, and the transforms that all time steps share."""

    def __init__(self, model: Recurrent) -> None:
        self.model, (self.height, self.width) = model, model.frame_size
        self.transform: Frequencies = frequencies(self.height, self.width, 5)

    def enter(self, x: Tensor) -> Tensor:
        """(B, C, H', W') → (P, B, C), without a copy for what `leave` returned."""
        return x.permute(2, 3, 0, 1).reshape(-1, *x.shape[:2])

    def leave(self, x: Tensor) -> Tensor:
        """(P, B, C) → (B, C, H', W')."""
        return x.view(self.height, self.width, *x.shape[1:]).permute(2, 3, 0, 1)

    def spectra(self, *activations: Tensor) -> list[Tensor]:
        return [spectrum(x, self.transform) for x in activations]

    def weights(self, *weights: Tensor) -> list[Weights]:
        return [Weights(w, self.transform) for w in weights]

    def convolve(self, *terms: tuple[Tensor, Weights]) -> Tensor:
        return convolve(terms, self.transform)


def pointwise(weight: Tensor, *inputs: Tensor) -> Tensor:
    """Convolve activations (P, B, ·) with the parts of one weight (out, in, 1, 1)."""
    parts = weight.flatten(1).split([x.shape[2] for x in inputs], 1)
    total = inputs[0].flatten(0, 1) @ parts[0].T
    for x, part in zip(inputs[1:], parts[1:], strict=True):
        total = torch.addmm(total, x.flatten(0, 1), part.T)
    return total.view(*inputs[0].shape[:2], -1)


class FastConvLSTM:
    def __init__(self, cell: ConvLSTMCell, unroll: Unroll) -> None:
        self.cell, self.unroll = cell, unroll
        self.of_input, self.of_hidden = unroll.weights(cell.of_input.weight, cell.of_hidden.weight)

    def __call__(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        unroll = self.unroll
        x, h, c = map(unroll.enter, (x, h, c))
        of_x, of_h = unroll.spectra(x, h)
        i, f, g, o = unroll.convolve((of_x, self.of_input), (of_h, self.of_hidden)).chunk(4, 2)
        c = _Remember.apply(i, f, g, c, 0.0, False)
        return unroll.leave(_Emit.apply(o, c if self.cell.corrected else g, False)), unroll.leave(c)


class FastSpatioTemporalLSTM:
    def __init__(self, cell: SpatioTemporalLSTMCell, unroll: Unroll) -> None:
        self.unroll, self.merge = unroll, cell.merge.weight
        d = len(cell.merge.weight)
        of_input, of_hidden = cell.of_input.weight.split([3 * d, 3 * d, d]), cell.of_hidden.weight.split([3 * d, d])
        self.c = unroll.weights(of_input[0], of_hidden[0])
        self.m = unroll.weights(of_input[1], cell.of_memory.weight)
        self.o = unroll.weights(of_input[2], of_hidden[1], *cell.output_gate.weight.split(d, 1))

    def __call__(self, x: Tensor, h: Tensor, c: Tensor, m: Tensor) -> tuple[Tensor | None, ...]:
        unroll = self.unroll
        x, h, c, m = map(unroll.enter, (x, h, c, m))
        of_x, of_h, of_m = unroll.spectra(x, h, m)
        keep = isinstance(unroll.model, PredRNNV2)
        added: list[Tensor | None] = []
        memories = []
        for memory, terms in ((c, zip((of_x, of_h), self.c, strict=True)), (m, zip((of_x, of_m), self.m, strict=True))):
            i, f, g = unroll.convolve(*terms).chunk(3, 2)
            new = _Remember.apply(i, f, g, memory, 1.0, keep)
            memories.append(new[0] if keep else new)
            added.append(unroll.leave(new[1]) if keep else None)
        c, m = memories
        o = unroll.convolve(*zip((of_x, of_h, *unroll.spectra(c, m)), self.o, strict=True))
        h = _Emit.apply(o, pointwise(self.merge, c, m), False)
        return (*map(unroll.leave, (h, c, m)), *added)


class FastCausalLSTM:
    def __init__(self, cell: CausalLSTMCell, unroll: Unroll) -> None:
        self.cell, self.unroll = cell, unroll
        d = len(cell.merge.weight)
        # Gates of c; i, f, g of m; o. Those of the convolution of c stand in another order.
        c_x, i_f_x, g_x, o_x = cell.of_input.weight.split([3 * d, 2 * d, d, d])
        c_h, o_h = cell.of_hidden.weight.split([3 * d, d])
        i_c, g_c, f_c, o_c = cell.cell_to_memory.weight.split(d)
        i_f_m, self_m = cell.of_memory.weight.split([2 * d, d])
        pad = i_f_m.new_zeros((d, *i_f_m.shape[1:]))
        self.c = unroll.weights(c_x, c_h, cell.of_cell.weight)
        # i, f, g, and the gate that replaces m.
        none = pad
        self.m = unroll.weights(torch.cat((i_f_x, g_x)), torch.cat((i_f_m, none)), torch.cat((i_c, f_c, g_c)))
        self.of_m = unroll.weights(self_m)
        self.o = unroll.weights(o_x, o_h, o_c, cell.memory_to_output.weight)

    def __call__(self, x: Tensor, h: Tensor, c: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        unroll = self.unroll
        x, h, c, m = map(unroll.enter, (x, h, c, m))
        of_x, of_h, of_m = unroll.spectra(x, h, m)
        read = unroll.spectra(c)[0] if self.cell.corrected else of_m
        c = remember(unroll.convolve(*zip((of_x, of_h, read), self.c, strict=True)), c)
        (of_c,) = unroll.spectra(c)
        kept = torch.tanh(unroll.convolve((of_m, self.of_m[0])))
        m = remember(unroll.convolve(*zip((of_x, of_m, of_c), self.m, strict=True)), kept)
        o = unroll.convolve(*zip((of_x, of_h, of_c, *unroll.spectra(m)), self.o, strict=True))
        h = _Emit.apply(o, pointwise(self.cell.merge.weight, c, m), True)
        return unroll.leave(h), unroll.leave(c), unroll.leave(m)


class FastGradientHighway:
    def __init__(self, cell: GradientHighway, unroll: Unroll) -> None:
        self.unroll = unroll
        self.terms = unroll.weights(cell.of_input.weight, cell.of_past.weight)

    def __call__(self, x: Tensor, z: Tensor) -> Tensor:
        unroll = self.unroll
        x, z = map(unroll.enter, (x, z))
        p, u = unroll.convolve(*zip(unroll.spectra(x, z), self.terms, strict=True)).chunk(2, 2)
        # 1 - sigmoid(u) = sigmoid(-u).
        return unroll.leave(_Remember.apply(u.contiguous(), -u, p.contiguous(), z, 0.0, False))


def fast_readout(conv: nn.Conv2d, unroll: Unroll) -> Callable[[Tensor], Tensor]:
    return lambda x: unroll.leave(pointwise(conv.weight, unroll.enter(x)))


FAST: dict[type[nn.Module], Callable[[Any, Unroll], Any]] = {
    ConvLSTMCell: FastConvLSTM,
    SpatioTemporalLSTMCell: FastSpatioTemporalLSTM,
    CausalLSTMCell: FastCausalLSTM,
    GradientHighway: FastGradientHighway,
    nn.Conv2d: fast_readout,
}


def accelerate_recurrent(model: Recurrent) -> None:
    vars(model)["unroll"] = FastUnroll(model)


class FastUnroll:
    """The unrolling of one accelerated model, an attribute of that instance."""

    def __init__(self, model: Recurrent) -> None:
        self.model = model

    def __call__(self, clip: Tensor, given: Tensor) -> tuple[Tensor, list[Any]]:
        unroll = Unroll(self.model)
        faster = object.__new__(type(self.model))
        vars(faster).update({name: value for name, value in vars(self.model).items() if name != "unroll"})
        for name, child in self.model.named_children():
            vars(faster)[name] = self._fast(child, unroll)
        return type(self.model).unroll(faster, clip, given)

    def _fast(self, module: nn.Module, unroll: Unroll) -> Any:
        if isinstance(module, nn.ModuleList):
            return [self._fast(child, unroll) for child in module]
        return FAST[type(module)](module, unroll) if type(module) in FAST else module
