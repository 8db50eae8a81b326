"""Mixers by the compiled kernels: the same result as plain PyTorch, about twice as fast on a CPU.

Serves float32 on a CPU, in training with gradients and in evaluation without. Everything else takes the plain path.
"""

import ctypes
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils._python_dispatch import _get_current_dispatch_mode

from stlight.kernels.build import library
from stlight.kernels.plain import only_plain


class Path:
    """How the mixers of one forward pass are computed; this one by plain PyTorch, on (B, C, H, W)."""

    name = "plain"

    def enter(self, x: Tensor) -> Tensor:
        """From (B, C, H, W) to the path's own layout."""
        return x

    def mix(self, mixer: nn.Module, x: Tensor) -> Tensor:
        """One STLMixer."""
        return mixer(x)

    def leave(self, x: Tensor) -> Tensor:
        """Back to (B, C, H, W)."""
        return x


class FusedPath(Path):
    """By the compiled kernels, on (C, H, W, B)."""

    name = "fused"

    def enter(self, x: Tensor) -> Tensor:
        """From (B, C, H, W)."""
        return x.permute(1, 2, 3, 0).contiguous()

    def mix(self, mixer: nn.Module, x: Tensor) -> Tensor:
        """One STLMixer: the depthwise half, the pointwise product, and what follows it."""
        conv1, conv2, _, norm1 = mixer[0].block  # type: ignore[index]
        pointwise, _, norm2 = mixer[1]  # type: ignore[index]
        convolutions = (conv1.weight, conv1.bias, conv2.weight, conv2.bias)
        y = _normalised(_Depthwise, norm1, x, *convolutions, dilation=conv2.dilation[0])
        h = pointwise.weight.flatten(1) @ y.flatten(1)
        return _normalised(_Activation, norm2, h, pointwise.bias).view_as(y)

    def leave(self, x: Tensor) -> Tensor:
        """Back to (B, C, H, W)."""
        return x.permute(3, 0, 1, 2)


_PLAIN, _FUSED = Path(), FusedPath()


def choose_path(mixers: nn.ModuleList, x: Tensor) -> Path:
    """The fused path where it gives exactly what the plain one would, and a compiler is at hand; else the plain one."""
    plain_tensor = type(x) is Tensor and x.dtype == torch.float32 and x.device.type == "cpu"
    observed = torch.jit.is_tracing() or torch.compiler.is_compiling() or _get_current_dispatch_mode() is not None
    if not plain_tensor or observed or only_plain() or torch._C._functorch.peek_interpreter_stack() is not None:
        return _PLAIN
    served = mixers.training == torch.is_grad_enabled() and all(_served(m, mixers.training) for m in mixers.modules())
    return _FUSED if served and library() is not None else _PLAIN


def _served(module: nn.Module, training: bool) -> bool:
    """Whether the kernels do what this module would: no hooks to call, the usual BatchNorm, in the mode of all others."""
    if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module.training != training:
        return False
    if isinstance(module, nn.BatchNorm2d):
        return module.affine and module.track_running_stats and isinstance(module.momentum, float)
    if isinstance(module, nn.Conv2d):
        return module.bias is not None and max(module.kernel_size) <= 11
    return True


def _normalised(function: Any, norm: nn.BatchNorm2d, x: Tensor, *weights: Tensor, **settings: int) -> Tensor:
    """A fused function that ends in `norm`, by the batch's statistics in training and by the running ones in evaluation."""
    if not norm.training:
        statistics = (norm.running_mean, norm.running_var)
        return function.compute(False, statistics, x, *weights, norm.weight, norm.bias, norm.eps, *settings.values())[0]
    y, mean, var = function.apply(x, *weights, norm.weight, norm.bias, norm.eps, *settings.values())
    _track(norm, mean, var, x.numel() // x.shape[0])
    return y


@torch.no_grad()
def _track(norm: Any, mean: Tensor, var: Tensor, count: int) -> None:
    """Move the running statistics as BatchNorm's own forward pass would; the variance is made unbiased for it."""
    norm.num_batches_tracked += 1
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(var * (count / max(1, count - 1)), norm.momentum)


def _call(name: str, *arguments: Any) -> None:
    kernels = library()
    assert kernels is not None
    converted = [
        ctypes.c_void_p(a.data_ptr()) if isinstance(a, Tensor) else ctypes.c_float(a) if isinstance(a, float) else a
        for a in arguments
    ]
    if getattr(kernels, name)(torch.get_num_threads(), *converted):
        raise MemoryError(f"no memory for the scratch of {name}")


class _Depthwise(torch.autograd.Function):
    """y = x + BN(gelu(conv2(conv1(x)))) on (C, H, W, B); in training also the batch's mean and biased variance."""

    @staticmethod
    def compute(
        training: bool,
        statistics: tuple[Tensor, Tensor],
        x: Tensor,
        w1: Tensor,
        b1: Tensor,
        w2: Tensor,
        b2: Tensor,
        gamma: Tensor,
        beta: Tensor,
        eps: float,
        dilation: int,
    ) -> tuple[Tensor, Tensor]:
        """y, and the second convolution's output."""
        v, y = torch.empty_like(x), torch.empty_like(x)
        sizes = (int(training), *x.shape, w1.shape[-1], w2.shape[-1], dilation, float(eps))
        _call("dw_forward", *sizes, x, w1, b1, w2, b2, gamma, beta, v, y, *statistics)
        return y, v

    @staticmethod
    def forward(ctx: Any, x: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        w1, b1, w2, b2, gamma, beta, eps, dilation = arguments
        x, w1, w2 = x.contiguous(), w1.contiguous(), w2.contiguous()
        mean, var = torch.empty_like(gamma), torch.empty_like(gamma)
        y, v = _Depthwise.compute(True, (mean, var), x, w1, b1, w2, b2, gamma, beta, eps, dilation)
        ctx.save_for_backward(x, w1, b1, w2, gamma, v, mean, var)
        ctx.sizes = (*x.shape, w1.shape[-1], w2.shape[-1], dilation, float(eps))
        ctx.mark_non_differentiable(mean, var)
        return y, mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, w1, b1, w2, gamma, v, mean, var = ctx.saved_tensors
        gx, dw1, db1, dw2 = torch.empty_like(x), torch.empty_like(w1), torch.empty_like(b1), torch.empty_like(w2)
        db2, dgamma, dbeta = (torch.empty_like(gamma) for _ in range(3))
        inputs = (x, w1, b1, w2, gamma, v, mean, var, gy.contiguous())
        _call("dw_backward", *ctx.sizes, *inputs, gx, dw1, db1, dw2, db2, dgamma, dbeta)
        return gx, dw1, db1, dw2, db2, dgamma, dbeta, None, None


class _Activation(torch.autograd.Function):
    """z = BN(gelu(h + bias)) on (C, N); in training also the batch's mean and biased variance."""

    @staticmethod
    def compute(
        training: bool,
        statistics: tuple[Tensor, Tensor],
        h: Tensor,
        bias: Tensor,
        gamma: Tensor,
        beta: Tensor,
        eps: float,
    ) -> tuple[Tensor]:
        """z alone."""
        z = torch.empty_like(h)
        sizes = (int(training), h.shape[0], ctypes.c_long(h.shape[1]), float(eps))
        _call("act_forward", *sizes, h, bias, gamma, beta, z, *statistics)
        return (z,)

    @staticmethod
    def forward(ctx: Any, h: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        bias, gamma, beta, eps = arguments
        mean, var = torch.empty_like(gamma), torch.empty_like(gamma)
        (z,) = _Activation.compute(True, (mean, var), h, bias, gamma, beta, eps)
        ctx.save_for_backward(h, bias, gamma, mean, var)
        ctx.sizes = (h.shape[0], ctypes.c_long(h.shape[1]), float(eps))
        ctx.mark_non_differentiable(mean, var)
        return z, mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gz: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        h, bias, gamma, mean, var = ctx.saved_tensors
        gh, dbias, dgamma, dbeta = (
            torch.empty_like(h),
            torch.empty_like(gamma),
            torch.empty_like(gamma),
            torch.empty_like(gamma),
        )
        _call("act_backward", *ctx.sizes, h, bias, gamma, mean, var, gz.contiguous(), gh, dbias, dgamma, dbeta)
        return gh, dbias, dgamma, dbeta, None
