"""Parts of a model that are computed by C kernels, as one function for autograd.

A small model would otherwise spend half its time between functions. Only first derivatives exist: asking for second ones is an
error.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from stlight.kernels.compile import library

_SOURCES = ("mixer.c", "pointwise.c", "ends.c")


def addressable(tensor: Tensor) -> bool:
    """Return True if the kernels can read a weight or buffer by its address. They ignore integers, which only count."""
    return tensor.is_cpu and tensor.is_contiguous() and tensor.dtype in (torch.float32, torch.int64)


def libraries() -> list[ctypes.CDLL] | None:
    """Open the libraries of the kernels. Returns None if one fails, so that a model never computes with some of them."""
    opened = [*filter(None, map(library, _SOURCES))]
    return opened if len(opened) == len(_SOURCES) else None


@cache
def _kernel(name: str) -> Any:
    return next(getattr(opened, name) for opened in libraries() or () if hasattr(opened, name))


def call(name: str, integers: Sequence[int], reals: Sequence[float], *tensors: Tensor | None) -> None:
    """Call a kernel with sizes, real numbers and the addresses of tensors, in the order of its declaration.

    Ctypes checks types against the declaration, but would pass more arguments than it has.
    """
    function = _kernel(name)
    addresses = [None if t is None else t.data_ptr() for t in tensors]
    arguments = (torch.get_num_threads(), *integers, *reals, *addresses)
    assert len(arguments) == len(function.argtypes), f"{name} takes {len(function.argtypes)} arguments, got {len(arguments)}"
    if function(*arguments):
        raise MemoryError(f"no memory for the scratch of {name}")


@dataclass
class Skip:
    """Carry activations through the model's skip connection in a forward pass, and their gradient in a backward pass.

    Each pass makes one. The stage where the connection starts (in a backward pass, ends) fills it, and the other uses it.
    """

    tensor: Tensor | None = None


class Stage:
    """A part of a model. Its kernels read weights and write their gradients by address."""

    modules: tuple[Any, ...]

    def forward(self, x: Tensor, skip: Skip, *weights: Tensor) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        """Return the output, and what `backward` needs beside the input and the weights."""
        raise NotImplementedError

    def backward(
        self, gz: Tensor, mine: bool, needed: bool, skip: Skip, gradients: Sequence[Tensor], kept: list[Any]
    ) -> Tensor:
        """Return the gradient of the input from that of the output, gz, and write those of the weights.

        gz may be overwritten if it is `mine`. The gradient of the input may be anything if it is not `needed`. `kept` is the
        input, the weights and what else `forward` returned. To empty it frees memory early.
        """
        raise NotImplementedError

    def weights(self) -> list[Any]:
        """Return the weights, read at each step because loading a state dict may replace them."""
        return [weight for module in self.modules for weight in module._parameters.values()]

    def buffers(self) -> list[Any]:
        """Return the buffers, read at each step, too."""
        return [buffer for module in self.modules for buffer in module._buffers.values()]


class Stages:
    """Stages, one after the other, as one function for autograd."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.stages = stages

    def __call__(self, x: Tensor) -> Tensor:
        """Compute what the last stage returns from what the first takes.

        Raises `TypeError` if the kernels cannot address a weight or buffer, because a module changed after `accelerate`.
        """
        weights = [stage.weights() for stage in self.stages]
        every = [weight for own in weights for weight in own]
        flat = _flat(every)
        if flat is None:
            weights = [[w.contiguous() if w.dim() == 4 else w for w in own] for own in weights]
            every = [weight for own in weights for weight in own]
        _check(every if flat is None else [flat])
        for stage in self.stages:
            _check(stage.buffers())
        return _Function.apply(x, self, weights, *(every if flat is None else [flat]))


def _check(tensors: list[Tensor]) -> None:
    for tensor in tensors:
        if not addressable(tensor):
            found = f"{tensor.dtype} on {tensor.device}, strides {tensor.stride()}"
            raise TypeError(f"kernels need contiguous float32 on the CPU, got {found}: after a change call accelerate again")


def _flat(weights: list[Any]) -> Tensor | None:
    """Return the parameter of which `FlatAdam` made these weights parts, if they are all of it and all need gradients.

    As the only leaf of the function, it saves what autograd spends on single weights: 0.2 of 3.1 ms of the step of `demo`.
    """
    if not hasattr(weights[0], "flat"):
        return None
    flat: Tensor = weights[0].flat
    address = flat.data_ptr()
    for weight in weights:
        if getattr(weight, "flat", None) is not flat or weight.data_ptr() != address:
            return None
        if not weight.requires_grad or weight._backward_hooks or weight._post_accumulate_grad_hooks:
            return None
        address += weight.nbytes
    return flat if address == flat.data_ptr() + flat.nbytes else None


class _Function(torch.autograd.Function):
    """The function of `Stages`. Its leaves get gradients: the weights, or the parameter that they are parts of."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, stages: Stages, weights: list[list[Tensor]], *leaves: Tensor) -> Tensor:
        skip, kept, ctx.stages = Skip(), list[Tensor | None](), []
        for stage, own in zip(stages.stages, weights, strict=True):
            z, more = stage.forward(x, skip, *own)
            ctx.stages.append((stage, len(kept), len(own)))
            kept += (x, *own, *more)
            x = z
        ctx.save_for_backward(*kept)
        ctx.shapes = [leaf.shape for leaf in leaves]
        ctx.sizes = [weight.numel() for own in weights for weight in own] if len(leaves) == 1 else None
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gz: Tensor) -> tuple[Tensor | None, ...]:
        saved, mine, skip = list(ctx.saved_tensors), False, Skip()
        # Unless the graph is kept, each stage then frees what it used.
        ctx.maybe_clear_saved_tensors()
        gz = gz.contiguous()
        leaves = [gz.new_empty(shape) for shape in ctx.shapes]
        gradients = list(leaves[0].split(ctx.sizes) if ctx.sizes else leaves)
        for stage, start, weights in reversed(ctx.stages):
            kept = saved[start:]
            del saved[start:]
            own = gradients[-weights:]
            del gradients[-weights:]
            gz = stage.backward(gz, mine, start > 0 or ctx.needs_input_grad[0], skip, own, kept)
            mine = True
        return gz if ctx.needs_input_grad[0] else None, None, None, *leaves
