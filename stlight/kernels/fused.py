"""The path of the compiled kernels: all that is independent for each channel in one pass, the rest as matrix products.

Activations are (C, H, W, B), so a pointwise convolution is one matrix product. First derivatives only: asking for second ones
is an error.
"""

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils._python_dispatch import _get_current_dispatch_mode

from stlight.kernels.build import library
from stlight.kernels.paths import Path, has_hooks

LARGEST_KERNEL = 11

# First kernels of this size on are so slow that their output is kept for the backward pass.
KEPT_FROM = 7


class FusedPath(Path):
    """By the compiled kernels, on (C, H, W, B), float32 or float64 on a CPU; training with gradients, evaluation without."""

    name = "fused"

    def serves(self, model: nn.Module, clip: Tensor) -> bool:
        """Only what the kernels compute exactly as the modules would, and nobody looks on."""
        if type(clip) is not Tensor or clip.device.type != "cpu" or clip.dtype not in (torch.float32, torch.float64):
            return False
        observed = torch.jit.is_tracing() or torch.compiler.is_compiling() or _get_current_dispatch_mode() is not None
        observed = observed or torch._C._functorch.peek_interpreter_stack() is not None
        if observed or torch.is_autocast_enabled("cpu") or model.training != torch.is_grad_enabled():
            return False
        return _usual(model, model.training, clip.dtype) and mixer_library(clip.dtype) is not None

    def enter(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) → (C, H, W, B)."""
        return x_BCHW.permute(1, 2, 3, 0).contiguous()

    def encode(self, encoder: nn.Module, frames_BCHW: Tensor) -> Tensor:
        """The encoder's convolution by PyTorch, its BatchNorm and GELU in one pass."""
        conv, norm, _ = encoder.children()
        h_BCHW = conv(frames_BCHW.contiguous(memory_format=torch.channels_last))
        _count_batch(norm, h_BCHW[:, 0].numel())
        return _Encoding.apply(h_BCHW, norm.weight, norm.bias, norm) if norm.training else _encoding(h_BCHW, norm)[0]

    def mix(self, mixer: nn.Module, x: Tensor) -> Tensor:
        """One STLMixer: the depthwise half in one pass, the pointwise product, what follows it in one pass."""
        parts = _Parts(mixer)
        values_per_channel = x.numel() // len(x)
        _count_batch(parts.norm1, values_per_channel)
        _count_batch(parts.norm2, values_per_channel)
        return _Mixer.apply(x, parts, *parts.weights) if mixer.training else _mix(x, parts)[0]

    def decode(self, layers: Sequence[nn.Module], x: Tensor) -> Tensor:
        """Patch shuffle and pointwise layer in either order: one product on what is there, then the result is reordered.

        PixelShuffle takes channel c·p² + i·p + j to pixel (i, j) of a patch, so the p² parts are rows of their own anyway.
        """
        (shuffle,) = (layer for layer in layers if isinstance(layer, nn.PixelShuffle))
        (pointwise,) = (layer for layer in layers if isinstance(layer, nn.Conv2d))
        height, width, batch = x.shape[1:]
        p, weight, bias = shuffle.upscale_factor, pointwise.weight.flatten(1), pointwise.bias
        assert bias is not None
        out = torch.addmm(bias.unsqueeze(1), weight, x.view(weight.shape[1], -1))
        out = out.view(-1, p, p, height, width, batch).permute(5, 0, 3, 1, 4, 2)
        return out.reshape(batch, -1, height * p, width * p)


# What an STLight is made of, in order: its encoder, any number of mixers, its decoder.
_ENCODER = [nn.Conv2d, nn.BatchNorm2d, nn.GELU]
_MIXER = [nn.Conv2d, nn.Conv2d, nn.GELU, nn.BatchNorm2d, nn.Conv2d, nn.GELU, nn.BatchNorm2d]
_DECODER = [nn.PixelShuffle, nn.Conv2d]


def _usual(model: nn.Module, training: bool, dtype: torch.dtype) -> bool:
    """Whether the kernels do what its modules would: an STLight as it is built, all in one mode, with no hooks to call."""
    # By hand, for this is asked at every step, and `modules()` takes ten times as long.
    waiting: list[Any] = [model]
    leaves: list[Any] = []
    while waiting:
        module = waiting.pop()
        if module.training != training or has_hooks(module):
            return False
        if children := module._modules:
            waiting.extend(reversed(children.values()))
        else:
            leaves.append(module)
    num_mixers = (len(leaves) - len(_ENCODER) - len(_DECODER)) // len(_MIXER)
    if [type(leaf) for leaf in leaves] != _ENCODER + _MIXER * num_mixers + _DECODER:
        return False
    # PyTorch computes the first and the last convolution.
    return all(_served(leaf, dtype, 0 < i < len(leaves) - 1) for i, leaf in enumerate(leaves))


def _served(module: Any, dtype: torch.dtype, by_kernels: bool) -> bool:
    """Whether a module has the usual settings, and weights that lie where the kernels look for them."""
    if isinstance(module, nn.GELU):
        return module.approximate == "none"
    if isinstance(module, nn.BatchNorm2d):
        if not (module.affine and module.track_running_stats and isinstance(module.momentum, float)):
            return False
    elif isinstance(module, nn.Conv2d):
        if module.bias is None or module.padding_mode != "zeros":
            return False
        if by_kernels and max(module.kernel_size) > LARGEST_KERNEL:
            return False
    for tensor in (*module._parameters.values(), *module._buffers.values()):
        if not tensor.is_cpu or (tensor.is_floating_point() and tensor.dtype != dtype):
            return False
        if by_kernels and not tensor.is_contiguous():
            return False
    return True


@cache
def mixer_library(dtype: torch.dtype) -> ctypes.CDLL | None:
    """The kernels for float32 or float64, or None where they cannot be had."""
    kernels = library("mixer.c", *(["-DDOUBLE"] if dtype == torch.float64 else []))
    if kernels:
        for name, (sizes, numbers, tensors) in _SIGNATURES.items():
            kinds = [ctypes.c_int] + [ctypes.c_long] * sizes + [ctypes.c_double] * numbers + [ctypes.c_void_p] * tensors
            getattr(kernels, name).argtypes = kinds
    return kernels


# How many sizes, real numbers and tensors each kernel takes, after the number of threads.
_SIGNATURES = {
    "turn": (3, 0, 2),
    "depthwise_forward": (8, 2, 14),
    "depthwise_backward": (7, 1, 17),
    "activation_forward": (3, 2, 9),
    "activation_backward": (2, 1, 10),
    "encoding_forward": (3, 2, 8),
    "encoding_backward": (2, 1, 9),
}


def _call(name: str, sizes: tuple[float, ...], *tensors: Tensor | None) -> None:
    """Call a kernel; the first tensor says the precision."""
    assert tensors[0] is not None
    kernel = getattr(mixer_library(tensors[0].dtype), name)
    if kernel(torch.get_num_threads(), *sizes, *[None if t is None else t.data_ptr() for t in tensors]):
        raise MemoryError(f"no memory for the scratch of {name}")


def _count_batch(norm: Any, values_per_channel: int) -> None:
    """What BatchNorm does besides computing; the kernels move its running statistics."""
    if norm.training:
        if values_per_channel == 1:
            raise ValueError("BatchNorm needs more than one value per channel in training: one clip of one patch is too little")
        norm.num_batches_tracked.add_(1)


class _Parts:
    """The modules of an STLMixer by name, and its weights in the order of its parameters."""

    def __init__(self, mixer: Any) -> None:
        depthwise, pointwise = mixer._modules.values()
        self.conv1, self.conv2, _, self.norm1 = depthwise.block._modules.values()
        self.pointwise, _, self.norm2 = pointwise._modules.values()
        modules = (self.conv1, self.conv2, self.norm1, self.pointwise, self.norm2)
        self.weights = tuple(weight for module in modules for weight in module._parameters.values())

    def sizes(self, x: Tensor) -> tuple[int, ...]:
        """Of x, of the kernels, and the dilation."""
        return (*x.shape, self.conv1.kernel_size[0], self.conv2.kernel_size[0], self.conv2.dilation[0])


def _into_layout(x_BCHW: Tensor) -> Tensor:
    """(B, C, H, W), best channels-last in memory → (C, H, W, B)."""
    batch, channels, height, width = x_BCHW.shape
    x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)
    out = torch.empty(channels, height, width, batch, dtype=x_BCHW.dtype)
    _call("turn", (batch, height * width, channels), x_BCHW, out)
    return out


def _out_of_layout(x: Tensor) -> Tensor:
    """(C, H, W, B) → (B, C, H, W), channels-last in memory."""
    channels, height, width, batch = x.shape
    out = torch.empty(batch, height, width, channels, dtype=x.dtype)
    _call("turn", (channels, height * width, batch), x, out)
    return out.permute(0, 3, 1, 2)


def _encoding(h_BCHW: Tensor, norm: Any) -> tuple[Tensor, ...]:
    """z = gelu(BN(h)) in the kernels' layout; with it h in that layout, and the mean and variance of the batch."""
    h = _into_layout(h_BCHW)
    z, mean, var = torch.empty_like(h), torch.empty_like(norm.weight), torch.empty_like(norm.weight)
    sizes = (norm.training, h.shape[0], h[0].numel(), norm.eps, norm.momentum)
    _call("encoding_forward", sizes, h, norm.weight, norm.bias, z, mean, var, norm.running_mean, norm.running_var)
    return z, h, mean, var


def _mix(x: Tensor, parts: _Parts) -> tuple[Any, ...]:
    """z, and what the gradient needs besides x and the weights: u, v, y, h, and the batch's statistics at both BatchNorms.

    u, the first convolution's output, is None where it is cheaper to compute it again than to keep it.
    """
    w1, b1, w2, b2, gamma1, beta1, wp, bp, gamma2, beta2 = parts.weights
    norm1, norm2 = parts.norm1, parts.norm2
    u = torch.empty_like(x) if norm1.training and w1.shape[-1] >= KEPT_FROM else None
    v, y, z = torch.empty_like(x), torch.empty_like(x), torch.empty_like(x)
    mean1, var1, mean2, var2 = torch.empty(4, len(x), dtype=x.dtype).unbind()
    sizes = (norm1.training, *parts.sizes(x), norm1.eps, norm1.momentum)
    statistics = (mean1, var1, norm1.running_mean, norm1.running_var)
    _call("depthwise_forward", sizes, x, w1, b1, w2, b2, gamma1, beta1, u, v, y, *statistics)
    h = wp.flatten(1) @ y.flatten(1)
    sizes = (norm2.training, *h.shape, norm2.eps, norm2.momentum)
    _call("activation_forward", sizes, h, bp, gamma2, beta2, z, mean2, var2, norm2.running_mean, norm2.running_var)
    return z, u, v, y, h, mean1, var1, mean2, var2


class _Encoding(torch.autograd.Function):
    """gelu(BN(h)), in training: from (B, C, H, W) to (C, H, W, B)."""

    @staticmethod
    def forward(ctx: Any, h_BCHW: Tensor, gamma: Tensor, beta: Tensor, norm: Any) -> Tensor:
        z, h, mean, var = _encoding(h_BCHW, norm)
        ctx.save_for_backward(h, gamma, beta, mean, var)
        ctx.eps = norm.eps
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gz: Tensor) -> tuple[Tensor | None, ...]:
        h, gamma, beta, mean, var = ctx.saved_tensors
        gh, dgamma, dbeta = torch.empty_like(h), torch.empty_like(gamma), torch.empty_like(gamma)
        sizes = (h.shape[0], h[0].numel(), ctx.eps)
        _call("encoding_backward", sizes, h, gamma, beta, mean, var, gz.contiguous(), gh, dgamma, dbeta)
        return _out_of_layout(gh), dgamma, dbeta, None


class _Mixer(torch.autograd.Function):
    """One STLMixer, in training. The weights are given besides its parts so that they get their gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, parts: _Parts, *weights: Tensor) -> Tensor:
        x = x.contiguous()
        z, *kept = _mix(x, parts)
        ctx.save_for_backward(x, *weights, *kept)
        ctx.parts = parts
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gz: Tensor) -> tuple[Tensor | None, ...]:
        x, w1, b1, w2, _, gamma1, _, wp, bp, gamma2, _, u, v, y, h, mean1, var1, mean2, var2 = ctx.saved_tensors
        parts, gh = ctx.parts, torch.empty_like(h)
        db1, db2, dgamma1, dbeta1, dbp, dgamma2, dbeta2 = torch.empty(7, len(x), dtype=x.dtype).unbind()
        sizes = (*h.shape, parts.norm2.eps)
        _call("activation_backward", sizes, h, bp, gamma2, mean2, var2, gz.contiguous(), gh, dbp, dgamma2, dbeta2)
        dwp = (gh @ y.flatten(1).t()).view_as(wp)
        # The kernel lets the gradient for x take the place of that for y.
        gx = (wp.flatten(1).t() @ gh).view_as(x)
        dw1, dw2 = torch.empty_like(w1), torch.empty_like(w2)
        sizes = (*parts.sizes(x), parts.norm1.eps)
        inputs = (x, w1, b1, w2, gamma1, u, v, mean1, var1, gx)
        _call("depthwise_backward", sizes, *inputs, gx, dw1, db1, dw2, db2, dgamma1, dbeta1)
        return gx, None, dw1, db1, dw2, db2, dgamma1, dbeta1, dwp, dbp, dgamma2, dbeta2
