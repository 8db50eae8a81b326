"""Predicting further than the model's own horizon by feeding predictions back (KTH 10→20 in the benchmark)."""

import torch
from torch import Tensor, nn


class Rollout(nn.Module):
    """Roll a model that predicts as many frames as it reads out to `horizon_frames`; gradients flow through every pass."""

    def __init__(self, model: nn.Module, horizon_frames: int) -> None:
        super().__init__()
        self.model = model
        self.horizon_frames = horizon_frames

    def forward(self, clip_BTCHW: Tensor) -> Tensor:
        """(B, T, C, H, W) → (B, horizon_frames, C, H, W)."""
        predicted = [self.model(clip_BTCHW)]
        while sum(frames.shape[1] for frames in predicted) < self.horizon_frames:
            predicted.append(self.model(predicted[-1]))
        return torch.cat(predicted, 1)[:, : self.horizon_frames]
