"""Weights and clips made by a rule, to compare the baselines with stored outputs of the benchmark's own modules.

`benchmark_outputs.npz` holds the prediction and the training loss of each OpenSTL module with these weights, for a step after
scheduled sampling has ended. OpenSTL's newest version computed them; for PredNet version 0.3.0, the last one that has it. They
were computed outside this repository, which contains none of OpenSTL's code.
"""

import math

import numpy as np
import torch

from stlight.config import ModelConfig
from stlight.model.baselines import build_baseline
from stlight.registry.dataset_specs import ClipShape

SHAPE = ClipShape(4, 3, 1, 16, 32)
# Small enough for fast tests.
WIDTH, DEPTH = 1 / 16, 3 / 4
SAMPLING_STEPS = 10
STEP = 10**6


def frozen_model(name: str):
    """Return a small model in evaluation mode, with weights and statistics set by the rule."""
    model = build_baseline(ModelConfig(model=name, baseline_width=WIDTH, baseline_depth=DEPTH), SHAPE).eval()
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


def frozen_clip() -> torch.Tensor:
    """Return two clips (2, 7, 1, 16, 32)."""
    frames = (2, SHAPE.context_frames + SHAPE.horizon_frames, *SHAPE[2:])
    return torch.from_numpy(np.random.default_rng(99).random(frames)).float()
