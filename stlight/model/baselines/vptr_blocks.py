"""Blocks of VPTR's transformers: attention within windows of a frame, attention over frames, feed-forward networks."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stlight.model.stlight import depthwise_conv

HEADS = 8
DROPOUT = 0.1

Norm = Callable[[int], nn.Module]
"""Normalization of frames (B, C, H', W'), by the number of channels."""


class WindowAttention(nn.Module):
    """Attention within windows of a frame, with a learnt bias for each distance between positions (Liu et al., 2021)."""

    offset: Tensor

    def __init__(self, dim: int, window: tuple[int, int]) -> None:
        super().__init__()
        self.window = height, width = window
        self.query, self.key, self.value, self.output = (nn.Linear(dim, dim) for _ in range(4))
        self.biases = nn.Parameter(torch.zeros((2 * height - 1) * (2 * width - 1), HEADS))
        y, x = torch.arange(height).repeat_interleave(width), torch.arange(width).repeat(height)
        offset = (y[:, None] - y + height - 1) * (2 * width - 1) + x[:, None] - x + width - 1
        self.register_buffer("offset", offset, persistent=False)

    def split(self, x: Tensor) -> Tensor:
        """(B, T, H', W', D) → (windows, heads, positions in a window, D / heads)."""
        height, width = self.window
        x = x.unflatten(4, (HEADS, -1)).unflatten(3, (-1, width)).unflatten(2, (-1, height))
        return x.permute(0, 1, 2, 4, 6, 3, 5, 7).flatten(5, 6).flatten(0, 3)

    def forward(self, x: Tensor, value: Tensor) -> Tensor:
        """Attend from and to `x` (B, T, H', W', D); average `value`, of the same shape, which is returned."""
        q, k, v = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(value))
        bias = self.biases[self.offset].permute(2, 0, 1)[None].to(q.dtype)
        out = F.scaled_dot_product_attention(q, k, v, bias, dropout_p=DROPOUT if self.training else 0.0)
        (height, width), (clips, frames, rows, columns, _) = self.window, x.shape
        out = out.view(clips, frames, rows // height, columns // width, HEADS, height, width, -1)
        return self.output(out.permute(0, 1, 2, 5, 3, 6, 4, 7).reshape(x.shape))


class TemporalAttention(nn.Module):
    """Attention over frames at each position of a frame; `causal`: to no later frames."""

    def __init__(self, dim: int, *, causal: bool = False) -> None:
        super().__init__()
        self.causal = causal
        self.attention = nn.MultiheadAttention(dim, HEADS, DROPOUT, batch_first=True)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Map queries (B, T', H', W', D), keys and values (B, T, H', W', D) to (B, T', H', W', D)."""
        q, k, v = (x.permute(0, 2, 3, 1, 4).flatten(0, 2) for x in (query, key, value))
        later = torch.ones(2 * q.shape[1:2], dtype=torch.bool, device=q.device).triu(1) if self.causal else None
        out = self.attention(q, k, v, need_weights=False, attn_mask=later)[0]
        clips, _, height, width, _ = query.shape
        return out.unflatten(0, (clips, height, width)).permute(0, 3, 1, 2, 4)


class ConvFFN(nn.Sequential):
    """Feed-forward network of four times the channels whose depthwise convolution connects windows."""

    def __init__(self, dim: int, norm: Norm) -> None:
        wide = 4 * dim
        first = nn.Conv2d(dim, wide, 1), norm(wide), nn.GELU(), depthwise_conv(wide, 3), norm(wide), nn.GELU()
        super().__init__(*first, nn.Dropout(DROPOUT), nn.Conv2d(wide, dim, 1), norm(dim), nn.GELU(), nn.Dropout(DROPOUT))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, H', W', D) → (B, T, H', W', D)."""
        out = super().forward(x.flatten(0, 1).permute(0, 3, 1, 2))
        return out.permute(0, 2, 3, 1).unflatten(0, x.shape[:2])


class DropPath(nn.Module):
    """Stochastic depth: drop a residual branch of some clips."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, …) → (B, …)."""
        return x * F.dropout(x.new_ones(len(x), *[1] * (x.ndim - 1)), DROPOUT) if self.training else x


class Block(nn.Module):
    """VidHRFormer block: attention in windows, then over time, each followed by a feed-forward network."""

    def __init__(self, dim: int, window: tuple[int, int], norm: Norm, *, causal: bool = False) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(4))
        self.in_windows = WindowAttention(dim, window)
        self.conv_ffn = ConvFFN(dim, norm)
        self.over_time = TemporalAttention(dim, causal=causal)
        linear, back = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.ffn = nn.Sequential(linear, nn.GELU(), nn.Dropout(DROPOUT), back, nn.Dropout(DROPOUT))
        self.drop_path, self.dropout = DropPath(), nn.Dropout(DROPOUT)

    def forward(self, x: Tensor, times: Tensor, queries: Tensor | float = 0.0) -> Tensor:
        """(B, T, H', W', D) → (B, T, H', W', D). `times` (T, 1, 1, D) encode time, `queries` (T, H', W', D) the place."""
        h = self.norms[0](x)
        x = x + self.drop_path(self.in_windows(h + queries, h))
        x = x + self.drop_path(self.conv_ffn(self.norms[1](x)))
        h = self.norms[2](x)
        x = x + self.dropout(self.over_time(h + times, h + times, h))
        return x + self.ffn(self.norms[3](x))


class DecoderBlock(nn.Module):
    """VidHRFormer block, then attention to past frames and a feed-forward network."""

    def __init__(self, dim: int, window: tuple[int, int], norm: Norm) -> None:
        super().__init__()
        self.block = Block(dim, window, norm)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))
        self.to_past = TemporalAttention(dim)
        self.conv_ffn = ConvFFN(dim, norm)
        self.drop_path = DropPath()

    def forward(self, x: Tensor, times: Tensor, queries: Tensor, past: Tensor, past_times: Tensor) -> Tensor:
        """(B, T', H', W', D) → (B, T', H', W', D). `past` are encoded frames (B, T, H', W', D), the rest as in `Block`."""
        x = self.block(x, times, queries)
        query = self.norms[0](x) + queries + times
        x = x + self.drop_path(self.to_past(query, past + past_times, past))
        return x + self.drop_path(self.conv_ffn(self.norms[1](x)))
