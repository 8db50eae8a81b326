"""The models that Table 2 compares STLight-L with, built from their papers and the benchmark's published configurations.

A file each. A further model is one more file, holding a `Baseline` with a `name`, by which experiments call it.
"""

from importlib import import_module

from stlight.config import ModelConfig
from stlight.model.baselines.baseline import Baseline
from stlight.registry.dataset_specs import ClipShape
from stlight.registry.model_specs import BASELINES


def build_baseline(config: ModelConfig, shape: ClipShape) -> Baseline:
    """The model that a configuration names, for clips of a shape."""
    spec = BASELINES[config.model]
    kind = getattr(import_module(f"{__name__}.{spec.module}"), spec.class_name)
    model = kind(shape, width=config.baseline_width, depth=config.baseline_depth)
    assert isinstance(model, Baseline)
    return model


__all__ = ["Baseline", "build_baseline"]
