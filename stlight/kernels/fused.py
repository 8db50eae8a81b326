"""The backend of the compiled kernels: one pass for all that is independent for each channel, matrix products for the rest.

Activations are (C, H, W, B), so that a pointwise convolution is one matrix product.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from stlight.kernels.backends import Backend, Layer
from stlight.kernels.stages import Skip, Stage, Stages, addressable, call, libraries
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
        return Stages([_Halves(None, mixer), _Halves(mixer, None)])

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

    def forward(self, x: Tensor, skip: Skip, *weights: Tensor) -> tuple[Tensor, tuple[Tensor | None, ...]]:
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
        self, gz: Tensor, mine: bool, needed: bool, skip: Skip, gradients: Sequence[Tensor], kept: list[Any]
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


class _Halves(Stage):
    """The second half of the mixer `before` and the first, depthwise half of the mixer `after`, on (C, H, W, B).

    Either may be None, at the ends of the model. The skip adds the input of `after` where it starts to that where it ends.
    """

    def __init__(self, before: Any, after: Any, *, starts_skip: bool = False, ends_skip: bool = False) -> None:
        self.starts_skip, self.ends_skip = starts_skip, ends_skip
        self.modules, norm2, norm1, self.kernels = (), None, None, (0, 0, 1)
        if before:
            pointwise, _, norm2 = before[1].children()
            self.modules += (pointwise, norm2)
        if after:
            conv1, conv2, _, norm1 = after[0].block
            self.modules += (conv1, conv2, norm1)
            self.kernels = (conv1.kernel_size[0], conv2.kernel_size[0], conv2.dilation[0])
        self.norms = (norm2, norm1)

    def forward(self, x: Tensor, skip: Skip, *weights: Tensor) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        (wp, *second), first = self._split(weights)
        x, h, residual, u, v, y = x.contiguous(), None, None, None, None, None
        if wp is not None:
            h = _product(wp, x.flatten(1)).view_as(x)
            x, residual = torch.empty_like(h), skip.tensor if self.ends_skip else None
        elif self.ends_skip:
            # A single mixer skips itself. Nobody else holds what the encoder returned.
            x.add_(x)
        if self.starts_skip:
            skip.tensor = x
        training, running, momenta = False, [], []
        for norm in self.norms:
            running.append((norm.running_mean, norm.running_var) if norm else (None, None))
            momenta.append(norm.momentum if norm else 0.0)
            if norm:
                _count_batch(norm, x.numel() // len(x))
                training = norm.training
        if self.kernels[0]:
            u = torch.empty_like(x) if training and self.kernels[0] >= KEPT_FROM else None
            v, y = torch.empty_like(x), torch.empty_like(x)
        statistics = x.new_empty(4, len(x))
        tensors = (h, *second, *running[0], residual, x, *first, *running[1], u, v, y, statistics)
        call("channels_forward", (training, *x.shape, *self.kernels), (*self._eps(), *momenta), *tensors)
        return (x if y is None else y), (h, residual, x, u, v, y, statistics)

    def backward(
        self, gz: Tensor, mine: bool, needed: bool, skip: Skip, gradients: Sequence[Tensor], kept: list[Any]
    ) -> Tensor:
        given, *weights, h, residual, x, u, v, y, statistics = kept
        kept.clear()
        (wp, *second), (*first, _, gamma1, beta1) = self._split(weights)
        (dwp, *dsecond), dfirst = self._split(gradients)
        gh = gz if mine else torch.empty_like(gz)
        # The gradient of x is written for the skip, or if it is that of the input.
        gx = gh if wp is None else torch.empty_like(gz) if self.ends_skip else None
        tensors = (h, *second, residual, x, *first, gamma1, beta1, u, v, y, statistics, gz)
        out = (skip.tensor if self.starts_skip else None, gx, gh, *dsecond, *dfirst)
        call("channels_backward", (*gz.shape, *self.kernels), self._eps(), *tensors, *out)
        if wp is None:
            return gh.add_(gh) if self.ends_skip else gh
        if self.ends_skip:
            skip.tensor = gx
        # So that the gradient of the input can take their memory.
        del h, residual, x, u, v, y, tensors
        return _product_backward(wp, given.flatten(1), gh.flatten(1), dwp).view_as(gh)

    def _eps(self) -> list[float]:
        return [norm.eps if norm else 0.0 for norm in self.norms]

    def _split(self, tensors: Sequence[Tensor]) -> tuple[Sequence[Any], Sequence[Any]]:
        """Return the weights of both halves, or their gradients: None for those of a half that is missing."""
        norm2, norm1 = self.norms
        return tensors[:4] if norm2 else (None,) * 4, tensors[-6:] if norm1 else (None,) * 6


class _Decoder(Stage):
    """Both decoder layers, in either order: (C, H, W, B) to frames (B, T, H·p, W·p), by a matrix product on what is there.

    PixelShuffle takes channel c·p² + i·p + j to pixel (i, j) of a patch, so that in this layout the p² parts are separate rows
    of the matrix before the shuffle, too.
    """

    def __init__(self, shuffle: Any, pointwise: nn.Module) -> None:
        self.p, self.modules = shuffle.upscale_factor, (pointwise,)

    def forward(self, x: Tensor, skip: Skip, *weights: Tensor) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        weight, bias = weights
        out = torch.addmm(bias.unsqueeze(1), weight.flatten(1), x.view(weight.shape[1], -1))
        return _frames(out.view(-1, self.p, self.p, *x.shape[1:])), ()

    def backward(
        self, gz: Tensor, mine: bool, needed: bool, skip: Skip, gradients: Sequence[Tensor], kept: list[Any]
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
        # A stage for the input of each mixer, and one for the end of the last.
        start, end = (depth // parts, (parts - 1) * depth // parts) if model.skip else (None, None)
        ends = pairwise([None, *model.mixers, None])
        halves = [_Halves(*pair, starts_skip=i == start, ends_skip=i == end) for i, pair in enumerate(ends)]
        self.stages = Stages([encoder, *halves, decoder])

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
