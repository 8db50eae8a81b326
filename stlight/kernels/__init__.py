"""Faster ways to compute STLight, applied to a model from outside; `stlight.model` says what is computed."""

from stlight.kernels.accelerate import accelerate, backend_of
from stlight.kernels.race import Race, fastest

__all__ = ["Race", "accelerate", "backend_of", "fastest"]
