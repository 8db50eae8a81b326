"""STLight and the baselines: architecture, initialization, and counts of parameters and FLOPs."""

from stlight.model.build import build_model
from stlight.model.forecaster import Forecaster, Rollout, TrainingStep
from stlight.model.stlight import STLight

__all__ = ["Forecaster", "Rollout", "STLight", "TrainingStep", "build_model"]
