"""Ways to compute the same model with PyTorch's own operators; the compiled kernels are in `fused`."""

import copy
from collections.abc import Callable, Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Path:
    """How a model computes: this one by each module's own forward, on (B, C, H, W). Other paths give the same result."""

    name = "plain"

    def serves(self, model: nn.Module, clip: Tensor) -> bool:
        """Whether this path gives what the plain one would, for this model in its present mode on this input."""
        return True

    def enter(self, x_BCHW: Tensor) -> Tensor:
        """Into the path's own layout."""
        return x_BCHW

    def encode(self, encoder: nn.Module, frames_BCHW: Tensor) -> Tensor:
        """The patch encoder; its result is in the path's own layout."""
        return self.enter(encoder(frames_BCHW))

    def mix(self, mixer: nn.Module, x: Tensor) -> Tensor:
        """One STLMixer."""
        return mixer(x)

    def decode(self, layers: Sequence[nn.Module], x: Tensor) -> Tensor:
        """The decoder's layers in their order; back to (B, C, H, W)."""
        for layer in layers:
            x = layer(x)
        return x


class ChannelsLastPath(Path):
    """The modules' own forward on channels-last memory, for which libraries have other kernels."""

    name = "channels_last"

    def serves(self, model: nn.Module, clip: Tensor) -> bool:
        """Floating-point tensors of any device."""
        return type(clip) is Tensor and clip.is_floating_point()

    def enter(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) as before, in another order in memory."""
        return x_BCHW.contiguous(memory_format=torch.channels_last)

    def encode(self, encoder: nn.Module, frames_BCHW: Tensor) -> Tensor:
        """The encoder, on channels-last memory too."""
        return self.enter(encoder(self.enter(frames_BCHW)))


class SpaceToBatchPath(ChannelsLastPath):
    """Channels-last, and the dilated convolution as a plain one on dilation² interleaved grids.

    Every tap of a dilated kernel stays on its own grid. PyTorch sends a dilated depthwise convolution down a slow reference
    path on a CPU, and a plain one to a fast library.
    """

    name = "space_to_batch"

    def serves(self, model: nn.Module, clip: Tensor) -> bool:
        """Unless someone looks on: the second convolution's own forward is not called."""
        return super().serves(model, clip) and not any(map(has_hooks, model.modules()))

    def mix(self, mixer: nn.Module, x: Tensor) -> Tensor:
        """One STLMixer."""
        residual, pointwise = mixer.children()
        conv1, conv2, activation, norm = residual.block  # type: ignore[misc]
        return pointwise(norm(activation(by_interleaved_grids(conv2, conv1(x)))) + x)


class CompiledPath(Path):
    """Each mixer through `torch.compile`."""

    name = "compiled"

    def mix(self, mixer: nn.Module, x: Tensor) -> Tensor:
        """One STLMixer; all of a model share one compiled graph."""
        return _compiled()(mixer, x)


@cache
def _compiled() -> Callable[[nn.Module, Tensor], Tensor]:
    return torch.compile(_apply)


def _apply(module: nn.Module, x: Tensor) -> Tensor:
    return module(x)


def by_interleaved_grids(conv: nn.Conv2d, x_BCHW: Tensor) -> Tensor:
    """A same-padded dilated depthwise convolution, (B, C, H, W) → (B, C, H, W); any other is left to itself."""
    r = conv.dilation[0]
    if r == 1 or type(conv) is not nn.Conv2d or conv.padding_mode != "zeros":
        return conv(x_BCHW)
    batch, channels, height, width = x_BCHW.shape
    x_BHWC = F.pad(x_BCHW, (0, -width % r, 0, -height % r)).permute(0, 2, 3, 1)
    rows, columns = x_BHWC.shape[1] // r, x_BHWC.shape[2] // r
    grids = x_BHWC.reshape(batch, rows, r, columns, r, channels).permute(0, 2, 4, 5, 1, 3)
    grids = F.conv2d(
        grids.reshape(batch * r * r, channels, rows, columns),
        conv.weight,
        conv.bias,
        padding=conv.kernel_size[0] // 2,
        groups=channels,
    )
    grids = grids.view(batch, r, r, channels, rows, columns).permute(0, 3, 4, 1, 5, 2)
    return grids.reshape(batch, channels, rows * r, columns * r)[:, :, :height, :width]


def has_hooks(module: nn.Module) -> bool:
    """Whether someone wants to know of a module's forward or backward pass."""
    state = module.__dict__
    return bool(
        state["_forward_hooks"] or state["_forward_pre_hooks"] or state["_backward_hooks"] or state["_backward_pre_hooks"]
    )


def step_of(path: Path, mixer: nn.Module, x_BCHW: Tensor) -> Callable[[], None]:
    """A function that runs a mixer forward and backward, on a copy that nobody else sees."""
    mixer = copy.deepcopy(mixer).train()
    x = path.enter(x_BCHW).detach().requires_grad_()

    def step() -> None:
        out = path.mix(mixer, x)
        torch.autograd.grad(out, [x, *mixer.parameters()], torch.ones_like(out))

    return step
