"""The backend of the compiled kernels: one pass for all that is independent for each channel, matrix products for the rest.

Activations are (C, H, W, B), so that a pointwise convolution is one matrix product. Only first derivatives exist: asking for
second ones is an error.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils._python_dispatch import _get_current_dispatch_mode

from stlight.kernels.backends import Backend, Layer
from stlight.kernels.compile import library
from stlight.model.stlight import STLight

LARGEST_KERNEL = 11

# The output of a first convolution with a kernel of at least this size is kept for the backward pass, because computing it
# again is slow.
KEPT_FROM = 7


class FusedBackend(Backend):
    """Compute in float32 on a CPU with the compiled kernels: training with gradients, evaluation without."""

    name = "fused"

    def fits(self, model: STLight) -> bool:
        """Return True for an STLight with unchanged modules, in float32 on a CPU, if there is a compiler."""
        layers = [*model.patch_encoder.children(), *model.mixers, model.patch_shuffle, model.patch_reassemble]
        # PyTorch computes the first and the last convolution, from whatever memory.
        read = [tensor for layer in layers[1:-1] for tensor in layer.state_dict().values()]
        return (
            super().fits(model)
            and all(max(conv.kernel_size) <= LARGEST_KERNEL for conv in model.mixers.modules() if isinstance(conv, nn.Conv2d))
            and all(map(addressable, read))
            and library("mixer.c") is not None
        )

    def serves(self, clip: Tensor, training: bool) -> bool:
        """Return True unless the batch is empty, somebody traces the computation, or the mode has no kernel."""
        if type(clip) is not Tensor or clip.device.type != "cpu" or clip.dtype != torch.float32 or not clip.numel():
            return False
        return not observed() and training == torch.is_grad_enabled() and library("mixer.c") is not None

    def enter(self, x_BCHW: Tensor) -> Tensor:
        """Copy (B, C, H, W) to (C, H, W, B)."""
        return x_BCHW.permute(1, 2, 3, 0).contiguous()

    def encoder(self, encoder: nn.Module) -> Layer:
        """Return the encoder: its convolution as a matrix product, its BatchNorm and GELU in one pass."""
        conv, norm, _ = encoder.children()
        assert isinstance(conv, nn.Conv2d)
        p = conv.stride[0]
        usual = nn.Conv2d(conv.in_channels, conv.out_channels, p, p, device="meta")
        return partial(_encode, conv, norm, conv.extra_repr() == usual.extra_repr())

    def mixer(self, mixer: nn.Module) -> Layer:
        """Return an STLMixer: its depthwise half in one pass, the pointwise product, and what follows it in one pass."""
        return _FusedMixer(mixer)

    def decoder(self, shuffle: nn.PixelShuffle, reassemble: nn.Conv2d, order: str) -> tuple[Layer, Layer]:
        """Return the decoder: its last layer is one matrix product on what is there, whose result is then reordered."""
        both, nothing = partial(_decode, shuffle, reassemble), nn.Identity()
        return (nothing, both) if order == "shuffle_reassemble" else (both, nothing)


def observed() -> bool:
    """Return True if somebody traces or changes what operations compute, so that a kernel must not replace them."""
    observers = torch.jit.is_tracing() or torch.compiler.is_compiling() or _get_current_dispatch_mode() is not None
    return observers or torch._C._functorch.peek_interpreter_stack() is not None or torch.is_autocast_enabled("cpu")


def addressable(tensor: Tensor) -> bool:
    """Return True if the kernels can read a weight or buffer by its address. They ignore integers, which only count."""
    return tensor.is_cpu and tensor.is_contiguous() and tensor.dtype in (torch.float32, torch.int64)


def _call(name: str, integers: Sequence[int], reals: Sequence[float], *tensors: Tensor | None) -> None:
    """Call a kernel with sizes, real numbers and the addresses of tensors, in the order of its declaration.

    Ctypes checks types against the declaration, but would pass more arguments than it has.
    """
    function = getattr(library("mixer.c"), name)
    addresses = [None if t is None else t.data_ptr() for t in tensors]
    arguments = (torch.get_num_threads(), *integers, *reals, *addresses)
    assert len(arguments) == len(function.argtypes), f"{name} takes {len(function.argtypes)} arguments, got {len(arguments)}"
    if function(*arguments):
        raise MemoryError(f"no memory for the scratch of {name}")


def _count_batch(norm: Any, values_per_channel: int) -> None:
    """Do what BatchNorm does beside its statistics, which the kernels update."""
    if norm.training:
        if values_per_channel == 1:
            raise ValueError("BatchNorm needs more than one value per channel in training: one clip of one patch is too little")
        norm.num_batches_tracked.add_(1)


def _weights(*modules: Any) -> list[Tensor]:
    """Return the modules' weights, read at each step because loading a state dict may replace them.

    Raises `TypeError` if the kernels cannot address one, because a module changed after `accelerate`.
    """
    weights = [weight for module in modules for weight in module._parameters.values()]
    for tensor in (*weights, *(buffer for module in modules for buffer in module._buffers.values())):
        if not addressable(tensor):
            found = f"{tensor.dtype} on {tensor.device}, strides {tensor.stride()}"
            raise TypeError(f"kernels need contiguous float32 on the CPU, got {found}: after a change call accelerate again")
    return weights


def _encode(conv: nn.Conv2d, norm: Any, separate: bool, frames_BCHW: Tensor) -> Tensor:
    """Compute the encoder. The convolution is a matrix product if the patches are separate, that is, do not overlap."""
    if separate:
        weight, bias = conv.weight.flatten(1), conv.bias
        assert bias is not None
        patches = _Rearrange.apply(frames_BCHW, conv.stride[0], False)
        h = torch.addmm(bias.unsqueeze(1), weight, patches.view(weight.shape[1], -1)).view(-1, *patches.shape[3:])
    else:
        h = _Rearrange.apply(conv(frames_BCHW), 1, False).flatten(0, 2)
    _count_batch(norm, h[0].numel())
    return _Encoding.apply(h, *_weights(norm), norm)


def _decode(shuffle: nn.PixelShuffle, pointwise: nn.Conv2d, x: Tensor) -> Tensor:
    """Compute both decoder layers, in either order.

    PixelShuffle takes channel c·p² + i·p + j to pixel (i, j) of a patch, so that in this layout the p² parts are separate rows
    of the matrix before the shuffle, too.
    """
    p, weight, bias = shuffle.upscale_factor, pointwise.weight.flatten(1), pointwise.bias
    assert bias is not None
    out = torch.addmm(bias.unsqueeze(1), weight, x.view(weight.shape[1], -1))
    return _Rearrange.apply(out.view(-1, p, p, *x.shape[1:]), p, True)


class _FusedMixer:
    """An STLMixer by the kernels."""

    def __init__(self, mixer: Any) -> None:
        depthwise, pointwise = mixer.children()
        self.conv1, self.conv2, _, self.norm1 = depthwise.block
        self.pointwise, _, self.norm2 = pointwise
        self.modules = (self.conv1, self.conv2, self.norm1, self.pointwise, self.norm2)
        self.kernels = (self.conv1.kernel_size[0], self.conv2.kernel_size[0], self.conv2.dilation[0])

    def __call__(self, x: Tensor) -> Tensor:
        """Mix activations (C, H, W, B)."""
        values_per_channel = x.numel() // len(x)
        _count_batch(self.norm1, values_per_channel)
        _count_batch(self.norm2, values_per_channel)
        return _Mixer.apply(x, self, *_weights(*self.modules))


class _Rearrange(torch.autograd.Function):
    """Copy frames (B, T, H·p, W·p) to patches (T, p, p, H, W, B), or back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, p: int, back: bool) -> Tensor:
        ctx.p, ctx.back = p, back
        frames, height, width, batch = (
            (x.shape[0], *x.shape[3:]) if back else (x.shape[1], x.shape[2] // p, x.shape[3] // p, len(x))
        )
        size = (batch, frames, height * p, width * p) if back else (frames, p, p, height, width, batch)
        out = torch.empty(size, dtype=x.dtype)
        _call("rearrange", (back, batch, frames, p, height, width), (), x.contiguous(), out)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return _Rearrange.apply(gradient, ctx.p, not ctx.back), None, None


class _Encoding(torch.autograd.Function):
    """z = gelu(BN(h)) of (C, H, W, B)."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, gamma: Tensor, beta: Tensor, norm: Any) -> Tensor:
        z, mean, var = torch.empty_like(h), torch.empty_like(gamma), torch.empty_like(gamma)
        sizes, settings = (norm.training, h.shape[0], h[0].numel()), (norm.eps, norm.momentum)
        _call("encoding_forward", sizes, settings, h, gamma, beta, z, mean, var, norm.running_mean, norm.running_var)
        ctx.save_for_backward(h, gamma, beta, mean, var)
        ctx.eps = norm.eps
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gz: Tensor) -> tuple[Tensor | None, ...]:
        h, gamma, beta, mean, var = ctx.saved_tensors
        gh, dgamma, dbeta = torch.empty_like(h), torch.empty_like(gamma), torch.empty_like(gamma)
        inputs = (h, gamma, beta, mean, var, gz.contiguous())
        _call("encoding_backward", (h.shape[0], h[0].numel()), (ctx.eps,), *inputs, gh, dgamma, dbeta)
        return gh, dgamma, dbeta, None


class _Mixer(torch.autograd.Function):
    """One STLMixer. Its weights are arguments so that they get gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mixer: _FusedMixer, *weights: Tensor) -> Tensor:
        w1, b1, w2, b2, gamma1, beta1, wp, bp, gamma2, beta2 = weights
        norm1, norm2, x = mixer.norm1, mixer.norm2, x.contiguous()
        u = torch.empty_like(x) if norm1.training and w1.shape[-1] >= KEPT_FROM else None
        v, y, z = torch.empty_like(x), torch.empty_like(x), torch.empty_like(x)
        mean1, var1, mean2, var2 = torch.empty(4, len(x), dtype=x.dtype).unbind()
        sizes, settings = (norm1.training, *x.shape, *mixer.kernels), (norm1.eps, norm1.momentum)
        statistics = (mean1, var1, norm1.running_mean, norm1.running_var)
        _call("depthwise_forward", sizes, settings, x, w1, b1, w2, b2, gamma1, beta1, u, v, y, *statistics)
        h = wp.flatten(1) @ y.flatten(1)
        sizes, settings = (norm2.training, *h.shape), (norm2.eps, norm2.momentum)
        statistics = (mean2, var2, norm2.running_mean, norm2.running_var)
        _call("activation_forward", sizes, settings, h, bp, gamma2, beta2, z, *statistics)
        ctx.save_for_backward(x, *weights, u, v, y, h, mean1, var1, mean2, var2)
        ctx.mixer = mixer
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gz: Tensor) -> tuple[Tensor | None, ...]:
        x, w1, b1, w2, _, gamma1, _, wp, bp, gamma2, _, u, v, y, h, mean1, var1, mean2, var2 = ctx.saved_tensors
        mixer, gh = ctx.mixer, torch.empty_like(h)
        db1, db2, dgamma1, dbeta1, dbp, dgamma2, dbeta2 = torch.empty(7, len(x), dtype=x.dtype).unbind()
        gz = gz.contiguous()
        _call("activation_backward", h.shape, (mixer.norm2.eps,), h, bp, gamma2, mean2, var2, gz, gh, dbp, dgamma2, dbeta2)
        dwp = (gh @ y.flatten(1).t()).view_as(wp)
        # The kernel may write the gradient of x over that of y.
        gx = (wp.flatten(1).t() @ gh).view_as(x)
        dw1, dw2 = torch.empty_like(w1), torch.empty_like(w2)
        sizes, inputs = (*x.shape, *mixer.kernels), (x, w1, b1, w2, gamma1, u, v, mean1, var1, gx)
        _call("depthwise_backward", sizes, (mixer.norm1.eps,), *inputs, gx, dw1, db1, dw2, db2, dgamma1, dbeta1)
        return gx, None, dw1, db1, dw2, db2, dgamma1, dbeta1, dwp, dbp, dgamma2, dbeta2
