"""The model: its architecture, its initialization, and what it costs."""

from stlight.model.build import build_model
from stlight.model.forecaster import Forecaster, Moment, TrainingStep
from stlight.model.loading import load_run
from stlight.model.rollout import Rollout
from stlight.model.stlight import STLight

__all__ = ["Forecaster", "Moment", "Rollout", "STLight", "TrainingStep", "build_model", "load_run"]
