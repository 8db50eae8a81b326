"""Convolutions of small frames by frequency: weights are transformed once for all time steps of an unrolled model.

Activations are (H, W, B, C), the channels innermost. A spectrum is (F, 2, B, C): frequencies, real and imaginary part. A frame
of H rows and a kernel of K taps fit into a period of H + K // 2, because what wraps around falls outside the frame. A 5 × 5
convolution of an 8 × 8 frame is then an eighth of the multiply-adds, and a sum of convolutions is transformed back once.
"""

import itertools
import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from stlight.kernels.compile import library

MOST_TERMS = 4
CHANNELS = 8
"""Numbers of channels must be a multiple of it."""


def call(source: str, name: str, *arguments: float | Tensor | None) -> None:
    """Call a kernel of a C file with numbers and the addresses of tensors, in the order of its declaration."""
    function = getattr(library(source), name)
    assert len(arguments) + 1 == len(function.argtypes), f"{name} takes {len(function.argtypes) - 1} arguments"
    if function(torch.get_num_threads(), *[a.data_ptr() if isinstance(a, Tensor) else a for a in arguments]):
        raise MemoryError(f"no memory for the scratch of {name}")


class Frequencies:
    """The transform of frames of height × width for kernels of size × size."""

    def __init__(self, height: int, width: int, size: int) -> None:
        periods = height + size // 2, width + size // 2
        # A real signal has the conjugate at the opposite frequency, so that one of both is enough.
        opposite = []
        for pair in itertools.product(*[range(period // 2 + 1) for period in periods]):
            alone = [2 * k % period == 0 for k, period in zip(pair, periods, strict=True)]
            opposite += [1] if all(alone) else [2] if any(alone) else [2, 2]
        self.count = len(opposite)
        # The transform back is the transposed one, so that the scale lies in the weights.
        self.scale = torch.tensor(opposite).view(-1, 1, 1, 1) / math.prod(periods)
        self.of_frame = self._arguments(periods, range(height), range(width))
        taps = range(size // 2, -size // 2, -1)
        self.of_kernel = self._arguments(periods, taps, taps)

    def _arguments(self, periods: tuple[int, int], *positions: range) -> list[int | Tensor]:
        """Return a kernel's arguments: sizes, then the matrices of both axes, each followed by its transposed."""
        axes = [_axis(*axis) for axis in zip(periods, positions, strict=True)]
        matrices = [matrix.float().contiguous() for axis in axes for matrix in (axis, axis.T)]
        return [self.count, *map(len, positions), *map(len, axes), *matrices]


def _axis(period: int, positions: range) -> Tensor:
    """Return cosines and sines (period, positions) of an axis, in the order of the kernels."""
    angles = 2 * math.pi / period * torch.tensor(positions).double()
    rows = [function(k * angles) for k in range(period // 2 + 1) for function in (torch.cos, torch.sin)]
    # The sines of 0 and of half the period are zero.
    return torch.stack([rows[0], *rows[2:]][:period])


frequencies = cache(Frequencies)


def bytes_of_spectra(model: nn.Module, frame_size: tuple[int, int]) -> int:
    """Return the bytes of the spectra of a model's convolutions and of their gradients."""
    weights = [(p.numel(), p.shape[-1]) for p in model.parameters() if p.ndim > 3 and p.shape[-1] > 1]
    return sum(2 * 4 * 2 * frequencies(*frame_size, size).count * numel // size**2 for numel, size in weights)


class Convolution:
    """The sum of the convolutions of several activations, for all time steps of one unrolled model.

    Gradients of the weights are collected over the time steps as spectra. In the graph, `handle` stands for the weights: it
    depends on them, so that their gradient is computed after all time steps.
    """

    def __init__(self, transform: Frequencies, *weights: Tensor) -> None:
        """Transform weights (out, in, K, K), one for each of the activations."""
        self.transform, self.weights = transform, [weight.detach() for weight in weights]
        self.versions = [weight._version for weight in self.weights]
        self.spectra = [self._transform(weight.transpose(0, 1)) for weight in self.weights]
        self.transposed: list[Tensor] = []
        self.gradients: list[Tensor] = []
        self.backward_pass: int | None = None
        self.handle: Tensor = _Collect.apply(self, *weights)

    def _transform(self, weight: Tensor) -> Tensor:
        """Transform (rows, columns, K, K) to (F, 2, rows, columns)."""
        by_tap = weight.permute(2, 3, 0, 1).contiguous()
        spectrum = weight.new_empty((self.transform.count, 2, *weight.shape[:2]))
        call("spectral.c", "transform", *self.transform.of_kernel, weight.shape[0] * weight.shape[1], by_tap, spectrum)
        return spectrum.mul_(self.transform.scale)

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        """Return the sum (H, W, B, C)."""
        out = inputs[0].new_empty((*inputs[0].shape[:3], len(self.weights[0])))
        terms = [t for x, spectrum in zip(inputs, self.spectra, strict=True) for t in (x.shape[3], x, spectrum)]
        self._call("convolve", out, terms, 3)
        return out

    def backward(self, dout: Tensor, inputs: Sequence[Tensor], needed: Sequence[bool]) -> list[Tensor | None]:
        """Return the gradients of the inputs where needed, and collect those of the weights."""
        if self.backward_pass != (current := torch._C._current_graph_task_id()):
            self._begin_backward()
            self.backward_pass = current
        dinputs = [torch.empty_like(x) if need else None for x, need in zip(inputs, needed, strict=True)]
        of_terms = zip(inputs, self.transposed, dinputs, self.gradients, strict=True)
        self._call("convolve_backward", dout, [t for x, *rest in of_terms for t in (x.shape[3], x, *rest)], 5)
        return dinputs

    def _begin_backward(self) -> None:
        """Replace the spectra by their conjugate transposed, to save memory, and start to collect gradients."""
        if self.versions != [weight._version for weight in self.weights]:
            raise RuntimeError("a weight was changed in place after the forward pass, so that its gradient is not known")
        self.spectra = []
        if not self.transposed:
            self.transposed = [self._transform(weight) for weight in self.weights]
            for spectrum in self.transposed:
                spectrum[:, 1].neg_()
        self.gradients = [spectrum.new_zeros(spectrum.transpose(2, 3).shape) for spectrum in self.transposed]

    def _call(self, name: str, out: Tensor, terms: list[Any], each: int) -> None:
        missing = MOST_TERMS - len(terms) // each
        call("spectral.c", name, *self.transform.of_frame, *out.shape[2:], out, *terms, *[0, *[None] * (each - 1)] * missing)

    def collected(self) -> list[Tensor | None]:
        """Return the gradients of the weights, and start again."""
        collected, self.gradients, self.backward_pass = self.gradients, [], None
        return [self._transform_back(*both) for both in zip(collected, self.weights, strict=False)] or [None] * len(
            self.weights
        )

    def _transform_back(self, gradient: Tensor, weight: Tensor) -> Tensor:
        """Transform the gradient of a spectrum (F, 2, in, out) to that of a weight (out, in, K, K)."""
        by_tap = gradient.new_empty((*weight.shape[2:], *gradient.shape[2:]))
        call(
            "spectral.c",
            "transform_back",
            *self.transform.of_kernel,
            gradient[0, 0].numel(),
            gradient.mul_(self.transform.scale),
            by_tap,
        )
        return by_tap.permute(3, 2, 0, 1)


class _Collect(torch.autograd.Function):
    """Stand for weights in the graph, so that their gradient is computed after those of all time steps."""

    @staticmethod
    def forward(ctx: Any, convolution: Convolution, *weights: Tensor) -> Tensor:
        ctx.convolution = convolution
        ctx.set_materialize_grads(False)
        return weights[0].new_empty(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: None) -> tuple[Tensor | None, ...]:
        return None, *ctx.convolution.collected()
