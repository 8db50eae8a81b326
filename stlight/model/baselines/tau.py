"""TAU (Tan et al., 2023): SimVP with temporal attention units and a loss on the change between frames."""

import math
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stlight.model.baselines.simvp_incepu import SimVP
from stlight.model.forecaster import TrainingStep, roll_out
from stlight.model.stlight import depthwise_conv
from stlight.registry.dataset_specs import ClipShape


class TemporalAttention(nn.Module):
    """Attention within frames (large kernels) times attention over channels, which hold time (squeeze-and-excitation)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.before = nn.Conv2d(dim, dim, 1)
        # A small and a dilated kernel stand for one of 21 × 21.
        self.static = nn.Sequential(depthwise_conv(dim, 5), depthwise_conv(dim, 7, 3), nn.Conv2d(dim, dim, 1))
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
    """Attention and an MLP, each scaled and added to its input; then a pointwise convolution if the channels change."""

    def __init__(self, dim: int, out_dim: int, expansion: int = 8) -> None:
        super().__init__()
        self.scale_attention, self.scale_mlp = (nn.Parameter(torch.full((dim, 1, 1), 0.01)) for _ in range(2))
        wide = expansion * dim
        self.attention = nn.Sequential(nn.BatchNorm2d(dim), TemporalAttention(dim))
        mlp = nn.Sequential(nn.Conv2d(dim, wide, 1), depthwise_conv(wide, 3), nn.GELU(), nn.Conv2d(wide, dim, 1))
        for layer in mlp:
            if isinstance(layer, nn.Conv2d):
                fan_out = layer.weight[0, 0].numel() * layer.out_channels // layer.groups
                nn.init.normal_(layer.weight, std=math.sqrt(2 / fan_out))
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.mlp = nn.Sequential(nn.BatchNorm2d(dim), mlp)
        self.resize = nn.Conv2d(dim, out_dim, 1) if dim != out_dim else nn.Identity()

    def forward(self, x: Tensor, kept: Tensor) -> Tensor:
        """(B, C, H', W') → (B, C', H', W'). `kept` (2, B, 1, 1, 1) multiplies the attention and the MLP of each clip."""
        x = x + self.scale_attention * kept[0] * self.attention(x)
        return self.resize(x + self.scale_mlp * kept[1] * self.mlp(x))


class TAUTranslator(nn.Module):
    """The attention blocks, trained with stochastic depth (Huang et al., 2016).

    The probability of a drop goes linearly from 0.01 at the first block to `last_drop` at the last. The configuration for
    Moving MNIST asks for none (`drop_path = 0`), but the benchmark's code starts at 0.01.
    """

    last_drop: float = 0.0

    def __init__(self, channels: int, hidden_dim: int, depth: int) -> None:
        super().__init__()
        dims = [channels] + [hidden_dim] * (depth - 1) + [channels]
        self.blocks = nn.ModuleList(TAUBlock(*pair) for pair in pairwise(dims))

    def draw(self, clips: int, generator: torch.Generator) -> Tensor:
        """Draw which parts of which block (blocks, 2, clips, 1, 1, 1) are dropped: 0 if so, else 1 / probability to keep."""
        keep = 1 - torch.linspace(0.01, self.last_drop, len(self.blocks))[:, None, None]
        drawn = torch.rand((len(self.blocks), 2, clips), generator=generator)
        return ((drawn < keep) / keep)[..., None, None, None]

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        """(B, T · C, H', W') → (B, T · C, H', W')."""
        kept = x.new_ones((len(self.blocks), 2, 1, 1, 1, 1)) if kept is None else kept.to(x.device)
        for block, factors in zip(self.blocks, kept, strict=True):
            x = block(x, factors)
        return x


class TAU(SimVP):
    """SimVP's encoder and decoder around attention blocks."""

    translator_class = TAUTranslator
    translator: TAUTranslator

    def __init__(self, shape: ClipShape, *, drop_path: float = 0.0, **size: Any) -> None:
        """`drop_path` is the probability that stochastic depth drops a part of the last block; `size` as for SimVP."""
        super().__init__(shape, **size)
        self.translator.last_drop = drop_path

    def training_loss(self, context: Tensor, target: Tensor, step: TrainingStep) -> Tensor:
        """Return the mean squared error plus a tenth of the difference divergence."""

        def predict(clip: Tensor) -> Tensor:
            return self.predict_as_many(clip, *([self.translator.draw(len(clip), step.generator)] if self.training else []))

        predicted = roll_out(predict, context, self.shape.horizon_frames).to(target.dtype)
        return F.mse_loss(predicted, target) + 0.1 * difference_divergence(predicted, target)


def difference_divergence(predicted: Tensor, target: Tensor, temperature: float = 0.1, eps: float = 1e-12) -> Tensor:
    """Return the Kullback–Leibler divergence between the changes of consecutive frames (B, T, C, H, W).

    A softmax over pixels makes each change a distribution. The result is the mean over all pixels, as in the benchmark, and
    zero for two frames or fewer.
    """
    if predicted.shape[1] <= 2:
        return predicted.new_zeros(())
    p, q = (torch.softmax(frames.diff(dim=1).flatten(2) / temperature, -1) for frames in (predicted, target))
    return (p * torch.log(p / (q + eps) + eps)).mean()
