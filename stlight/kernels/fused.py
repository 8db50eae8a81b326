"""The backend of the compiled kernels: one pass for all that is independent for each channel, matrix products for the rest.

Activations are (C, H, W, B), so that a pointwise convolution is one matrix product.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from stlight.kernels.backends import Backend, Layer
from stlight.kernels.stages import Output, Stage, Stages, addressable, call, libraries
from stlight.model.stlight import STLight

LARGEST_KERNEL = 11

# The output of a first convolution with a kernel of at least this size is kept for the backward pass, because computing it
# again is slow.
KEPT_FROM = 7

# The kernels for products with a matrix of weights are faster than MKL if the weights and a block of columns stay in the cache,
# and for at least so many multiply-adds.
OWN_PRODUCTS_UP_TO = 128 * 128
OWN_PRODUCTS_FROM = 2**22


class FusedBackend(Backend):
    """Compute in float32 on a CPU with the compiled kernels: training with gradients, evaluation without."""

    name = "fused"

    def fits(self, model: STLight) -> bool:
        """Return True for an STLight with unchanged modules, in float32 on a CPU, if there is a compiler."""
        layers = [*model.patch_encoder.children(), *model.mixers, model.patch_shuffle, model.patch_reassemble]
        # The weights of the first and the last convolution are read from whatever memory.
        read = [tensor for layer in layers[1:-1] for tensor in layer.state_dict().values()]
        return (
            super().fits(model)
            and all(max(conv.kernel_size) <= LARGEST_KERNEL for conv in model.mixers.modules() if isinstance(conv, nn.Conv2d))
            and all(map(addressable, read))
            and libraries() is not None
        )

    def serves(self, clip: Tensor, training: bool) -> bool:
        """Return True unless the batch is empty, somebody traces the computation, or the mode has no kernel."""
        if type(clip) is not Tensor or clip.device.type != "cpu" or clip.dtype != torch.float32 or not clip.numel():
            return False
        return not observed() and training == torch.is_grad_enabled() and libraries() is not None

    def enter(self, x_BCHW: Tensor) -> Tensor:
        """Copy (B, C, H, W) to (C, H, W, B)."""
        return x_BCHW.permute(1, 2, 3, 0).contiguous()

    def mixer(self, mixer: nn.Module) -> Layer:
        """Return an STLMixer: its depthwise half in one pass, the pointwise product, and what follows it in one pass."""
        return Stages([_Mixer(mixer)])

    def model(self, model: STLight) -> Layer:
        """Return a model from frames (B, T·C, H, W) to frames as one function."""
        return _FusedModel(model)


def observed() -> bool:
    """Return True if somebody traces or changes what operations compute, so that a kernel must not replace them."""
    observers = torch.jit.is_tracing() or torch.compiler.is_compiling() or _get_current_dispatch_mode() is not None
    return observers or torch._C._functorch.peek_interpreter_stack() is not None or torch.is_autocast_enabled("cpu")


class _Encoder(Stage):
    """The patch encoder: frames (B, T, H·p, W·p) to (C, H, W, B). From `convolved` frames (C, H, W, B) only what follows."""

    def __init__(self, encoder: Any, convolved: bool) -> None:
        self.conv, self.norm, _ = encoder.children()
        self.modules = (self.norm,) if convolved else (self.conv, self.norm)

    def forward(self, x: Tensor, *weights: Tensor) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        *linear, gamma, beta = weights
        h, bias, norm = x, None, self.norm
        if linear:
            weight, bias = linear
            patches = _patches(x, self.conv.stride[0])
            h = _product(weight, patches.view(-1, patches.shape[3:].numel())).view(-1, *patches.shape[3:])
        values_per_channel = h.numel() // len(h)
        _count_batch(norm, values_per_channel)
        z, mean, var = torch.empty_like(h), torch.empty_like(gamma), torch.empty_like(gamma)
        sizes, statistics = (norm.training, len(h), values_per_channel), (mean, var, norm.running_mean, norm.running_var)
        call("encoding_forward", sizes, (norm.eps, norm.momentum), h, bias, gamma, beta, z, *statistics)
        return z, (h, mean, var)

    def backward(
        self, gz: Tensor, mine: bool, needed: bool, output: Output, gradients: Sequence[Tensor], kept: list[Any]
    ) -> Tensor:
        x, *linear, gamma, beta, h, mean, var = kept
        dlinear, (dgamma, dbeta) = gradients[:-2], gradients[-2:]
        gh = gz if mine else torch.empty_like(gz)
        given, dbias = (h, gamma, beta, mean, var, gz), dlinear[1] if linear else None
        call("encoding_backward", (len(h), h.numel() // len(h)), (self.norm.eps,), *given, gh, dbias, dgamma, dbeta)
        if not linear:
            return gh
        # Copied again, because kept ones would be as large as the prediction.
        patches = _patches(x, self.conv.stride[0])
        gx = _product_backward(linear[0], patches.view(-1, h.shape[1:].numel()), gh.flatten(1), dlinear[0], needed)
        return _frames(gx.view_as(patches)) if needed else gh


class _Mixer(Stage):
    """An STLMixer on (C, H, W, B)."""

    def __init__(self, mixer: Any) -> None:
        depthwise, (pointwise, _, self.norm2) = mixer.children()
        conv1, conv2, _, self.norm1 = depthwise.block
        self.modules = (conv1, conv2, self.norm1, pointwise, self.norm2)
        self.kernels = (conv1.kernel_size[0], conv2.kernel_size[0], conv2.dilation[0])

    def forward(self, x: Tensor, *weights: Tensor) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        w1, b1, w2, b2, gamma1, beta1, wp, bp, gamma2, beta2 = weights
        norm1, norm2, x = self.norm1, self.norm2, x.contiguous()
        for norm in (norm1, norm2):
            _count_batch(norm, x.numel() // len(x))
        u = torch.empty_like(x) if norm1.training and w1.shape[-1] >= KEPT_FROM else None
        v, y, z = torch.empty_like(x), torch.empty_like(x), torch.empty_like(x)
        mean1, var1, mean2, var2 = torch.empty(4, len(x), dtype=x.dtype).unbind()
        sizes, settings = (norm1.training, *x.shape, *self.kernels), (norm1.eps, norm1.momentum)
        statistics = (mean1, var1, norm1.running_mean, norm1.running_var)
        call("depthwise_forward", sizes, settings, x, w1, b1, w2, b2, gamma1, beta1, u, v, y, *statistics)
        h = _product(wp, y.flatten(1))
        sizes, settings = (norm2.training, *h.shape), (norm2.eps, norm2.momentum)
        statistics = (mean2, var2, norm2.running_mean, norm2.running_var)
        call("activation_forward", sizes, settings, h, bp, gamma2, beta2, z, *statistics)
        return z, (u, v, y, h, mean1, var1, mean2, var2)

    def backward(
        self, gz: Tensor, mine: bool, needed: bool, output: Output, gradients: Sequence[Tensor], kept: list[Any]
    ) -> Tensor:
        x, w1, b1, w2, _, gamma1, beta1, wp, bp, gamma2, beta2, u, v, y, h, mean1, var1, mean2, var2 = kept
        kept.clear()
        dw1, db1, dw2, db2, dgamma1, dbeta1, dwp, dbp, dgamma2, dbeta2 = gradients
        gh = (gz if mine else torch.empty_like(gz)).view_as(h)
        given, out = (bp, gamma2, beta2, *output, mean2, var2, gz), (gh, dbp, dgamma2, dbeta2)
        call("activation_backward", h.shape, (self.norm2.eps,), h, *given, *out)
        # Before there is a gradient of y, so that it can take this memory.
        del h
        # The kernel may write the gradient of x over that of y.
        gx = _product_backward(wp, y.flatten(1), gh, dwp).view_as(x)
        sizes, inputs = (*x.shape, *self.kernels), (x, w1, b1, w2, gamma1, beta1, u, v, y, mean1, var1, gx)
        call("depthwise_backward", sizes, (self.norm1.eps,), *inputs, gx, dw1, db1, dw2, db2, dgamma1, dbeta1)
        return gx


class _Decoder(Stage):
    """Both decoder layers, in either order: (C, H, W, B) to frames (B, T, H·p, W·p), by a matrix product on what is there.

    PixelShuffle takes channel c·p² + i·p + j to pixel (i, j) of a patch, so that in this layout the p² parts are separate rows
    of the matrix before the shuffle, too.
    """

    def __init__(self, shuffle: Any, pointwise: nn.Module) -> None:
        self.p, self.modules = shuffle.upscale_factor, (pointwise,)

    def forward(self, x: Tensor, *weights: Tensor) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        weight, bias = weights
        out = torch.addmm(bias.unsqueeze(1), weight.flatten(1), x.view(weight.shape[1], -1))
        return _frames(out.view(-1, self.p, self.p, *x.shape[1:])), ()

    def backward(
        self, gz: Tensor, mine: bool, needed: bool, output: Output, gradients: Sequence[Tensor], kept: list[Any]
    ) -> Tensor:
        x, weight, _ = kept
        gradient = _patches(gz, self.p).view(len(weight), -1)
        torch.sum(gradient, 1, out=gradients[1])
        return _product_backward(weight, x.view(weight.shape[1], -1), gradient, gradients[0]).view_as(x)


class _FusedModel:
    """An STLight from frames (B, T·C, H, W) to frames."""

    def __init__(self, model: STLight) -> None:
        conv, depth, parts = model.patch_encoder[0], len(model.mixers), model.skip_parts
        assert isinstance(conv, nn.Conv2d)
        p = conv.stride[0]
        usual = nn.Conv2d(conv.in_channels, conv.out_channels, p, p, device="meta")
        # Patches that overlap are not the columns of a matrix: PyTorch convolves them.
        self.conv = conv if conv.extra_repr() != usual.extra_repr() else None
        encoder = _Encoder(model.patch_encoder, convolved=self.conv is not None)
        decoder = _Decoder(model.patch_shuffle, model.patch_reassemble)
        skip = (1 + depth // parts, 1 + (parts - 1) * depth // parts) if model.skip else None
        self.stages = Stages([encoder, *map(_Mixer, model.mixers), decoder], skip)

    def __call__(self, frames_BCHW: Tensor) -> Tensor:
        return self.stages(self.conv(frames_BCHW).permute(1, 2, 3, 0).contiguous() if self.conv else frames_BCHW)


def _count_batch(norm: Any, values_per_channel: int) -> None:
    """Do what BatchNorm does beside its statistics, which the kernels update."""
    if norm.training:
        if values_per_channel == 1:
            raise ValueError("BatchNorm needs more than one value per channel in training: one clip of one patch is too little")
        norm.num_batches_tracked.add_(1)


def _patches(frames: Tensor, p: int) -> Tensor:
    """Copy frames (B, T, H·p, W·p) to patches (T, p, p, H, W, B)."""
    batch, count, height, width = frames.shape
    if frames.stride()[1:] != (height * width, width, 1):
        frames = frames.contiguous()
    patches = frames.new_empty((count, p, p, height // p, width // p, batch))
    call("rearrange", (False, batch, count, p, height // p, width // p, frames.stride(0)), (), frames, patches)
    return patches


def _frames(patches: Tensor) -> Tensor:
    """Copy patches (T, p, p, H, W, B) to frames (B, T, H·p, W·p)."""
    count, p, _, height, width, batch = patches.shape
    frames = patches.new_empty((batch, count, height * p, width * p))
    call("rearrange", (True, batch, count, p, height, width, frames.stride(0)), (), frames, patches)
    return frames


def _own_product(weight: Tensor, y: Tensor) -> bool:
    return weight.numel() <= OWN_PRODUCTS_UP_TO and weight.numel() * y.shape[1] >= OWN_PRODUCTS_FROM


def _product(weight: Tensor, y: Tensor) -> Tensor:
    """Return the product of a matrix of weights (M, ...) with y (K, N)."""
    weight = weight.view(-1, len(y))
    # With one thread MKL is as fast.
    if torch.get_num_threads() == 1 or not _own_product(weight, y):
        return weight @ y
    h = y.new_empty(len(weight), y.shape[1])
    call("pointwise_forward", (*weight.shape, y.shape[1]), (), weight, y, h)
    return h


def _product_backward(weight: Tensor, y: Tensor, g: Tensor, dw: Tensor, needed: bool = True) -> Tensor:
    """Return the gradient of y (K, N) from that of `_product`, g (M, N), if it is needed, and write that of the weights, dw."""
    weight = weight.view(len(g), len(y))
    if not _own_product(weight, y):
        torch.mm(g, y.t(), out=dw.view_as(weight))
        return weight.t() @ g if needed else g
    gy = torch.empty_like(y) if needed else None
    call("pointwise_backward", (*weight.shape, y.shape[1]), (), weight, y, g, gy, dw)
    return g if gy is None else gy
