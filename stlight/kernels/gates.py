"""Autograd functions for the gates of recurrent cells: a sum of convolutions by frequency, and what a cell does with it.

Tensors are (B, C, H, W) as everywhere, but (H, W, B, C) in memory, which elementwise operations keep. Only first derivatives
exist.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from stlight.kernels.spectral import Convolution, call, frequencies
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

    Returns c', the further gates, and what was added if `keep`. A peephole (H, W, 1, 2, C) times c is added to i and f.
    """

    @staticmethod
    def forward(
        ctx: Any,
        convolution: Convolution,
        _: Tensor,
        bias: float,
        keep: bool,
        peephole: Tensor | None,
        c: Tensor,
        *inputs: Tensor,
    ) -> tuple[Tensor | None, ...]:
        c, *xs = inside(c, *inputs)
        gates, out, added = convolution(xs), torch.empty_like(c), torch.empty_like(c) if keep else None
        d = c.shape[3]
        if peephole is not None:
            gates[..., : 2 * d].unflatten(3, (2, d)).addcmul_(peephole, c.unsqueeze(3))
        ctx.convolution, ctx.sizes = convolution, (c.numel() // d, d, gates.shape[3], bias)
        ctx.set_materialize_grads(False)
        call("gates.c", "remember", *ctx.sizes, gates, c, out, added)
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
        call("gates.c", "remember_backward", *ctx.sizes, gates, c, dout, dadded, dgates, dc)
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
        call("gates.c", "emit", y.numel(), both, o, y, out)
        ctx.save_for_backward(o, y)
        return swap(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        o, y = ctx.saved_tensors
        d_o, dy = torch.empty_like(o), torch.empty_like(y)
        call("gates.c", "emit_backward", y.numel(), ctx.both, o, y, *inside(dout), d_o, dy)
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
        ctx.reads = len(convolution.weights) > len(xs)
        o = convolution([*xs, c, m] if ctx.reads else xs)
        y, out = _merge(merge, c, m), torch.empty_like(o)
        call("gates.c", "emit", o.numel(), both, o, y, out)
        ctx.convolution, ctx.both = convolution, both
        ctx.save_for_backward(o, merge, c, m, *xs)
        return swap(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        o, merge, c, m, *xs = ctx.saved_tensors
        y = _merge(merge, c, m)
        d_o, dy, d, weight = torch.empty_like(o), torch.empty_like(y), y.shape[1], merge.flatten(1)
        call("gates.c", "emit_backward", o.numel(), ctx.both, o, y, *inside(dout), d_o, dy)
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


def emit(o: Tensor, y: Tensor) -> Tensor:
    """Return sigmoid(o) tanh(y)."""
    return _Emit.apply(False, o, y)


def pointwise(weight: Tensor, x: Tensor) -> Tensor:
    """Return the pointwise convolution of x with a weight (out, in, ...) without bias."""
    return _Pointwise.apply(weight, x)


class Sum:
    """A sum of convolutions with the weights of a cell, for one unrolled model."""

    def __init__(self, model: Recurrent, *weights: Tensor) -> None:
        self.convolution = Convolution(frequencies(*model.frame_size, weights[0].shape[2]), *weights)
        self.common = self.convolution, self.convolution.handle

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Return the sum."""
        return _Convolve.apply(*self.common, *inputs)

    def memory(self, c: Tensor, *inputs: Tensor, bias: float = 1.0, keep: bool = False, peephole: Tensor | None = None) -> Any:
        """Return the next memory, whose gates i, f, g come first in the sum; then the other gates; then what was added."""
        return _Memory.apply(*self.common, bias, keep, peephole, c, *inputs)

    def output(self, merge: Tensor, c: Tensor, m: Tensor, *inputs: Tensor, both: bool = False) -> Tensor:
        """Return the output of a cell whose gate is the sum."""
        return _Output.apply(*self.common, both, merge, c, m, *inputs)
