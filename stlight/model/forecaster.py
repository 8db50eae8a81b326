"""The face that the training knows of every model: what it predicts, and what it is trained on."""

import hashlib
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Moment:
    """Where in a training a step is, for models whose training changes on the way."""

    step: int
    """Steps done before it, from 0."""
    sampling_steps: int
    """Steps until a recurrent model is trained on nothing but its own predictions."""
    generator: torch.Generator
    """Of this step alone: a training that goes on from a checkpoint draws the same."""

    @classmethod
    def at(cls, step: int, sampling_steps: int, seed: int) -> "Moment":
        """The moment before a step, of a training with this seed."""
        # Of a seed torch's generator takes no more than 32 bits.
        digest = hashlib.blake2b(f"{seed} {step}".encode(), digest_size=4).digest()
        return cls(step, sampling_steps, torch.Generator().manual_seed(int.from_bytes(digest)))


class Forecaster(nn.Module):
    """A model that predicts frames: context (B, T, C, H, W) → prediction (B, T', C, H, W)."""

    def training_loss(self, context: Tensor, target: Tensor, moment: Moment) -> Tensor:
        """What a training step minimizes, of context (B, T, C, H, W) and target (B, T', C, H, W): the squared error.

        A model whose training adds to the loss or to its input says so here.
        """
        return F.mse_loss(self(context).to(target.dtype), target)
