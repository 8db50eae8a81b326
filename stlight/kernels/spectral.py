"""Convolutions of small frames by frequency: the weights are transformed once for all time steps of an unrolled model.

Activations are (P, B, C): positions of a frame, clips, channels. A spectrum is (F, 2, B, C): frequencies, real and imaginary
part. A frame of H rows and a kernel of K taps fit into a period of H + K // 2, because only rows outside the frame overlap.
A 5 × 5 convolution of an 8 × 8 frame is then an eighth of the multiply-adds, and its sum over inputs is transformed back once.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from stlight.kernels.compile import library


def call(name: str, *arguments: float | Tensor | None) -> None:
    """Call a kernel of recurrent.c with numbers and the addresses of tensors, in the order of its declaration."""
    function = getattr(library("recurrent.c"), name)
    assert len(arguments) + 1 == len(function.argtypes), f"{name} takes {len(function.argtypes) - 1} arguments"
    function(torch.get_num_threads(), *(a.data_ptr() if isinstance(a, Tensor) else a for a in arguments))


class Frequencies(NamedTuple):
    """Matrices that transform frames (2 F, P), weights (2 F, K²), and back (P, 2 F)."""

    of_frame: Tensor
    of_kernel: Tensor
    to_frame: Tensor


@cache
def frequencies(height: int, width: int, size: int) -> Frequencies:
    """Return the transforms for frames of height × width and a kernel of size × size."""
    periods = height + size // 2, width + size // 2
    # A real signal has the conjugate at the opposite frequency, so that one of both is enough.
    both = [(k, l, -k % periods[0], -l % periods[1]) for k in range(periods[0]) for l in range(periods[1])]
    kept = torch.tensor([pair for pair in both if pair[:2] <= pair[2:]], dtype=torch.float64)
    times = torch.where((kept[:, :2] == kept[:, 2:]).all(1), 1.0, 2.0) / math.prod(periods)
    turns = kept[:, :2] / torch.tensor(periods)

    def phases(rows: Tensor, columns: Tensor) -> Tensor:
        return 2 * math.pi * turns @ torch.cartesian_prod(rows, columns).double().T

    frame = phases(torch.arange(height), torch.arange(width))
    kernel = phases(*[torch.arange(size) - size // 2] * 2)
    of_frame = torch.stack((frame.cos(), -frame.sin()), 1)
    of_kernel = torch.stack((kernel.cos(), kernel.sin()), 1)
    to_frame = (of_frame * times[:, None, None]).flatten(0, 1).T
    return Frequencies(*(m.float().contiguous() for m in (of_frame.flatten(0, 1), of_kernel.flatten(0, 1), to_frame)))


def spectrum(x_PBC: Tensor, transform: Frequencies) -> Tensor:
    """Transform activations (P, B, C) to (F, 2, B, C)."""
    return (transform.of_frame @ x_PBC.flatten(1)).view(-1, 2, *x_PBC.shape[1:])


class Weights:
    """The spectrum of a convolution's weights (out, in, K, K), whose gradient is collected over all time steps."""

    def __init__(self, weight: Tensor, transform: Frequencies) -> None:
        self.of_kernel = transform.of_kernel
        self.shape = weight.shape
        self.by_input = self._transform(weight.detach().transpose(0, 1))
        self.by_output: Tensor | None = None
        self.gradient: Tensor | None = None
        if weight.requires_grad and torch.is_grad_enabled():
            self.by_output = self._transform(weight.detach())
            self.by_output[:, 1].neg_()
        self.handle = _Collect.apply(weight, self)

    def _transform(self, weight: Tensor) -> Tensor:
        """Transform (rows, columns, K, K) to (F, 2, rows, columns)."""
        by_tap = weight.permute(2, 3, 0, 1).reshape(-1, weight.shape[0] * weight.shape[1])
        return (self.of_kernel @ by_tap).view(-1, 2, *weight.shape[:2])

    def collect(self, x: Tensor, dy: Tensor) -> None:
        """Add the gradient of one time step."""
        if self.gradient is None:
            self.gradient = torch.zeros_like(self.by_input)
        call("multiply_backward", len(x), x.shape[2], x.shape[3], dy.shape[3], x, dy, self.gradient)

    def collected(self) -> Tensor | None:
        """Return the gradient of the weights, and start again."""
        total, self.gradient = self.gradient, None
        if total is None:
            return None
        by_tap = self.of_kernel.T @ total.flatten(2).flatten(0, 1)
        return by_tap.view(*self.shape[2:], self.shape[1], self.shape[0]).permute(3, 2, 0, 1)


class _Collect(torch.autograd.Function):
    """Stand for a weight in the graph, so that its gradient is computed after those of all time steps."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, weights: Weights) -> Tensor:
        ctx.weights = weights
        ctx.set_materialize_grads(False)
        return weight.new_empty(0)

    @staticmethod
    def backward(ctx: Any, _: None) -> tuple[Tensor | None, None]:
        return ctx.weights.collected(), None


def convolve(terms: Sequence[tuple[Tensor, Weights]], transform: Frequencies) -> Tensor:
    """Return the sum (P, B, C) of convolutions of spectra."""
    spectra, weights = zip(*terms, strict=True)
    return _Sum.apply(weights, transform, *spectra, *(w.handle for w in weights))


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Sequence[Weights], transform: Frequencies, *tensors: Tensor) -> Tensor:
        spectra = tensors[: len(weights)]
        total = spectra[0].new_zeros((*spectra[0].shape[:3], weights[0].shape[0]))
        for x, w in zip(spectra, weights, strict=True):
            call("multiply", len(x), x.shape[2], x.shape[3], total.shape[3], x, w.by_input, total)
        ctx.weights, ctx.transform = weights, transform
        ctx.save_for_backward(*spectra)
        return (transform.to_frame @ total.flatten(2).flatten(0, 1)).view(-1, *total.shape[2:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        dy = (ctx.transform.to_frame.T @ gradient.flatten(1)).view(-1, 2, *gradient.shape[1:])
        dspectra: list[Tensor | None] = []
        for x, w, needed in zip(ctx.saved_tensors, ctx.weights, ctx.needs_input_grad[2:], strict=False):
            w.collect(x, dy)
            dx = torch.zeros_like(x) if needed else None
            if dx is not None:
                call("multiply", len(x), x.shape[2], dy.shape[3], x.shape[3], dy, w.by_output, dx)
            dspectra.append(dx)
        return (None, None, *dspectra, *[None] * len(dspectra))
