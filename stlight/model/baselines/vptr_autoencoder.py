"""Frame autoencoder of VPTR (Ye & Bilodeau, 2022): a residual convolutional network, trained before the transformer."""

from itertools import pairwise

from torch import Tensor, nn


def convolution(in_channels: int, out_channels: int, side: int, stride: int = 1) -> list[nn.Module]:
    """Return a convolution with reflection padding if its stride is 1, and BatchNorm."""
    conv = nn.Conv2d(
        in_channels, out_channels, side, stride, side // 2, bias=False, padding_mode="reflect" if stride == 1 else "zeros"
    )
    return [conv, nn.BatchNorm2d(out_channels)]


class ResidualBlock(nn.Module):
    """Two convolutions, added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*convolution(channels, channels, 3), nn.ReLU(), *convolution(channels, channels, 3))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H', W') → (B, C, H', W')."""
        return x + self.layers(x)


class Autoencoder(nn.Module):
    """Code each frame at an eighth of its sides, and decode codes to frames in [0, 1]."""

    def __init__(self, channels: int, hidden_dim: int, code_dim: int, depth: int) -> None:
        super().__init__()
        dims = [hidden_dim, 2 * hidden_dim, 4 * hidden_dim, code_dim]
        encoder = [*convolution(channels, hidden_dim, 7), nn.ReLU()]
        decoder: list[nn.Module] = []
        for few, many in pairwise(dims):
            encoder += [*convolution(few, many, 3, stride=2), nn.ReLU()]
            double = nn.ConvTranspose2d(many, few, 3, stride=2, padding=1, output_padding=1, bias=False)
            decoder = [double, nn.BatchNorm2d(few), nn.ReLU(), *decoder]
        # Codes are not negative.
        self.encoder = nn.Sequential(*encoder, *(ResidualBlock(code_dim) for _ in range(depth)), nn.ReLU())
        readout = nn.Conv2d(hidden_dim, channels, 7, padding=3, padding_mode="reflect")
        self.decoder = nn.Sequential(*decoder, readout, nn.Sigmoid())
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(layer.weight, std=0.02)
            elif isinstance(layer, nn.BatchNorm2d):
                nn.init.normal_(layer.weight, mean=1, std=0.02)
        nn.init.zeros_(readout.bias)  # type: ignore[arg-type]

    def encode(self, frames: Tensor) -> Tensor:
        """Map frames (B, T, C, H, W) to codes (B, T, D, H / 8, W / 8)."""
        return self.encoder(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])

    def decode(self, codes: Tensor) -> Tensor:
        """Map codes (B, T, D, H / 8, W / 8) to frames (B, T, C, H, W)."""
        return self.decoder(codes.flatten(0, 1)).unflatten(0, codes.shape[:2])
