"""The cell of E3D-LSTM by the compiled kernels, and attention over memories that grow by one at each step."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from stlight.kernels.gates import Sum, emit, pointwise
from stlight.model.baselines.e3d_lstm import FRAMES, Eidetic3DLSTMCell
from stlight.model.baselines.recurrent import Recurrent


@contextmanager
def _denormals_flushed() -> Iterator[None]:
    """Treat denormal numbers as zero. Attention weights of a trained model underflow, and made a step take twice as long."""
    before = not torch.full((), 1e-39).mul(1).item()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


class _Recall(torch.autograd.Function):
    """Attention over all memories so far: appends c (B, C, 2, H', W'), and returns what rows (B, rows, C) recall."""

    @staticmethod
    def forward(ctx: Any, past: "Past", rows: Tensor, c: Tensor) -> Tensor:
        past.keys[:, past.end : past.end + past.step] = c.reshape(len(c), past.step, -1)
        past.end += past.step
        keys, rows = past.keys[:, None, : past.end], rows[:, None]
        with _denormals_flushed():
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
        with _denormals_flushed():
            drows, *dkeys = backward(dout[:, None], rows, keys, keys, out, sums, 0.0, False, scale=1.0)
        if past.backward_pass != (current := torch._C._current_graph_task_id()):
            past.backward_pass, past.gradient = current, torch.zeros_like(past.keys)
        for dkey in dkeys:
            past.gradient[:, : ctx.end] += dkey[:, 0]
        # Later steps, whose gradients came first, have added theirs.
        return None, drows[:, 0], past.gradient[:, ctx.end - past.step : ctx.end].reshape(ctx.shape)


class Past:
    """All memories c of one layer, as rows of keys (B, rows, C) in memory order, and their gradients."""

    def __init__(self, steps: int, c: Tensor) -> None:
        self.step, self.end = c[0, 0].numel(), 0
        self.keys = c.new_empty((len(c), steps * self.step, c.shape[1]))
        self.gradient, self.backward_pass = self.keys, -1


class SpectralEidetic3DLSTM:
    """Eidetic3DLSTMCell. A window of two frames is twice as many channels.

    The shared memory of all layers is always zero, and so are the products with it. Both frames of the recall gate are equal,
    so that each row recalls the same as its twin.
    """

    def __init__(self, cell: Eidetic3DLSTMCell, model: Recurrent) -> None:
        d, self.cell = model.hidden_dim, cell
        self.past: Past | None = None
        self.steps = model.shape.context_frames + model.shape.horizon_frames - 1
        x, h, c, m = (w.conv.weight for w in (cell.of_input, cell.of_hidden, cell.cell_to_output, cell.memory_to_output))
        (igr_x, o_x, i_g_x, _), (igr_h, o_h) = x.flatten(1, 2).split([3 * d, d, 2 * d, d]), h.flatten(1, 2).split([3 * d, d])
        self.igr, self.m = Sum(model, igr_x, igr_h), Sum(model, i_g_x)
        self.o = Sum(model, o_x, o_h, c.flatten(1, 2), m.sum(2))
        of_c, of_m = cell.merge.weight.flatten(1).chunk(2, 1)
        self.merge = torch.cat((torch.kron(of_c, torch.eye(FRAMES)), of_m.repeat_interleave(FRAMES, 0)), 1)

    def __call__(self, x: Tensor, h: Tensor, c: Tensor, m: Tensor, past: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Do what the cell's `forward` does."""
        self.past = self.past or Past(self.steps, c)
        window, hidden = x.flatten(1, 2), h.flatten(1, 2)
        i, g, r = self.igr(window, hidden).chunk(3, 1)
        recalled = _Recall.apply(self.past, torch.sigmoid(r).reshape(len(x), -1, c.shape[1]), c)
        added = emit(i, g)
        c = self.cell.norm(c + recalled.reshape(added.shape)[:, :, None]) + added[:, :, None]
        m = emit(*self.m(window).chunk(2, 1))
        flat = c.flatten(1, 2)
        o = torch.tanh(self.o(window, hidden, flat, m)).repeat_interleave(FRAMES, 1)
        return emit(o, pointwise(self.merge, torch.cat((flat, m), 1))).unflatten(1, (-1, FRAMES)), c
