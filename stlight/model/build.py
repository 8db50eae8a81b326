"""Build the model that a configuration describes."""

import torch

from stlight.config import ModelConfig
from stlight.model.baselines import build_baseline
from stlight.model.forecaster import Forecaster
from stlight.model.rollout import Rollout
from stlight.model.stlight import STLight
from stlight.registry.dataset_specs import ClipShape
from stlight.registry.model_specs import OURS


def build_model(config: ModelConfig, shape: ClipShape, seed: int = 0) -> Forecaster:
    """Build a model with weights that depend on `seed` only, and leave torch's global generator as it was."""
    rolled_out = config.prediction == "rollout"
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if config.model != OURS:
            return build_baseline(config, shape)
        model = STLight(
            context_frames=shape.context_frames,
            horizon_frames=shape.context_frames if rolled_out else shape.horizon_frames,
            channels=shape.channels,
            kernel_sizes=(config.k1, config.k2),
            **config.model_dump(exclude=_NOT_ARGUMENTS),
        )
    return Rollout(model, shape.horizon_frames) if rolled_out else model


# All other fields of `ModelConfig` are arguments of `STLight`, so that a new hyper-parameter needs no line here.
_NOT_ARGUMENTS = {"model", "baseline_width", "baseline_depth", "k1", "k2", "prediction"}
