"""Build the model that a configuration describes."""

from importlib import import_module
from typing import TYPE_CHECKING

import torch

from stlight.model.baselines import Baseline
from stlight.model.forecaster import Forecaster, Rollout
from stlight.model.stlight import STLight
from stlight.registry.architecture import check_frame_size
from stlight.registry.dataset_specs import ClipShape
from stlight.registry.model_specs import BASELINE_FIELDS, BASELINES, OURS, published

if TYPE_CHECKING:
    from stlight.config import ModelConfig


def build_model(config: "ModelConfig", shape: ClipShape, seed: int = 0, dataset: str = "mmnist") -> Forecaster:
    """Build a model with weights that depend on `seed` only, and leave torch's global generator as it was.

    A baseline has the layers of the benchmark's configuration for `dataset`.
    Raises `ConfigError` if the frame size is not divisible by a baseline's frame multiple.
    """
    rolled_out = config.prediction == "rollout"
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if config.model != OURS:
            spec, theirs = BASELINES[config.model], published(config.model, dataset)
            check_frame_size(shape.height, shape.width, theirs.frame_multiple, f"the frame multiple of {config.model},")
            baseline_class: type[Baseline] = getattr(import_module(f"stlight.model.baselines.{spec.module}"), spec.class_name)
            version = {"corrected": config.benchmark_version == "corrected"} if spec.has_correction else {}
            size = {"width": config.baseline_width, "depth": config.baseline_depth}
            return baseline_class(shape, **size, **theirs.arguments, **version)
        model = STLight(
            context_frames=shape.context_frames,
            horizon_frames=shape.context_frames if rolled_out else shape.horizon_frames,
            channels=shape.channels,
            kernel_sizes=(config.k1, config.k2),
            # All other fields are arguments of `STLight`, so that a new hyper-parameter needs no line here.
            **config.model_dump(exclude={"model", *BASELINE_FIELDS, "k1", "k2", "prediction"}),
        )
    return Rollout(model, shape.horizon_frames) if rolled_out else model


def is_published(model: Baseline) -> bool:
    """Return True if the model has the layers of its published configuration for one of the data sets, at its size."""
    specs = [spec for spec in BASELINES.values() if spec.class_name == type(model).__name__]
    arguments = [{}, *(theirs.arguments for spec in specs for theirs in spec.elsewhere.values())]
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        published = (type(model)(model.shape, width=model._width, depth=model._depth, **given) for given in arguments)
        return any(repr(model) == repr(other) for other in published)
