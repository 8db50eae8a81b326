"""Predict further than a model's horizon by feeding predictions back (KTH 10→20 in the benchmark)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from stlight.model.forecaster import Forecaster


def roll_out(model: Callable[[Tensor], Tensor], clip_BTCHW: Tensor, horizon_frames: int) -> Tensor:
    """Predict (B, horizon_frames, C, H, W) from (B, T, C, H, W) with a model that predicts as many frames as it reads."""
    predicted = [model(clip_BTCHW)]
    while sum(frames.shape[1] for frames in predicted) < horizon_frames:
        predicted.append(model(predicted[-1]))
    return torch.cat(predicted, 1)[:, :horizon_frames]


class Rollout(Forecaster):
    """Apply `roll_out` to a model; gradients flow through every pass."""

    def __init__(self, model: nn.Module, horizon_frames: int) -> None:
        super().__init__()
        self.model = model
        self.horizon_frames = horizon_frames

    def forward(self, clip_BTCHW: Tensor) -> Tensor:
        """Predict frames (B, horizon_frames, C, H, W) from context frames (B, T, C, H, W)."""
        return roll_out(self.model, clip_BTCHW, self.horizon_frames)
