"""Convolutions of few channels by a compiled kernel."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from stlight.kernels.fused import observed
from stlight.kernels.spectral import call
from stlight.kernels.stages import addressable

SIZES = (3, 5, 7, 11)
# With more products of channels in a group, PyTorch's library is as fast.
MOST_PRODUCTS = 800


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, groups: int, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x = x.contiguous()
        batch, channels, height, width = x.shape
        ctx.sizes = batch, groups, channels // groups, len(weight) // groups, height, width, weight.shape[2]
        out = x.new_empty((batch, len(weight), height, width))
        call("direct.c", "convolve_direct", *ctx.sizes, x, weight, bias, out)
        ctx.save_for_backward(x, weight)
        ctx.biased = bias is not None
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        dx = torch.empty_like(x) if ctx.needs_input_grad[1] else None
        flipped = torch.empty_like(weight)
        dweight, dbias = torch.empty_like(weight), weight.new_empty(len(weight)) if ctx.biased else None
        call("direct.c", "convolve_direct_backward", *ctx.sizes, x, weight, dout.contiguous(), flipped, dx, dweight, dbias)
        return None, dx, dweight, dbias


class DirectConvolution:
    """The forward pass of an `nn.Conv2d` by the kernel, where it serves, otherwise by PyTorch."""

    def __init__(self, conv: nn.Conv2d) -> None:
        self.conv = conv

    def __call__(self, x: Tensor) -> Tensor:
        """Convolve (B, C, H, W)."""
        conv = self.conv
        serves = type(x) is Tensor and x.ndim == 4 and x.numel() and x.shape[2] % 4 == 0 and x.shape[3] % 8 == 0
        if serves and x.dtype == torch.float32 and x.is_cpu and addressable(conv.weight) and not observed():
            return _Convolve.apply(conv.groups, x, conv.weight, conv.bias)
        return nn.Conv2d.forward(conv, x)


def convolve_directly(model: nn.Module) -> None:
    """Install the kernel for all convolutions of a model that have few channels and keep the frame's size."""
    for conv in model.modules():
        if type(conv) is nn.Conv2d and _fits(conv):
            vars(conv)["forward"] = DirectConvolution(conv)


def _fits(conv: nn.Conv2d) -> bool:
    size = conv.kernel_size[0]
    usual = nn.Conv2d(
        *(conv.in_channels, conv.out_channels, size),
        padding=size // 2,
        groups=conv.groups,
        bias=conv.bias is not None,
        device="meta",
    )
    few = conv.in_channels * conv.out_channels <= MOST_PRODUCTS * conv.groups**2
    return few and size in SIZES and conv.extra_repr() == usual.extra_repr()
