"""SimVP (Gao et al., 2022) with IncepU: encode each frame, translate all frames together, decode each frame."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from stlight.model.baselines import Baseline
from stlight.model.forecaster import roll_out
from stlight.registry.dataset_specs import ClipShape


class ConvBlock(nn.Sequential):
    """3 × 3 convolution, which can halve or double the frame's sides; GroupNorm; SiLU."""

    def __init__(self, in_channels: int, out_channels: int, *, halve: bool = False, double: bool = False) -> None:
        conv = nn.Conv2d(in_channels, out_channels * (4 if double else 1), 3, 2 if halve else 1, 1)
        nn.init.trunc_normal_(conv.weight, std=0.02)
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        super().__init__(conv, *([nn.PixelShuffle(2)] if double else []), nn.GroupNorm(2, out_channels), nn.SiLU())


class InceptionBlock(nn.Module):
    """A pointwise convolution, then the sum of grouped convolutions with four kernel sizes."""

    def __init__(self, in_channels: int, hidden_dim: int, out_channels: int) -> None:
        super().__init__()
        self.pointwise = nn.Conv2d(in_channels, hidden_dim, 1)
        self.branches = nn.ModuleList()
        groups = 8 if hidden_dim % 8 == 0 and out_channels % 8 == 0 else 1
        for size in (3, 5, 7, 11):
            conv = nn.Conv2d(hidden_dim, out_channels, size, padding=size // 2, groups=groups)
            self.branches.append(nn.Sequential(conv, nn.GroupNorm(groups, out_channels), nn.LeakyReLU(0.2)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H', W') → (B, C', H', W')."""
        x = self.pointwise(x)
        return torch.stack([branch(x) for branch in self.branches]).sum(0)


class IncepU(nn.Module):
    """U-Net of Inception blocks: `depth` blocks forth and as many back, with skip connections."""

    def __init__(self, channels: int, hidden_dim: int, depth: int) -> None:
        super().__init__()
        half = hidden_dim // 2
        first, after = [channels] + [hidden_dim] * (depth - 1), [hidden_dim] + [2 * hidden_dim] * (depth - 1)
        out = [hidden_dim] * (depth - 1) + [channels]
        self.forth = nn.ModuleList(InceptionBlock(dim, half, hidden_dim) for dim in first)
        self.back = nn.ModuleList(InceptionBlock(*dims) for dims in zip(after, [half] * depth, out, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T · C, H', W') → (B, T · C, H', W')."""
        skips = []
        for block in self.forth:
            x = block(x)
            skips.append(x)
        x = self.back[0](x)
        for block, skip in zip(self.back[1:], reversed(skips[:-1]), strict=True):
            x = block(torch.cat((x, skip), 1))
        return x


class SimVP(Baseline):
    """Encode frames, which halves their sides `halvings` times; translate all codes together; decode.

    One pass predicts as many frames as it reads. Longer horizons feed predictions back.
    """

    translator_class: ClassVar[type[nn.Module]] = IncepU
    """Maps codes of all frames (B, T · C, H', W') to such codes."""

    def __init__(
        self,
        shape: ClipShape,
        *,
        width: float = 1.0,
        depth: float = 1.0,
        code_dim: int = 64,
        hidden_dim: int = 512,
        layers: int = 8,
        halvings: int = 2,
    ) -> None:
        """Codes have `code_dim` channels; the translator has `layers` blocks (each way, in IncepU) of `hidden_dim` channels."""
        super().__init__(shape, width=width, depth=depth)
        code, translator_dim = self.wide(code_dim, multiple=2), self.wide(hidden_dim, multiple=16)
        dims = [shape.channels] + [code] * (2 * halvings - 1)
        self.encoder = nn.ModuleList(ConvBlock(dim, code, halve=i % 2 == 1) for i, dim in enumerate(dims))
        self.decoder = nn.ModuleList(ConvBlock(code, code, double=i % 2 == 0) for i in range(2 * halvings))
        self.readout = nn.Conv2d(code, shape.channels, 1)
        self.translator = self.translator_class(shape.context_frames * code, translator_dim, self.deep(layers))

    def predict(self, context: Tensor) -> Tensor:
        """(B, T, C, H, W) → (B, T', C, H, W)."""
        return roll_out(self.predict_as_many, context, self.shape.horizon_frames)

    def predict_as_many(self, clip: Tensor, *draws: Tensor) -> Tensor:
        """(B, T, C, H, W) → the next T frames. `draws` are a translator's random numbers in training."""
        x = first = self.encoder[0](clip.flatten(0, 1))
        for block in self.encoder[1:]:
            x = block(x)
        frames = clip.shape[:2]
        x = self.translator(x.unflatten(0, frames).flatten(1, 2), *draws).unflatten(1, (frames[1], -1)).flatten(0, 1)
        for block in self.decoder[:-1]:
            x = block(x)
        return self.readout(self.decoder[-1](x + first)).unflatten(0, frames)

    def counted_by_benchmark(self, context: Tensor) -> object:
        """Run one pass, whatever the horizon."""
        return self.predict_as_many(context)
