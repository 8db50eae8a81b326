"""Faster computation of the same model; what the model is stands in `stlight.model`."""

from stlight.kernels.choice import choose_path, fastest, using
from stlight.kernels.paths import Path

__all__ = ["Path", "choose_path", "fastest", "using"]
