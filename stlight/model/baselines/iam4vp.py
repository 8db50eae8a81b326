"""IAM4VP (Seo et al., 2023): one frame per pass, from the context and a queue of the frames predicted before."""

import math
from itertools import count

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stlight.model.baselines import Baseline
from stlight.model.baselines.simvp_incepu import ConvBlock
from stlight.model.forecaster import TrainingStep
from stlight.model.stlight import depthwise_conv
from stlight.registry.dataset_specs import ClipShape


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each pixel."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H', W') → (B, C, H', W')."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


def conv_block(in_channels: int, out_channels: int, *, halve: bool = False, double: bool = False) -> ConvBlock:
    """Build SimVP's block with a `ChannelNorm` in place of GroupNorm."""
    block = ConvBlock(in_channels, out_channels, halve=halve, double=double)
    block[-2] = ChannelNorm(out_channels, eps=1e-6)
    return block


class LargeKernelAttention(nn.Module):
    """Multiply the input by a map that a 5 × 5 and a dilated 7 × 7 depthwise convolution compute from it."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(depthwise_conv(dim, 5), depthwise_conv(dim, 7, 3), nn.Conv2d(dim, dim, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H', W') → (B, C, H', W')."""
        return x * self.attention(x)


class TimedBlock(nn.Module):
    """ConvNeXt block whose spatial part is shifted by an embedding of the time.

    The spatial part is large-kernel attention. A block that reduces its channels has a grouped 7 × 7 convolution instead.
    """

    def __init__(self, in_dim: int, dim: int, time_dim: int) -> None:
        super().__init__()
        self.of_time = nn.Sequential(nn.GELU(), nn.Linear(time_dim, dim))
        reduces = in_dim != dim
        self.spatial = nn.Conv2d(in_dim, dim, 7, padding=3, groups=dim) if reduces else LargeKernelAttention(dim)
        self.mlp = nn.Sequential(nn.LayerNorm(dim, eps=1e-6), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.scale = nn.Parameter(torch.full((dim,), 1e-6))
        self.residual = nn.Conv2d(in_dim, dim, 1) if reduces else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Map x (B, C, H', W') and the embedding of the time (time_dim) to (B, C', H', W')."""
        mixed = self.spatial(x) + self.of_time(time)[:, None, None]
        return self.residual(x) + (self.scale * self.mlp(mixed.movedim(1, -1))).movedim(-1, 1)


def sinusoids(time: float, dim: int) -> Tensor:
    """Return the sines and cosines (dim) of a time at `dim / 2` frequencies, in geometric progression from 1 to 1 / 10000."""
    half = dim // 2
    phases = time * torch.exp(torch.arange(half) * (-math.log(10_000) / (half - 1)))
    return torch.cat((phases.sin(), phases.cos()))


class IAM4VP(Baseline):
    """Codes of 64 channels at a quarter of the frame's sides; 8 blocks on the codes of all context frames together.

    Every pass reads the whole context, the codes of all frames predicted so far, a learnt code for each frame not yet predicted
    and the time of the next frame, which it predicts. The authors' code builds a ninth block that it never calls; we do not.
    """

    def __init__(self, shape: ClipShape, *, width: float = 1.0, depth: float = 1.0) -> None:
        super().__init__(shape, width=width, depth=depth)
        self.code_dim = code = self.wide(64)
        frames = shape.context_frames
        # A multiple of the context frames, so that the groups of the first block's convolution have equal size.
        slots = math.ceil(shape.horizon_frames / frames) * frames
        self.encoder, self.queue_encoder = (
            nn.ModuleList(conv_block(shape.channels if i == 0 else code, code, halve=i % 2 == 1) for i in range(4))
            for _ in range(2)
        )
        self.empty_slots = nn.Parameter(torch.zeros(slots, code, shape.height // 4, shape.width // 4))
        self.time_mlp = nn.Sequential(nn.Linear(code, 4 * code), nn.GELU(), nn.Linear(4 * code, code))
        dim = frames * code
        self.blocks = nn.ModuleList(TimedBlock(dim if i else dim + slots * code, dim, code) for i in range(self.deep(8)))
        self.decoder = nn.Sequential(*(conv_block(code, code, double=i % 2 == 0) for i in range(3)))
        self.join_skip = conv_block(2 * code, code)
        self.join_frames = nn.Conv2d(dim, code, 1)
        self.refine = nn.Sequential(nn.Conv2d(code, code, 1), nn.GELU(), LargeKernelAttention(code), nn.Conv2d(code, code, 1))
        self.readout = nn.Conv2d(code, shape.channels, 1)

    def next_frame(self, context: Tensor, predicted: Tensor) -> Tensor:
        """Map the context (B, T, C, H, W) and the t frames predicted so far (B, t, C, H, W) to the next (B, 1, C, H, W)."""
        x = first = self.encoder[0](context.flatten(0, 1))
        for block in self.encoder[1:]:
            x = block(x)
        queue = predicted.flatten(0, 1)
        for block in self.queue_encoder:
            queue = block(queue)
        batch, t = predicted.shape[:2]
        empty = self.empty_slots[t:].expand(batch, -1, -1, -1, -1)
        x = torch.cat((x.unflatten(0, (batch, -1)), queue.unflatten(0, (batch, t)), empty), 1).flatten(1, 2)
        # The authors' unit of time is a hundredth of a frame.
        time = self.time_mlp(sinusoids(100.0 * t, self.code_dim).to(x))
        for block in self.blocks:
            x = block(x, time)
        x = self.join_skip(torch.cat((self.decoder(x.unflatten(1, (-1, self.code_dim)).flatten(0, 1)), first), 1))
        x = self.join_frames(x.unflatten(0, (batch, -1)).flatten(1, 2))
        return self.readout(x + self.refine(x))[:, None]

    def unroll(self, context: Tensor, steps: int) -> Tensor:
        """(B, T, C, H, W) → the first `steps` frames after them."""
        predicted = context[:, :0]
        for _ in range(steps):
            predicted = torch.cat((predicted, self.next_frame(context, predicted)), 1)
        return predicted

    def predict(self, context: Tensor) -> Tensor:
        """(B, T, C, H, W) → (B, T', C, H, W)."""
        return self.unroll(context, self.shape.horizon_frames)

    def training_loss(self, context: Tensor, target: Tensor, step: TrainingStep) -> Tensor:
        """Return the error of one frame, drawn from the horizon."""
        return self.error_at(self._frame_of(step), context, target)

    def typical_step(self) -> int:
        """Return the index of a step that draws the frame in the middle of the horizon, because a later one costs more."""
        middle = self.shape.horizon_frames // 2
        return next(index for index in count() if self._frame_of(TrainingStep.at(index, 1, 0)) == middle)

    def _frame_of(self, step: TrainingStep) -> int:
        return int(torch.randint(self.shape.horizon_frames, (), generator=step.generator))

    def error_at(self, t: int, context: Tensor, target: Tensor) -> Tensor:
        """Return the mean squared error of predicted frame t. No gradient flows into the frames predicted before it."""
        with torch.no_grad():
            before = self.unroll(context, t)
        return F.mse_loss(self.next_frame(context, before).to(target.dtype), target[:, t : t + 1])
