"""Generated clips in the shapes of TaxiBJ and KTH, so that every column of Table 1 runs with no download.

They resemble the real data in shape and kind of motion only. Every number made with them is labelled "stand-in".
"""

import math
from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from stlight.data.clips import HELD_OUT_SEED, SPLITS, Clips, Split
from stlight.data.counter import random_bits, uniform


class _StandIn(Clips):
    """Clips drawn from `num_draws` uniform numbers each."""

    num_draws: int

    def clips(self, split: Split, index_N: Tensor, epoch: int = 0) -> Tensor:
        """Clips by number; see `Clips.clips`."""
        key = (self.seed if split == "train" else HELD_OUT_SEED, SPLITS.index(split), epoch)
        return self._draw(uniform(random_bits(key, index_N.to(self.device), self.num_draws)).float())

    @abstractmethod
    def _draw(self, u_ND: Tensor) -> Tensor:
        """Uniform numbers (N, num_draws) → clips."""


class TaxiBJStandIn(_StandIn):
    """Traffic-like flow, (N, 8, 2, 32, 32): centres of activity that drift and breathe; outflow lags behind inflow."""

    _CENTRES = 6
    num_draws = _CENTRES * 7

    def _draw(self, u_ND: Tensor) -> Tensor:
        u = u_ND.view(-1, 1, 1, self._CENTRES, 7)
        frame = torch.arange(8, device=u.device).view(1, -1, 1, 1)
        lag = torch.tensor([0.0, 1.5], device=u.device).view(1, 1, -1, 1)
        time = frame - lag
        x = u[..., 0] + 0.04 * (u[..., 1] - 0.5) * time
        y = u[..., 2] + 0.04 * (u[..., 3] - 0.5) * time
        width = 0.04 + 0.1 * u[..., 4]
        height = u[..., 5] * (0.6 + 0.4 * torch.sin(2 * math.pi * (u[..., 6] + time / 16)))
        grid = torch.linspace(0, 1, 32, device=u.device)
        in_x = torch.exp(-((grid - x.unsqueeze(-1)) ** 2) / (2 * width**2).unsqueeze(-1))
        in_y = torch.exp(-((grid - y.unsqueeze(-1)) ** 2) / (2 * width**2).unsqueeze(-1))
        # A sum over centres of separable bumps: (N, T, C, centres, 32) twice → (N, T, C, 32, 32).
        flow = ((in_y * height.unsqueeze(-1)).unsqueeze(-1) * in_x.unsqueeze(-2)).sum(3)
        return 1 - torch.exp(-flow)


class KTHStandIn(_StandIn):
    """A grey figure that walks across a shaded ground, swinging its limbs, (N, 30, 1, 128, 128)."""

    num_draws = 8
    # Drawn at half the size and enlarged: a quarter of the work, and softer edges, as in the real recordings.
    _SIDE = 64

    def _draw(self, u_ND: Tensor) -> Tensor:
        u = u_ND.unsqueeze(-1)
        frame = torch.arange(30, device=u.device)
        towards_right = torch.where(u[:, 0] < 0.5, 1.0, -1.0)
        hip_x = 0.5 + towards_right * (u[:, 1] * 0.25 - 0.35 + (0.008 + 0.02 * u[:, 2]) * frame)
        phase = 2 * math.pi * (u[:, 3] + (0.03 + 0.04 * u[:, 4]) * frame)
        size = 0.8 + 0.3 * u[:, 5]
        hip_y = 0.55 + 0.01 * torch.cos(2 * phase)
        swing = 0.5 * torch.sin(phase) * towards_right
        shoulder_y = hip_y - 0.2 * size

        def limb(x: Tensor, y: Tensor, angle: Tensor, length: Tensor, thickness: float) -> Tensor:
            """Soft mask of a rounded segment from (x, y), hanging down by `angle`: (N, T, 64, 64)."""
            end_x, end_y = x + length * torch.sin(angle), y + length * torch.cos(angle)
            return self._segment(x, y, end_x, end_y, thickness)

        none = torch.zeros_like(swing)
        figure = torch.stack(
            [
                limb(hip_x, shoulder_y, none, 0.2 * size + none, 0.05),
                limb(hip_x, shoulder_y - 0.09 * size, none, none, 0.05),
                limb(hip_x, hip_y, swing, 0.27 * size + none, 0.028),
                limb(hip_x, hip_y, -swing, 0.27 * size + none, 0.028),
                limb(hip_x, shoulder_y, -swing, 0.2 * size + none, 0.02),
                limb(hip_x, shoulder_y, swing, 0.2 * size + none, 0.02),
            ]
        ).amax(0)
        rows = torch.linspace(0, 1, self._SIDE, device=u.device).view(1, 1, -1, 1)
        ground = 0.75 - 0.25 * rows * u[:, 6].view(-1, 1, 1, 1)
        shade = (0.15 + 0.3 * u[:, 7]).view(-1, 1, 1, 1)
        frames = ground * (1 - figure) + shade * figure
        return F.interpolate(frames, scale_factor=2, mode="bilinear", align_corners=False).unsqueeze(2)

    def _segment(self, x0: Tensor, y0: Tensor, x1: Tensor, y1: Tensor, thickness: float) -> Tensor:
        grid = torch.linspace(0, 1, self._SIDE, device=x0.device)
        x0, y0, x1, y1 = (value.unsqueeze(-1).unsqueeze(-1) for value in torch.broadcast_tensors(x0, y0, x1, y1))
        from_x, from_y = grid - x0, grid.unsqueeze(-1) - y0
        along_x, along_y = x1 - x0, y1 - y0
        share = ((from_x * along_x + from_y * along_y) / (along_x**2 + along_y**2 + 1e-9)).clamp(0, 1)
        distance = torch.sqrt((from_x - share * along_x) ** 2 + (from_y - share * along_y) ** 2 + 1e-12)
        return torch.sigmoid((thickness - distance) * 2 * self._SIDE)
