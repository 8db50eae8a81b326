"""The supplement's listing (Section G) in plain eager PyTorch: the reference that speed is measured against.

Corrected only where it cannot run: the names of the kernel sizes, the inputs of the pointwise layer (`dim // patch_size**2`),
and the indentation of the skip and the mixers. Otherwise it stays as naive as it is printed.
"""

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    """Compute fn(x) + x."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        """Take any shape that fn keeps."""
        return self.fn(x) + x


def mixer(dim: int, k1: int, k2: int, dilation: int) -> nn.Sequential:
    """Return lines 12 to 27 of the listing."""
    return nn.Sequential(
        Residual(
            nn.Sequential(
                nn.Conv2d(dim, dim, k1, groups=dim, padding="same"),
                nn.Conv2d(dim, dim, k2, groups=dim, padding="same", dilation=dilation),
                nn.GELU(),
                nn.BatchNorm2d(dim),
            )
        ),
        nn.Sequential(nn.Conv2d(dim, dim, kernel_size=1), nn.GELU(), nn.BatchNorm2d(dim)),
    )


class Listing(nn.Module):
    """Lines 29 to 69 of the listing, without the initialization."""

    def __init__(self, dim: int, depth: int, patch_size: int, overlap: int, k1: int, k2: int, frames: int = 10) -> None:
        super().__init__()
        self.patch_encoder = nn.Sequential(
            nn.Conv2d(
                frames,
                dim,
                kernel_size=patch_size * max(1, overlap),
                stride=patch_size,
                padding=max(0, overlap - 1) * patch_size // 2,
            ),
            nn.BatchNorm2d(dim),
            nn.GELU(),
        )
        self.net = nn.ModuleList([mixer(dim, k1, k2, dilation=3) for _ in range(depth)])
        self.up = nn.PixelShuffle(patch_size)
        self.patch_reassemble = nn.Conv2d(dim // patch_size**2, frames, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Predict as many frames (B, T, 1, H, W) as are given."""
        batch, frames, channels, height, width = x.shape
        x = self.patch_encoder(x.reshape(batch, frames * channels, height, width))
        for i, block in enumerate(self.net):
            if i == len(self.net) // 3:
                skipped = x
            if i == 2 * len(self.net) // 3:
                x = x + skipped
            x = block(x)
        return self.patch_reassemble(self.up(x)).reshape(batch, frames, channels, height, width)

    def load_weights_of(self, model: nn.Module) -> None:
        """Copy the weights of an STLight, whose state dict has the same order."""
        with torch.no_grad():
            for mine, theirs in zip(self.state_dict().values(), model.state_dict().values(), strict=True):
                mine.copy_(theirs)
