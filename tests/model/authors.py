"""Outputs of the authors' own modules, for the baselines that are not in Table 2.

`authors_outputs_crevnet_iam4vp.npz` holds what those modules compute, in float64, with the weights and clips of `frozen.py`:
predictions in evaluation mode, losses and gradients in training mode. They were computed outside this repository, which
contains none of the authors' code.
"""

import contextlib
from pathlib import Path

import numpy as np
import torch

from tests.model.frozen import SHAPE, condense, frozen_clip
from tests.model.small import parts


@contextlib.contextmanager
def float64():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def authors_outputs(name):
    """Return the outputs for one model by what they are: prediction, loss, gradients."""
    with np.load(Path(__file__).parent / "authors_outputs_crevnet_iam4vp.npz") as outputs:
        return {key.removeprefix(f"{name}/"): outputs[key] for key in outputs if key.startswith(f"{name}/")}


def frozen_parts():
    return parts(frozen_clip().double(), SHAPE)


def assert_same_training(model, loss, theirs, suffix=""):
    """Compare the loss and the gradients that it gives with the authors'."""
    model.zero_grad()
    loss.backward()
    np.testing.assert_allclose(loss.item(), theirs["loss" + suffix], rtol=1e-9)
    ours = condense([parameter.grad for parameter in model.parameters()])
    np.testing.assert_allclose(ours, theirs["gradients" + suffix], rtol=1e-6, atol=1e-9)
