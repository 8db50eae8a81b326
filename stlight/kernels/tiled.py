"""The backends of the Triton kernels in `tiles`, one for each memory format. Only first derivatives exist."""

import os
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils._python_dispatch import _get_current_dispatch_mode

from stlight.kernels.backends import Backend, Layer
from stlight.model.stlight import STLight

LARGEST_KERNEL = 11


class Tile(NamedTuple):
    """Size of the tile that one program computes: about so many positions, channels, and warps."""

    positions: int
    channels: int
    warps: int


# Not tuned, because no GPU was available: `python -m benchmarks gpu` times others beside these.
TILES = {torch.contiguous_format: Tile(1024, 1, 4), torch.channels_last: Tile(128, 16, 8)}
"""Tile for each memory format."""


class TritonBackend(Backend):
    """Compute mixers with tiled kernels on a CUDA device, in float32 or by autocast in bfloat16, on channels-first memory."""

    name = "triton"
    memory_format = torch.contiguous_format

    def fits(self, model: STLight) -> bool:
        """Return True for an STLight with unchanged modules in float32 on a CUDA device, if Triton is installed."""
        tensors = [*model.parameters(), *model.buffers()]
        return (
            super().fits(model)
            and all(max(conv.kernel_size) <= LARGEST_KERNEL for conv in model.mixers.modules() if isinstance(conv, nn.Conv2d))
            and all(_runs_on(t.device) and t.dtype in (torch.float32, torch.int64) and t.is_contiguous() for t in tensors)
            and find_spec("triton") is not None
        )

    def serves(self, clip: Tensor, training: bool) -> bool:
        """Return True unless somebody traces the computation or the mode or precision has no kernel."""
        if type(clip) is not Tensor or not _runs_on(clip.device) or clip.dtype != torch.float32:
            return False
        device = clip.device.type
        if torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) != torch.bfloat16:
            return False
        observed = torch.jit.is_tracing() or torch.compiler.is_compiling() or _get_current_dispatch_mode() is not None
        observed = observed or torch._C._functorch.peek_interpreter_stack() is not None
        return not observed and training == torch.is_grad_enabled()

    def enter(self, x_BCHW: Tensor) -> Tensor:
        """Copy (B, C, H, W) to the backend's memory format."""
        return x_BCHW.contiguous(memory_format=self.memory_format)

    def encoder(self, encoder: nn.Module) -> Layer:
        """Return the encoder with output in the backend's memory format."""
        return lambda frames_BCHW: self.enter(encoder(self.enter(frames_BCHW)))

    def mixer(self, mixer: nn.Module) -> Layer:
        """Return an STLMixer whose convolutions, GELU and BatchNorm are tiled kernels; the pointwise product is PyTorch's."""
        return lambda x_BCHW: _mix(mixer, self.memory_format, x_BCHW)


class ChannelsLastTritonBackend(TritonBackend):
    """As `TritonBackend`, on channels-last memory."""

    name = "triton_channels_last"
    memory_format = torch.channels_last


def _runs_on(device: torch.device) -> bool:
    interpreted = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes")
    return device.type == "cuda" or (device.type == "cpu" and interpreted)


def _mix(mixer: Any, memory_format: torch.memory_format, x: Tensor) -> Tensor:
    """Compute an STLMixer on activations (B, C, H, W)."""
    depthwise, (pointwise, _, norm2) = mixer.children()
    conv1, conv2, _, norm1 = depthwise.block
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.bfloat16)
    convolved = (conv1.weight, conv1.bias, conv2.weight, conv2.bias)
    y = _Depthwise.apply(x, memory_format, conv2.dilation[0], norm1, *convolved, norm1.weight, norm1.bias)
    return _Activation.apply(pointwise(y), memory_format, norm2, norm2.weight, norm2.bias)


class _Launcher:
    """Starts kernels on activations of one shape (B, C, H, W), memory format and device."""

    def __init__(self, x: Tensor, memory_format: torch.memory_format) -> None:
        from stlight.kernels import tiles

        self.kernels, self.memory_format, self.device = tiles, memory_format, x.device
        tile, (self.batch, self.channels, height, width) = TILES[memory_format], x.shape
        strides = torch.empty(x.shape, device="meta", memory_format=memory_format).stride()
        self.sizes = (*strides, self.channels, height, width)
        block_w = min(_power_of_2(width), 16 if tile.channels > 1 else 64, tile.positions)
        block_h = min(_power_of_2(height), tile.positions // block_w)
        block_c = min(_power_of_2(self.channels), tile.channels)
        self.blocks = {"BLOCK_H": block_h, "BLOCK_W": block_w, "BLOCK_C": block_c, "num_warps": tile.warps}
        self.tiles = -(-height // block_h) * -(-width // block_w)
        self.grid = (self.tiles, -(-self.channels // block_c), self.batch)
        self.values_per_channel = self.batch * height * width

    def run(self, name: str, *tensors: Tensor | None, **constants: int) -> None:
        """Run a kernel. A tensor that it does not use, None, is replaced by the first."""
        given = [tensors[0] if tensor is None else tensor for tensor in tensors]
        # Triton launches on the current device.
        with torch.cuda.device_of(given[0]):
            getattr(self.kernels, name)[self.grid](*given, *self.sizes, **constants, **self.blocks)

    def lay_out(self, tensor: Tensor) -> Tensor:
        """Return activations in the memory format, copied if they are in another."""
        return tensor.contiguous(memory_format=self.memory_format)

    def empty(self, like: Tensor) -> Tensor:
        """Return new activations of the dtype of others."""
        return torch.empty_like(like, memory_format=self.memory_format)

    def partial(self, rows: int) -> Tensor:
        """Return room for what each tile sums: (clips · tiles, rows, C)."""
        return torch.empty(self.batch * self.tiles, rows, self.channels, device=self.device)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor, dilation: int, partial: Tensor | None = None) -> Tensor:
        """Return the depthwise convolution of x, and fill `partial` with the sums of its GELU."""
        out = self.empty(x)
        constants = {"K": weight.shape[-1], "DILATION": dilation, "SUMS": partial is not None}
        self.run("convolve", x, _by_tap(weight), bias, out, partial, **constants)
        return out

    def convolve_backward(
        self, g: Tensor, x: Tensor, weight: Tensor, dilation: int, added: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of x, plus `added`, of the weight and of the bias."""
        gx, size = self.empty(x), weight.shape[-1]
        partial = self.partial(size**2 + 1)
        constants = {"K": size, "DILATION": dilation, "ADD": added is not None}
        self.run("convolve_backward", g, x, _by_tap(weight), added, gx, partial, **constants)
        sums = partial.sum(0)
        return gx, sums[:-1].t().reshape(weight.shape), sums[-1]

    def normalize(self, v: Tensor, statistics: tuple[Tensor, Tensor], norm: Any, added: Tensor | None = None) -> Tensor:
        """Return BN(gelu(v)), plus `added`, from mean and reciprocal standard deviation of gelu(v)."""
        (mean, rstd), out = statistics, self.empty(v)
        scale = norm.weight * rstd
        self.run("normalize", v, scale, norm.bias - mean * scale, added, out, ADD=added is not None)
        return out

    def normalize_backward(
        self, v: Tensor, gz: Tensor, mean: Tensor, rstd: Tensor, gamma: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of v, gamma and beta from that of BN(gelu(v))."""
        partial, gv = self.partial(2), self.empty(v)
        self.run("gradient_sums", v, gz, mean, rstd, partial)
        dbeta, dgamma = partial.sum(0).unbind()
        means = (dbeta / self.values_per_channel, dgamma / self.values_per_channel)
        self.run("normalize_backward", v, gz, mean, rstd, gamma, *means, gv)
        return gv, dgamma, dbeta


def _power_of_2(size: int) -> int:
    """Return the least power of 2 that is not below `size`."""
    return int(1 << (size - 1).bit_length())


def _by_tap(weight: Tensor) -> Tensor:
    """Return weights (C, 1, k, k) as (k², C)."""
    return weight.flatten(1).t().contiguous()


def _statistics(partial: Tensor, values_per_channel: int, norm: Any) -> tuple[Tensor, Tensor]:
    """Return mean and reciprocal standard deviation, each (C,), as BatchNorm uses them, and count a batch in training.

    `partial` (tiles, 3, C) holds each tile's number, sum, and sum of squares about its own mean. Sums about zero would cancel.
    """
    if not norm.training:
        return norm.running_mean, (norm.running_var + norm.eps).rsqrt()
    if values_per_channel == 1:
        raise ValueError("BatchNorm needs more than one value per channel in training: one clip of one patch is too little")
    count, total, squares = partial.unbind(1)
    mean = total.sum(0) / values_per_channel
    var = (squares + count * (total / count - mean).square()).sum(0) / values_per_channel
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(var * (values_per_channel / (values_per_channel - 1)), norm.momentum)
    norm.num_batches_tracked.add_(1)
    return mean, (var + norm.eps).rsqrt()


class _Depthwise(torch.autograd.Function):
    """y = BN(gelu(conv2(conv1(x)))) + x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layout: torch.memory_format, dilation: int, norm: Any, *weights: Tensor) -> Tensor:
        w1, b1, w2, b2, gamma, _ = weights
        tiled = _Launcher(x, layout)
        x, partial = tiled.lay_out(x), tiled.partial(3)
        u = tiled.convolve(x, w1, b1, 1)
        v = tiled.convolve(u, w2, b2, dilation, partial)
        statistics = _statistics(partial, tiled.values_per_channel, norm)
        ctx.save_for_backward(x, u, v, w1, w2, gamma, *statistics)
        ctx.tiled, ctx.dilation = tiled, dilation
        return tiled.normalize(v, statistics, norm, added=x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, ...]:
        x, u, v, w1, w2, gamma, mean, rstd = ctx.saved_tensors
        gy = ctx.tiled.lay_out(gy)
        gv, dgamma, dbeta = ctx.tiled.normalize_backward(v, gy, mean, rstd, gamma)
        gu, dw2, db2 = ctx.tiled.convolve_backward(gv, u, w2, ctx.dilation)
        gx, dw1, db1 = ctx.tiled.convolve_backward(gu, x, w1, 1, added=gy)
        return gx, None, None, None, dw1, db1, dw2, db2, dgamma, dbeta


class _Activation(torch.autograd.Function):
    """z = BN(gelu(h))."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, layout: torch.memory_format, norm: Any, gamma: Tensor, beta: Tensor) -> Tensor:
        tiled = _Launcher(h, layout)
        h, partial = tiled.lay_out(h), tiled.partial(3)
        if norm.training:
            tiled.run("sums", h, partial)
        statistics = _statistics(partial, tiled.values_per_channel, norm)
        ctx.save_for_backward(h, gamma, *statistics)
        ctx.tiled = tiled
        return tiled.normalize(h, statistics, norm)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gz: Tensor) -> tuple[Tensor | None, ...]:
        h, gamma, *statistics = ctx.saved_tensors
        gh, dgamma, dbeta = ctx.tiled.normalize_backward(h, ctx.tiled.lay_out(gz), *statistics, gamma)
        return gh, None, None, dgamma, dbeta
