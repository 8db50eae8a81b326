"""Training: one run from its configuration to its record."""

from stlight.training.loop import Training, train
from stlight.training.run import train_run

__all__ = ["Training", "train", "train_run"]
