"""Interface between the training loop and every model, and predictions further than a model's horizon."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class TrainingStep:
    """Position of one step in a training run, for models whose loss or input changes during training."""

    index: int
    """Number of steps done before this one."""
    sampling_steps: int
    """Number of steps over which scheduled sampling moves from true frames to the model's own predictions."""
    generator: torch.Generator
    """Random numbers for this step only, so that a resumed training run draws the same ones."""
    phase: int = 0
    """Index of the step's phase in the model's `phases`."""

    @classmethod
    def at(cls, index: int, sampling_steps: int, seed: int, phase: int = 0) -> "TrainingStep":
        """Return the step with this index in a run with this seed."""
        # torch.Generator uses only 32 bits of its seed.
        digest = hashlib.blake2b(f"{seed} {index}".encode(), digest_size=4).digest()
        return cls(index, sampling_steps, torch.Generator().manual_seed(int.from_bytes(digest)), phase)


class Phase(NamedTuple):
    """Consecutive epochs of a training run that change one part of the model only."""

    num_epochs: int
    part: nn.Module
    """The part that is trained. All other weights are frozen."""


class Forecaster(nn.Module):
    """A model that predicts frames: context (B, T, C, H, W) → prediction (B, T', C, H, W)."""

    def phases(self, num_epochs: int) -> tuple[Phase, ...]:
        """Return the phases of a training run: by default one, which trains the whole model.

        Each phase has an Adam of its own and goes through the whole learning-rate schedule.
        """
        return (Phase(num_epochs, self),)

    def training_loss(self, context: Tensor, target: Tensor, step: TrainingStep) -> Tensor:
        """Return the scalar that a training step minimizes: by default the mean squared error of the prediction.

        `context` are frames (B, T, C, H, W), `target` those that follow (B, T', C, H, W).
        """
        return F.mse_loss(self(context).to(target.dtype), target)

    def typical_step(self) -> int:
        """Return the index of a training step of seed 0 that costs about as much as the mean one."""
        return 0


def roll_out(model: Callable[[Tensor], Tensor], clip_BTCHW: Tensor, horizon_frames: int) -> Tensor:
    """Predict (B, horizon_frames, C, H, W) by feeding back the predictions of a model that predicts as many as it reads."""
    predicted = [model(clip_BTCHW)]
    while sum(frames.shape[1] for frames in predicted) < horizon_frames:
        predicted.append(model(predicted[-1]))
    return torch.cat(predicted, 1)[:, :horizon_frames]


class Rollout(Forecaster):
    """Apply `roll_out` to a model (KTH 10→20 in the benchmark); gradients flow through every pass."""

    def __init__(self, model: nn.Module, horizon_frames: int) -> None:
        super().__init__()
        self.model = model
        self.horizon_frames = horizon_frames

    def forward(self, clip_BTCHW: Tensor) -> Tensor:
        """Predict frames (B, horizon_frames, C, H, W) from context frames (B, T, C, H, W)."""
        return roll_out(self.model, clip_BTCHW, self.horizon_frames)
