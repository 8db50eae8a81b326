"""Train one run from its configuration to its record, and load what it learned."""

from stlight.training.loop import Training, train
from stlight.training.outputs import load_run
from stlight.training.run import train_run

__all__ = ["Training", "load_run", "train", "train_run"]
