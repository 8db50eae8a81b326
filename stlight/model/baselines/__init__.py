"""The models that Table 2 compares with STLight-L, after their papers and the benchmark's published configurations.

A new baseline is one file here, one entry in `registry/model_specs.py` and one test.
"""

from importlib import import_module

from stlight.config import ModelConfig, check_frame_size
from stlight.model.baselines.baseline import Baseline
from stlight.registry.dataset_specs import ClipShape
from stlight.registry.model_specs import BASELINES


def build_baseline(config: ModelConfig, shape: ClipShape) -> Baseline:
    """Build the baseline that `config` names. Weights come from torch's global generator.

    Raises:
        ConfigError: the frame size is not divisible by the baseline's frame multiple.
    """
    spec = BASELINES[config.model]
    check_frame_size(shape.height, shape.width, spec.frame_multiple, f"the frame multiple of {config.model},")
    baseline_class: type[Baseline] = getattr(import_module(f"{__name__}.{spec.module}"), spec.class_name)
    return baseline_class(shape, width=config.baseline_width, depth=config.baseline_depth)


__all__ = ["Baseline", "build_baseline"]
