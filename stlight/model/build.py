"""From configuration to model."""

import torch

from stlight.config import ModelConfig
from stlight.model.baselines import build_baseline
from stlight.model.forecaster import Forecaster
from stlight.model.rollout import Rollout
from stlight.model.stlight import STLight
from stlight.registry.dataset_specs import ClipShape
from stlight.registry.model_specs import OURS


def build_model(config: ModelConfig, shape: ClipShape, seed: int = 0) -> Forecaster:
    """The model a configuration describes, its weights drawn from `seed` alone (torch's global generator is left as it was)."""
    rolled_out = config.prediction == "rollout"
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if config.model != OURS:
            return build_baseline(config, shape)
        model = STLight(
            context_frames=shape.context_frames,
            horizon_frames=shape.context_frames if rolled_out else shape.horizon_frames,
            channels=shape.channels,
            hidden_dim=config.hidden_dim,
            depth=config.depth,
            patch_size=config.patch_size,
            overlap=config.overlap,
            kernel_sizes=(config.k1, config.k2),
            dilation=config.dilation,
            decoder=config.decoder,
            initialization=config.initialization,
            skip=config.skip,
        )
    return Rollout(model, shape.horizon_frames) if rolled_out else model
