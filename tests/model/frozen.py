"""Weights and clips made by a rule, to compare the baselines with stored outputs of the benchmark's own modules.

`benchmark_outputs.npz` holds, for each OpenSTL module with these weights: the prediction and the loss in evaluation mode, at a
step after scheduled sampling has ended, and the loss and its gradients in training mode, in the midst of it. OpenSTL's version
0.3.0 computed them, and for the corrected variants the cells of its newest version. They were computed outside this repository,
which contains none of OpenSTL's code. The modules were given the random numbers that `TrainingStep` draws here, those of
stochastic depth included: at `sampling_step`, TAU drops one MLP of one clip.
"""

import math

import numpy as np
import torch

from stlight.config import ModelConfig
from stlight.model import TrainingStep, build_model
from stlight.registry.dataset_specs import ClipShape
from stlight.registry.model_specs import BASELINES
from tests.model.small import TABLE_2

SHAPE = ClipShape(4, 3, 1, 16, 32)
# Small enough for fast tests.
WIDTH, DEPTH = 1 / 16, 3 / 4
SAMPLING_STEPS = 10
LATE = TrainingStep.at(10**6, SAMPLING_STEPS, seed=0)
"""A step after scheduled sampling has ended."""
VARIANTS = [
    (name, version)
    for name in TABLE_2
    for version in (("v0.3.0", "corrected") if BASELINES[name].has_correction else ("v0.3.0",))
]


def sampling_step() -> TrainingStep:
    """Return a step in the midst of scheduled sampling, whose generator has drawn nothing yet."""
    return TrainingStep.at(SAMPLING_STEPS // 2, SAMPLING_STEPS, seed=9)


def frozen_model(name: str, version: str = "v0.3.0", width: float = WIDTH, shape: ClipShape = SHAPE):
    """Return a small model in evaluation mode, with weights and statistics set by the rule."""
    config = ModelConfig(model=name, baseline_width=width, baseline_depth=DEPTH, benchmark_version=version)
    model = build_model(config, shape).eval()
    for number, (key, tensor) in enumerate(model.state_dict().items()):
        values = np.random.default_rng(number).standard_normal(tuple(tensor.shape))
        if key.endswith("running_var"):
            values = 1 + 0.5 * np.tanh(values)
        elif tensor.ndim > 1:
            values *= 1.5 / math.sqrt(tensor[0].numel()) if tensor[0].numel() > 1 else 0.2
        else:
            # Biases and normalization scales.
            values = (1.0 if key.endswith("weight") else 0.0) + 0.2 * values
        if tensor.is_floating_point():
            tensor.copy_(torch.from_numpy(values))
    return model


def frozen_clip(shape: ClipShape = SHAPE) -> torch.Tensor:
    """Return two clips, by default (2, 7, 1, 16, 32)."""
    frames = (2, shape.context_frames + shape.horizon_frames, *shape[2:])
    return torch.from_numpy(np.random.default_rng(99).random(frames)).float()


def condense(gradients: list[torch.Tensor | None]) -> np.ndarray:
    """Return, for each parameter's gradient, its length and its component along a fixed random direction (parameters, 2)."""
    rows = []
    for number, gradient in enumerate(gradients):
        values = np.zeros(1) if gradient is None else gradient.double().numpy().ravel()
        direction = np.random.default_rng(number).standard_normal(values.shape)
        rows.append((np.linalg.norm(values), values @ direction / np.linalg.norm(direction)))
    return np.array(rows)
