"""Weights and clips by a rule, so that what the benchmark's own modules made of them can be kept without either.

`benchmark_outputs.npz` holds, for each model, the prediction and the training loss of OpenSTL's modules (its newest version;
PredNet's of version 0.3.0, which has it last) with these weights. It was made outside this repository, which holds no code of
theirs. The loss is that of a step after scheduled sampling has ended.
"""

import math

import numpy as np
import torch

from stlight.config import ModelConfig
from stlight.model.baselines import build_baseline
from stlight.registry.dataset_specs import ClipShape

SHAPE = ClipShape(4, 3, 1, 16, 32)
# Little enough for quick tests.
WIDTH, DEPTH = 1 / 16, 3 / 4
SAMPLING_STEPS = 10
STEP = 10**6


def frozen_model(name: str):
    """The small model, in evaluation mode, its weights and statistics set by the rule."""
    model = build_baseline(ModelConfig(model=name, baseline_width=WIDTH, baseline_depth=DEPTH), SHAPE).eval()
    for number, (key, tensor) in enumerate(model.state_dict().items()):
        values = np.random.default_rng(number).standard_normal(tuple(tensor.shape))
        if key.endswith("running_var"):
            values = 1 + 0.5 * np.tanh(values)
        elif tensor.ndim > 1:
            values *= 1.5 / math.sqrt(tensor[0].numel()) if tensor[0].numel() > 1 else 0.2
        else:
            # Biases, and the scales of what is normalized.
            values = (1.0 if key.endswith("weight") else 0.0) + 0.2 * values
        if tensor.is_floating_point():
            tensor.copy_(torch.from_numpy(values))
    return model


def frozen_clip() -> torch.Tensor:
    """Two clips (2, 7, 1, 16, 32)."""
    frames = (2, SHAPE.context_frames + SHAPE.horizon_frames, *SHAPE[2:])
    return torch.from_numpy(np.random.default_rng(99).random(frames)).float()
