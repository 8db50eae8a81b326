"""The recurrent baselines by the compiled kernels: cells whose convolutions are computed by frequency, and fused gates."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from stlight.kernels.spectral import Convolution, call, frequencies
from stlight.model.baselines.convlstm_s import ConvLSTMCell
from stlight.model.baselines.e3d_lstm import FRAMES, Eidetic3DLSTMCell
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
    """c' = sigmoid(f + bias) c + added, added = sigmoid(i) tanh(g), where i, f, g and further gates are a sum of convolutions.

    Returns c', the further gates, and, if it is asked for, what was added. A peephole (H, W, 1, 2, C) times c is added to i and f.
    """

    @staticmethod
    def forward(
        ctx: Any, convolution: Convolution, _: Tensor, bias: float, keep: bool, peephole: Tensor | None, c: Tensor, *inputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        c, *xs = inside(c, *inputs)
        gates, out, added = convolution(xs), torch.empty_like(c), torch.empty_like(c) if keep else None
        d = c.shape[3]
        if peephole is not None:
            gates[..., : 2 * d].unflatten(3, (2, d)).addcmul_(peephole, c.unsqueeze(3))
        ctx.convolution, ctx.sizes = convolution, (c.numel() // d, d, gates.shape[3], bias)
        ctx.set_materialize_grads(False)
        call("remember", *ctx.sizes, *gates[..., : 3 * d].chunk(3, 3), c, out, added)
        ctx.save_for_backward(peephole, c, gates, *xs)
        rest = gates[..., 3 * d :].contiguous() if gates.shape[3] > 3 * d else None
        return outside(out, rest, added)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor | None, drest: Tensor | None, dadded: Tensor | None) -> tuple[Tensor | None, ...]:
        peephole, c, gates, *xs = ctx.saved_tensors
        d, dgates, dc, dpeephole = c.shape[3], torch.empty_like(gates), torch.empty_like(c), None
        (dout,) = inside(dout) if dout is not None else (torch.zeros_like(c),)
        (dadded,) = inside(dadded) if dadded is not None else (None,)
        gradients = dgates[..., : 3 * d].chunk(3, 3)
        call("remember_backward", *ctx.sizes, *gates[..., : 3 * d].chunk(3, 3), c, dout, dadded, *gradients, dc)
        if gates.shape[3] > 3 * d:
            dgates[..., 3 * d :] = 0 if drest is None else swap(drest)
        if peephole is not None:
            looked = dgates[..., : 2 * d].unflatten(3, (2, d))
            dc += (looked * peephole).sum(3)
            dpeephole = (looked * c.unsqueeze(3)).sum(2, keepdim=True)
        dxs = ctx.convolution.backward(dgates, xs, ctx.needs_input_grad[6:])
        return None, None, None, None, dpeephole, *outside(dc, *dxs)


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
    """h = sigmoid(o) tanh(y), or tanh(o) tanh(y) if `both`.

    o is a sum of convolutions, of c and m too if it has that many terms. y is a pointwise convolution of c and m.
    """

    @staticmethod
    def forward(
        ctx: Any, convolution: Convolution, _: Tensor, both: bool, merge: Tensor, c: Tensor, m: Tensor, *inputs: Tensor
    ) -> Tensor:
        c, m, *xs = inside(c, m, *inputs)
        ctx.reads = len(convolution.shapes) > len(xs)
        o = convolution([*xs, c, m] if ctx.reads else xs)
        y, out = _merge(merge, c, m), torch.empty_like(o)
        call("emit", o.numel(), both, o, y, out)
        ctx.convolution, ctx.both = convolution, both
        ctx.save_for_backward(o, merge, c, m, *xs)
        return swap(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        o, merge, c, m, *xs = ctx.saved_tensors
        y = _merge(merge, c, m)
        d_o, dy, d, weight = torch.empty_like(o), torch.empty_like(y), y.shape[1], merge.flatten(1)
        call("emit_backward", o.numel(), ctx.both, o, y, *inside(dout), d_o, dy)
        dmerge = torch.cat([dy.T @ x.view(-1, d) for x in (c, m)], 1).view_as(merge)
        needed = ctx.needs_input_grad[6:]
        if not ctx.reads:
            of_memories = [(dy @ part).view_as(c) for part in weight.split(d, 1)]
            return None, None, None, dmerge, *outside(*of_memories, *ctx.convolution.backward(d_o, xs, needed))
        *dxs, dc, dm = ctx.convolution.backward(d_o, [*xs, c, m], [*needed, True, True])
        for dx, part in zip((dc, dm), weight.split(d, 1), strict=True):
            dx.view(-1, d).addmm_(dy, part)
        return None, None, None, dmerge, *outside(dc, dm, *dxs)


def _merge(weight: Tensor, c: Tensor, m: Tensor) -> Tensor:
    """Return the pointwise convolution (H W B, C) of both memories."""
    of_c, of_m = weight.flatten(1).chunk(2, 1)
    return torch.addmm(c.flatten(0, 2) @ of_c.T, m.flatten(0, 2), of_m.T)


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

    def memory(self, c: Tensor, *inputs: Tensor, bias: float = 1.0, keep: bool = False, peephole: Tensor | None = None) -> Any:
        """Return the next memory, whose gates i, f, g come first in the sum, then the other gates and what was added, or None."""
        return _Memory.apply(*self.common, bias, keep, peephole, c, *inputs)

    def output(self, merge: Tensor, c: Tensor, m: Tensor, *inputs: Tensor, both: bool = False) -> Tensor:
        """Return the output of a cell whose gate is the sum."""
        return _Output.apply(*self.common, both, merge, c, m, *inputs)


class FastConvLSTM:
    """ConvLSTMCell. At version 0.3.0 the memory c reaches no output, so that it is not computed."""

    def __init__(self, cell: ConvLSTMCell, model: Recurrent) -> None:
        self.corrected, d = cell.corrected, model.hidden_dim
        gates = [conv.weight for conv in (cell.of_input, cell.of_hidden)]
        self.sum = Sum(model, *gates if cell.corrected else [w[2 * d :] for w in gates])

    def __call__(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        if self.corrected:
            c, o, _ = self.sum.memory(c, x, h, bias=0.0)
            return _Emit.apply(False, o, c), c
        g, o = self.sum(x, h).chunk(2, 1)
        return _Emit.apply(False, o, g), c


class FastSpatioTemporalLSTM:
    """SpatioTemporalLSTMCell."""

    def __init__(self, cell: SpatioTemporalLSTMCell, model: Recurrent) -> None:
        self.merge, self.keep, d = cell.merge.weight, isinstance(model, PredRNNV2), model.hidden_dim
        c_x, m_x, o_x = cell.of_input.weight.split([3 * d, 3 * d, d])
        c_h, o_h = cell.of_hidden.weight.split([3 * d, d])
        self.c, self.m = Sum(model, c_x, c_h), Sum(model, m_x, cell.of_memory.weight)
        self.o = Sum(model, o_x, o_h, *cell.output_gate.weight.split(d, 1))

    def __call__(self, x: Tensor, h: Tensor, c: Tensor, m: Tensor) -> tuple[Tensor | None, ...]:
        c, _, added_c = self.c.memory(c, x, h, keep=self.keep)
        m, _, added_m = self.m.memory(m, x, m, keep=self.keep)
        return self.o.output(self.merge, c, m, x, h), c, m, added_c, added_m


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
        c, *_ = self.c.memory(c, x, h, c if self.cell.corrected else m)
        m, *_ = self.m.memory(torch.tanh(self.kept(m)), x, m, c)
        return self.o.output(self.cell.merge.weight, c, m, x, h, both=True), c, m


class FastGradientHighway:
    """GradientHighway: 1 - sigmoid(u) = sigmoid(-u), so that it is a memory whose forget gate is -u."""

    def __init__(self, cell: GradientHighway, model: Recurrent) -> None:
        gates = []
        for weight in (cell.of_input.weight, cell.of_past.weight):
            p, u = weight.chunk(2)
            gates.append(torch.cat((u, -u, p)))
        self.z = Sum(model, *gates)

    def __call__(self, x: Tensor, z: Tensor) -> Tensor:
        return self.z.memory(z, x, z, bias=0.0)[0]


def by_position(peephole: Tensor) -> Tensor:
    """(C, H, W) → the same as (H, W, C) in memory."""
    return peephole.permute(1, 2, 0).contiguous()


class FastPeephole:
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
        c, o, _ = self.sum.memory(c, x, h, peephole=self.of_cell)
        return _Emit.apply(False, torch.addcmul(o, c, self.of_new_cell), c), c


class FastMIM:
    """MIMCell."""

    def __init__(self, cell: MIMCell, model: Recurrent) -> None:
        self.cell, self.stationary, d = cell, FastPeephole(cell.stationary, model), model.hidden_dim
        (i_x, g_x, f_x, o_x), (i_m, g_m, f_m, o_m) = (w.weight.chunk(4) for w in (cell.of_input, cell.of_memory))
        c_h, o_h = cell.of_hidden.weight.split([2 * d, d])
        self.m = Sum(model, torch.cat((i_x, f_x, g_x)), torch.cat((i_m, f_m, g_m)))
        self.c = Sum(model, torch.cat((i_x, g_x)), c_h)
        self.o = Sum(model, o_x, o_h, o_m)

    def __call__(
        self, x: Tensor, change: Tensor, h: Tensor, c: Tensor, m: Tensor, s: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        before = m
        m, *_ = self.m.memory(m, x, m)
        remembered, s = self.stationary(change, c, s.detach())
        i, g = self.c(x, h).chunk(2, 1)
        c = torch.addcmul(remembered, torch.sigmoid(i), torch.tanh(g))
        return self.o.output(self.cell.merge.weight, c, m, x, h, before), c, m, s


class _Recall(torch.autograd.Function):
    """Attention over all memories so far: appends c (B, C, 2, H', W'), and returns what rows (B, rows, C) recall."""

    @staticmethod
    def forward(ctx: Any, past: "Past", rows: Tensor, c: Tensor) -> Tensor:
        past.keys[:, past.end : past.end + past.step] = c.reshape(len(c), past.step, -1)
        past.end += past.step
        keys, rows = past.keys[:, None, : past.end], rows[:, None]
        out, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(rows, keys, keys, scale=1.0)
        ctx.past, ctx.end, ctx.shape = past, past.end, c.shape
        ctx.save_for_backward(rows, out, sums)
        return out[:, 0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        past, (rows, out, sums) = ctx.past, ctx.saved_tensors
        keys = past.keys[:, None, : ctx.end]
        backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        drows, *dkeys = backward(dout[:, None], rows, keys, keys, out, sums, 0.0, False, scale=1.0)
        for dkey in dkeys:
            past.gradient[:, : ctx.end] += dkey[:, 0]
        # Later steps, whose gradients came first, have added theirs.
        return None, drows[:, 0], past.gradient[:, ctx.end - past.step : ctx.end].reshape(ctx.shape)


class Past:
    """All memories c of one layer, as rows of keys (B, rows, C) in memory order, and their gradients."""

    def __init__(self, steps: int, c: Tensor) -> None:
        self.step, self.end = c[0, 0].numel(), 0
        self.keys = c.new_empty((len(c), steps * self.step, c.shape[1]))
        self.gradient = torch.zeros_like(self.keys) if torch.is_grad_enabled() else None


class FastEidetic3DLSTM:
    """Eidetic3DLSTMCell. A window of two frames is twice as many channels.

    The shared memory of all layers is always zero, and so are the products with it. Both frames of the recall gate are equal,
    so that each row recalls the same as its twin.
    """

    def __init__(self, cell: Eidetic3DLSTMCell, model: Recurrent) -> None:
        d, self.cell, self.past = model.hidden_dim, cell, None
        self.steps = model.shape.context_frames + model.shape.horizon_frames - 1
        x, h, c, m = (w.conv.weight for w in (cell.of_input, cell.of_hidden, cell.cell_to_output, cell.memory_to_output))
        (igr_x, o_x, i_g_x, _), (igr_h, o_h) = x.flatten(1, 2).split([3 * d, d, 2 * d, d]), h.flatten(1, 2).split([3 * d, d])
        self.igr, self.m = Sum(model, igr_x, igr_h), Sum(model, i_g_x)
        self.o = Sum(model, o_x, o_h, c.flatten(1, 2), m.sum(2))
        of_c, of_m = cell.merge.weight.flatten(1).chunk(2, 1)
        self.merge = torch.cat((torch.kron(of_c, torch.eye(FRAMES)), of_m.repeat_interleave(FRAMES, 0)), 1)

    def __call__(self, x: Tensor, h: Tensor, c: Tensor, m: Tensor, past: list[Tensor]) -> tuple[Tensor, Tensor]:
        self.past = self.past or Past(self.steps, c)
        window, hidden = x.flatten(1, 2), h.flatten(1, 2)
        i, g, r = self.igr(window, hidden).chunk(3, 1)
        recalled = _Recall.apply(self.past, torch.sigmoid(r).reshape(len(x), -1, c.shape[1]), c)
        added = _Emit.apply(False, i, g)
        c = self.cell.norm(c + recalled.reshape(added.shape)[:, :, None]) + added[:, :, None]
        m = _Emit.apply(False, *self.m(window).chunk(2, 1))
        flat = c.flatten(1, 2)
        o = torch.tanh(self.o(window, hidden, flat, m)).repeat_interleave(FRAMES, 1)
        return _Emit.apply(False, o, _Pointwise.apply(self.merge, torch.cat((flat, m), 1))).unflatten(1, (-1, FRAMES)), c


def fast_readout(conv: nn.Conv2d, model: Recurrent) -> Callable[[Tensor], Tensor]:
    return partial(_Pointwise.apply, conv.weight)


def fast_window_readout(conv: nn.Conv3d, model: Recurrent) -> Callable[[Tensor], Tensor]:
    return lambda x: _Pointwise.apply(conv.weight, x.flatten(1, 2)).unsqueeze(2)


FAST: dict[type[nn.Module], Callable[[Any, Recurrent], Any]] = {
    ConvLSTMCell: FastConvLSTM,
    SpatioTemporalLSTMCell: FastSpatioTemporalLSTM,
    CausalLSTMCell: FastCausalLSTM,
    GradientHighway: FastGradientHighway,
    Peephole: FastPeephole,
    MIMCell: FastMIM,
    Eidetic3DLSTMCell: FastEidetic3DLSTM,
    nn.Conv2d: fast_readout,
    nn.Conv3d: fast_window_readout,
}


def accelerate_baseline(model):
    from stlight.kernels import phydnet
    from stlight.kernels.direct import convolve_directly
    from stlight.model.baselines.mau import MAU
    from stlight.model.baselines.phydnet import PhyDNet

    if isinstance(model, Recurrent) and not isinstance(model, MAU):
        vars(model)["unroll"] = FastUnroll(model)
    else:
        convolve_directly(model)
    if isinstance(model, PhyDNet):
        vars(model)["unroll"] = partial(phydnet.unroll, model)


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
