"""The recurrent baselines by the compiled kernels: cells whose convolutions are computed by frequency, and fused gates."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from stlight.kernels.spectral import Convolution, call, frequencies
from stlight.model.baselines.convlstm_s import ConvLSTMCell
from stlight.model.baselines.mim import MIMCell, Peephole
from stlight.model.baselines.predrnn import PredRNNV2, SpatioTemporalLSTMCell
from stlight.model.baselines.predrnn_plus_plus import CausalLSTMCell, GradientHighway
from stlight.model.baselines.recurrent import Recurrent


def swap(x: Tensor) -> Tensor:
    """(B, C, H, W) ↔ (H, W, B, C), without a copy."""
    return x.permute(2, 3, 0, 1)


def inside(*tensors: Tensor) -> list[Tensor]:
    """(B, C, H, W) → (H, W, B, C) in memory, without a copy for what the kernels returned."""
    return [swap(x).contiguous() for x in tensors]


def outside(*tensors: Tensor | None) -> Any:
    """(H, W, B, C) → (B, C, H, W)."""
    return tuple(None if x is None else swap(x) for x in tensors)


class _Convolve(torch.autograd.Function):
    """The sum of convolutions."""

    @staticmethod
    def forward(ctx: Any, convolution: Convolution, _: Tensor, *inputs: Tensor) -> Tensor:
        xs = inside(*inputs)
        ctx.convolution = convolution
        ctx.save_for_backward(*xs)
        return swap(convolution(xs))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        dxs = ctx.convolution.backward(*inside(dout), ctx.saved_tensors, ctx.needs_input_grad[2:])
        return None, None, *outside(*dxs)


class _Memory(torch.autograd.Function):
    """c' = sigmoid(f + bias) c + added, added = sigmoid(i) tanh(g), where i, f, g are a sum of convolutions."""

    @staticmethod
    def forward(ctx: Any, convolution: Convolution, _: Tensor, bias: float, keep: bool, c: Tensor, *inputs: Tensor) -> Any:
        c, *xs = inside(c, *inputs)
        gates, out, added = convolution(xs), torch.empty_like(c), torch.empty_like(c) if keep else None
        ctx.convolution, ctx.sizes = convolution, (c.numel() // c.shape[3], c.shape[3], gates.shape[3], bias)
        ctx.set_materialize_grads(False)
        call("remember", *ctx.sizes, *gates.chunk(3, 3), c, out, added)
        ctx.save_for_backward(c, gates, *xs)
        return outside(out, added) if keep else swap(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor | None, dadded: Tensor | None = None) -> tuple[Tensor | None, ...]:
        c, gates, *xs = ctx.saved_tensors
        dgates, dc = torch.empty_like(gates), torch.empty_like(c)
        (dout,) = inside(dout) if dout is not None else (torch.zeros_like(c),)
        (dadded,) = inside(dadded) if dadded is not None else (None,)
        call("remember_backward", *ctx.sizes, *gates.chunk(3, 3), c, dout, dadded, *dgates.chunk(3, 3), dc)
        dxs = ctx.convolution.backward(dgates, xs, ctx.needs_input_grad[5:])
        return None, None, None, None, *outside(dc, *dxs)


class _Emit(torch.autograd.Function):
    """h = sigmoid(o) tanh(y), or tanh(o) tanh(y) if `both`."""

    @staticmethod
    def forward(ctx: Any, both: bool, o: Tensor, y: Tensor) -> Tensor:
        o, y = inside(o, y)
        out, ctx.both = torch.empty_like(y), both
        call("emit", y.numel(), both, o, y, out)
        ctx.save_for_backward(o, y)
        return swap(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        o, y = ctx.saved_tensors
        d_o, dy = torch.empty_like(o), torch.empty_like(y)
        call("emit_backward", y.numel(), ctx.both, o, y, *inside(dout), d_o, dy)
        return None, *outside(d_o, dy)


class _Output(torch.autograd.Function):
    """h = sigmoid(o) tanh(y), or tanh(o) tanh(y): o is a sum of convolutions, y a pointwise convolution of the last two inputs."""

    @staticmethod
    def forward(ctx: Any, convolution: Convolution, _: Tensor, both: bool, merge: Tensor, *inputs: Tensor) -> Tensor:
        xs = inside(*inputs)
        o = convolution(xs)
        d = o.shape[3]
        c, m, weight = xs[-2].view(-1, d), xs[-1].view(-1, d), merge.flatten(1)
        y = torch.addmm(c @ weight[:, :d].T, m, weight[:, d:].T)
        out = torch.empty_like(o)
        call("emit", o.numel(), both, o, y, out)
        ctx.convolution, ctx.both = convolution, both
        ctx.save_for_backward(o, y, merge, *xs)
        return swap(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        o, y, merge, *xs = ctx.saved_tensors
        d_o, dy, d, weight = torch.empty_like(o), torch.empty_like(y), y.shape[1], merge.flatten(1)
        call("emit_backward", o.numel(), ctx.both, o, y, *inside(dout), d_o, dy)
        dxs = ctx.convolution.backward(d_o, xs, ctx.needs_input_grad[4:])
        dmerge = torch.cat([dy.T @ x.view(-1, d) for x in xs[-2:]], 1).view_as(merge)
        for dx, part in zip(dxs[-2:], weight.split(d, 1), strict=True):
            dx.view(-1, d).addmm_(dy, part)
        return None, None, None, dmerge, *outside(*dxs)


class _Pointwise(torch.autograd.Function):
    """A pointwise convolution without bias."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, x: Tensor) -> Tensor:
        (x,) = inside(x)
        ctx.save_for_backward(x, weight)
        return swap(x @ weight.flatten(1).T)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        (dout,) = inside(dout)
        dweight = dout.flatten(0, 2).T @ x.flatten(0, 2)
        return dweight.view_as(weight), swap(dout @ weight.flatten(1))


class Sum:
    """A sum of convolutions with the weights of a cell, for one unrolled model."""

    def __init__(self, model: Recurrent, *weights: Tensor) -> None:
        self.convolution = Convolution(frequencies(*model.frame_size, weights[0].shape[2]), *weights)
        self.common = self.convolution, self.convolution.handle

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Return the sum."""
        return _Convolve.apply(*self.common, *inputs)

    def memory(self, c: Tensor, *inputs: Tensor, bias: float = 1.0, keep: bool = False) -> Any:
        """Return the next memory, whose gates i, f, g are the sum; with `keep` also what was added to it."""
        return _Memory.apply(*self.common, bias, keep, c, *inputs)

    def output(self, merge: Tensor, *inputs: Tensor, both: bool = False) -> Tensor:
        """Return the output of a cell whose gate is the sum."""
        return _Output.apply(*self.common, both, merge, *inputs)


class FastConvLSTM:
    """ConvLSTMCell."""

    def __init__(self, cell: ConvLSTMCell, model: Recurrent) -> None:
        self.cell, d = cell, model.hidden_dim
        (c_x, o_x), (c_h, o_h) = (conv.weight.split([3 * d, d]) for conv in (cell.of_input, cell.of_hidden))
        self.c = Sum(model, c_x, c_h)
        self.o = Sum(model, o_x, o_h)
        self.g = None if cell.corrected else Sum(model, c_x[2 * d :], c_h[2 * d :])

    def __call__(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        c = self.c.memory(c, x, h, bias=0.0)
        return _Emit.apply(False, self.o(x, h), self.g(x, h) if self.g else c), c


class FastSpatioTemporalLSTM:
    """SpatioTemporalLSTMCell."""

    def __init__(self, cell: SpatioTemporalLSTMCell, model: Recurrent) -> None:
        self.merge, self.keep, d = cell.merge.weight, isinstance(model, PredRNNV2), model.hidden_dim
        c_x, m_x, o_x = cell.of_input.weight.split([3 * d, 3 * d, d])
        c_h, o_h = cell.of_hidden.weight.split([3 * d, d])
        self.c, self.m = Sum(model, c_x, c_h), Sum(model, m_x, cell.of_memory.weight)
        self.o = Sum(model, o_x, o_h, *cell.output_gate.weight.split(d, 1))

    def __call__(self, x: Tensor, h: Tensor, c: Tensor, m: Tensor) -> tuple[Tensor | None, ...]:
        added_c = added_m = None
        if self.keep:
            (c, added_c), (m, added_m) = self.c.memory(c, x, h, keep=True), self.m.memory(m, x, m, keep=True)
        else:
            c, m = self.c.memory(c, x, h), self.m.memory(m, x, m)
        return self.o.output(self.merge, x, h, c, m), c, m, added_c, added_m


class FastCausalLSTM:
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
        c = self.c.memory(c, x, h, c if self.cell.corrected else m)
        m = self.m.memory(torch.tanh(self.kept(m)), x, m, c)
        return self.o.output(self.cell.merge.weight, x, h, c, m, both=True), c, m


class FastGradientHighway:
    """GradientHighway: 1 - sigmoid(u) = sigmoid(-u), so that it is a memory whose forget gate is -u."""

    def __init__(self, cell: GradientHighway, model: Recurrent) -> None:
        gates = []
        for weight in (cell.of_input.weight, cell.of_past.weight):
            p, u = weight.chunk(2)
            gates.append(torch.cat((u, -u, p)))
        self.z = Sum(model, *gates)

    def __call__(self, x: Tensor, z: Tensor) -> Tensor:
        return self.z.memory(z, x, z, bias=0.0)


def fast_readout(conv: nn.Conv2d, model: Recurrent) -> Callable[[Tensor], Tensor]:
    return partial(_Pointwise.apply, conv.weight)


FAST: dict[type[nn.Module], Callable[[Any, Recurrent], Any]] = {
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
        faster = object.__new__(type(self.model))
        vars(faster).update({name: value for name, value in vars(self.model).items() if name != "unroll"})
        for name, child in self.model.named_children():
            vars(faster)[name] = self._fast(child)
        return type(self.model).unroll(faster, clip, given)

    def _fast(self, module: nn.Module) -> Any:
        if isinstance(module, nn.ModuleList):
            return [self._fast(child) for child in module]
        return FAST[type(module)](module, self.model) if type(module) in FAST else module
