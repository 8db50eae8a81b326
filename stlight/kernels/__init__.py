"""Faster computation of the same model; what the model is stands in `stlight.model`."""

from stlight.kernels.mixer import Path, choose_path

__all__ = ["Path", "choose_path"]
