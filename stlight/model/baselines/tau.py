"""TAU (Tan et al., 2023): SimVP with temporal attention units and a loss on the change between frames."""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stlight.model.baselines.simvp_incepu import SimVP
from stlight.model.forecaster import TrainingStep


def depthwise(dim: int, kernel_size: int, dilation: int = 1) -> nn.Conv2d:
    """Build a same-padded depthwise convolution."""
    return nn.Conv2d(dim, dim, kernel_size, padding=dilation * (kernel_size - 1) // 2, dilation=dilation, groups=dim)


class TemporalAttention(nn.Module):
    """Attention within frames (large kernels) times attention over channels, which hold time (squeeze-and-excitation)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.before = nn.Conv2d(dim, dim, 1)
        # A small and a dilated kernel stand for one of 21 × 21.
        self.static = nn.Sequential(depthwise(dim, 5), depthwise(dim, 7, dilation=3), nn.Conv2d(dim, dim, 1))
        squeezed = max(1, dim // max(dim // 16, 4))
        self.dynamic = nn.Sequential(
            nn.Linear(dim, squeezed, bias=False), nn.ReLU(), nn.Linear(squeezed, dim, bias=False), nn.Sigmoid()
        )
        self.after = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H', W') → (B, C, H', W')."""
        u = F.gelu(self.before(x))
        attention = self.dynamic(F.adaptive_avg_pool2d(u, 1).flatten(1))[..., None, None]
        return self.after(attention * self.static(u) * u) + x


class TAUBlock(nn.Module):
    """Attention and an MLP, each scaled and added to its input."""

    def __init__(self, dim: int, expansion: int = 8) -> None:
        super().__init__()
        self.scale_attention, self.scale_mlp = (nn.Parameter(torch.full((dim, 1, 1), 0.01)) for _ in range(2))
        wide = expansion * dim
        self.attention = nn.Sequential(nn.BatchNorm2d(dim), TemporalAttention(dim))
        mlp = nn.Sequential(nn.Conv2d(dim, wide, 1), depthwise(wide, 3), nn.GELU(), nn.Conv2d(wide, dim, 1))
        for layer in mlp:
            if isinstance(layer, nn.Conv2d):
                fan_out = layer.weight[0, 0].numel() * layer.out_channels // layer.groups
                nn.init.normal_(layer.weight, std=math.sqrt(2 / fan_out))
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.mlp = nn.Sequential(nn.BatchNorm2d(dim), mlp)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H', W') → (B, C, H', W')."""
        x = x + self.scale_attention * self.attention(x)
        return x + self.scale_mlp * self.mlp(x)


DIVERGENCE = 0.1
"""Weight of the difference divergence (alpha)."""


class TAU(SimVP):
    """SimVP's encoder and decoder around 8 attention blocks of 512 channels."""

    def build_translator(self, channels: int, hidden_dim: int, depth: int) -> nn.Module:
        """Build the blocks, with a pointwise convolution wherever the number of channels changes."""
        layers: list[nn.Module] = []
        for before, after in pairwise([channels] + [hidden_dim] * (depth - 1) + [channels]):
            layers += [TAUBlock(before), *([nn.Conv2d(before, after, 1)] if before != after else [])]
        return nn.Sequential(*layers)

    def training_loss(self, context: Tensor, target: Tensor, step: TrainingStep) -> Tensor:
        """Return the mean squared error plus the weighted difference divergence."""
        predicted = self(context).to(target.dtype)
        return F.mse_loss(predicted, target) + DIVERGENCE * difference_divergence(predicted, target)


def difference_divergence(predicted: Tensor, target: Tensor, temperature: float = 0.1, eps: float = 1e-12) -> Tensor:
    """Return the Kullback–Leibler divergence between the changes of consecutive frames (B, T, C, H, W).

    A softmax over pixels makes each change a distribution. The result is the mean over all pixels, as in the benchmark, and
    zero for two frames or fewer.
    """
    if predicted.shape[1] <= 2:
        return predicted.new_zeros(())
    p, q = (torch.softmax(frames.diff(dim=1).flatten(2) / temperature, -1) for frames in (predicted, target))
    return (p * torch.log(p / (q + eps) + eps)).mean()
