"""Backends that compute STLight with PyTorch's own operators; `fused` has the one with compiled kernels."""

from collections.abc import Callable
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stlight.model.stlight import STLight, stl_mixer

Layer = Callable[[Tensor], Tensor]


class Backend:
    """A way to compute the parts of an STLight. This one calls the modules; every other one gives the same result faster."""

    name = "plain"

    def fits(self, model: STLight) -> bool:
        """Return True if the backend computes what these modules would, given their types, settings, dtype and device."""
        return self.name == "plain" or _unchanged(model)

    def serves(self, clip: Tensor, training: bool) -> bool:
        """Return True if the backend can compute this step; otherwise the modules do."""
        return type(clip) is Tensor and clip.is_floating_point()

    def enter(self, x_BCHW: Tensor) -> Tensor:
        """Bring activations into the backend's memory layout."""
        return x_BCHW

    def encoder(self, encoder: nn.Module) -> Layer:
        """Return the patch encoder as a function from (B, C, H, W) to the backend's layout."""
        return encoder

    def mixer(self, mixer: nn.Module) -> Layer:
        """Return an STLMixer as a function on activations in the backend's layout."""
        return mixer

    def model(self, model: STLight) -> Layer:
        """Return a model as a function from frames (B, T·C, H, W) to frames (B, T'·C, H, W)."""
        layers = {name: value for name, value in vars(model).items() if not name.startswith("_")}
        layers |= {"patch_shuffle": model.patch_shuffle, "patch_reassemble": model.patch_reassemble}
        encoder, mixers = self.encoder(model.patch_encoder), [self.mixer(mixer) for mixer in model.mixers]
        faster: Any = SimpleNamespace(**layers, patch_encoder=encoder, mixers=mixers)
        return partial(STLight.predict_frames, faster)


class ChannelsLastBackend(Backend):
    """Call the modules on channels-last memory, for which libraries have other kernels."""

    name = "channels_last"

    def enter(self, x_BCHW: Tensor) -> Tensor:
        """Reorder the memory of (B, C, H, W) without changing its shape."""
        return x_BCHW.contiguous(memory_format=torch.channels_last)

    def encoder(self, encoder: nn.Module) -> Layer:
        """Return the encoder with channels-last input and output."""
        return partial(self._encode, encoder)

    def _encode(self, encoder: nn.Module, frames_BCHW: Tensor) -> Tensor:
        return self.enter(encoder(self.enter(frames_BCHW)))


class SpaceToBatchBackend(ChannelsLastBackend):
    """Use channels-last memory, and compute the dilated convolution as a plain one on dilation² interleaved grids.

    Each tap of a dilated kernel stays on its own grid. On a CPU PyTorch has only a slow reference path for a dilated depthwise
    convolution, but a fast library for a plain one.
    """

    name = "space_to_batch"

    def mixer(self, mixer: nn.Module) -> Layer:
        """Return a mixer whose second convolution works on interleaved grids."""
        return partial(_mix_on_grids, mixer)


class CompiledBackend(Backend):
    """Run each mixer through `torch.compile`; all mixers of a model share one compiled graph."""

    name = "compiled"

    def mixer(self, mixer: nn.Module) -> Layer:
        """Return the compiled mixer."""
        return partial(_call_compiled, mixer)


def _unchanged(model: STLight) -> bool:
    """Return True if the modules have the types and settings that `STLight` gives them, at some kernel sizes and dilation."""
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    if not len(model.mixers) or len(convolutions) != 3 * len(model.mixers) + 2:
        return False
    first, conv1, conv2, *_, last = convolutions
    dim, k1, k2 = conv1.out_channels, conv1.kernel_size[0], conv2.kernel_size[0]
    with torch.device("meta"):
        mixers = [stl_mixer(dim, k1, k2, conv2.dilation[0]) for _ in model.mixers]
        decoder = [nn.PixelShuffle(model.patch_size), nn.Conv2d(last.in_channels, last.out_channels, 1)]
        usual = nn.ModuleList([nn.Sequential(first, nn.BatchNorm2d(dim), nn.GELU()), *mixers, *decoder])
    found = nn.ModuleList([model.patch_encoder, *model.mixers, model.patch_shuffle, model.patch_reassemble])
    # A representation lacks the module of a type, so that two types may look alike.
    return repr(found) == repr(usual) and [*map(type, found.modules())] == [*map(type, usual.modules())]


def _mix_on_grids(mixer: nn.Module, x: Tensor) -> Tensor:
    residual, pointwise = mixer.children()
    conv1, conv2, activation, norm = residual.block  # type: ignore[misc]
    return pointwise(norm(activation(by_interleaved_grids(conv2, conv1(x)))) + x)


def _call_compiled(mixer: nn.Module, x: Tensor) -> Tensor:
    return _compiled()(mixer, x)


@cache
def _compiled() -> Callable[[nn.Module, Tensor], Tensor]:
    return torch.compile(lambda mixer, x: mixer(x))


def by_interleaved_grids(conv: nn.Conv2d, x_BCHW: Tensor) -> Tensor:
    """Compute a dilated depthwise convolution that keeps H and W as a plain one; call any other convolution as it is."""
    r = conv.dilation[0]
    if r == 1 or type(conv) is not nn.Conv2d or conv.padding_mode != "zeros":
        return conv(x_BCHW)
    batch, channels, height, width = x_BCHW.shape
    x_BHWC = F.pad(x_BCHW, (0, -width % r, 0, -height % r)).permute(0, 2, 3, 1)
    rows, columns = x_BHWC.shape[1] // r, x_BHWC.shape[2] // r
    grids = x_BHWC.reshape(batch, rows, r, columns, r, channels).permute(0, 2, 4, 5, 1, 3)
    grids = grids.reshape(batch * r * r, channels, rows, columns)
    grids = F.conv2d(grids, conv.weight, conv.bias, padding=conv.kernel_size[0] // 2, groups=channels)
    grids = grids.view(batch, r, r, channels, rows, columns).permute(0, 3, 4, 1, 5, 2)
    return grids.reshape(batch, channels, rows * r, columns * r)[:, :, :height, :width]
