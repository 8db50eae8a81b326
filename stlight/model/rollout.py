"""Predicting further than the model's own horizon by feeding predictions back (KTH 10→20 in the benchmark)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from stlight.model.forecaster import Forecaster


def roll_out(model: Callable[[Tensor], Tensor], clip_BTCHW: Tensor, horizon_frames: int) -> Tensor:
    """(B, T, C, H, W) → (B, horizon_frames, C, H, W), of a model that predicts as many frames as it reads."""
    predicted = [model(clip_BTCHW)]
    while sum(frames.shape[1] for frames in predicted) < horizon_frames:
        predicted.append(model(predicted[-1]))
    return torch.cat(predicted, 1)[:, :horizon_frames]


class Rollout(Forecaster):
    """Roll a model that predicts as many frames as it reads out to `horizon_frames`; gradients flow through every pass."""

    def __init__(self, model: nn.Module, horizon_frames: int) -> None:
        super().__init__()
        self.model = model
        self.horizon_frames = horizon_frames

    def forward(self, clip_BTCHW: Tensor) -> Tensor:
        """(B, T, C, H, W) → (B, horizon_frames, C, H, W)."""
        return roll_out(self.model, clip_BTCHW, self.horizon_frames)
