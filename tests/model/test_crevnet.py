"""CrevNet: equal to its authors' code, an autoencoder without loss of information, windows of true and of predicted frames."""

import numpy as np
import pytest
import torch

from stlight.config import ModelConfig
from stlight.model import build_model
from stlight.model.complexity import count_parameters
from stlight.registry.dataset_specs import DATASETS, ClipShape
from tests.model.authors import assert_same_training, authors_outputs, float64, frozen_parts
from tests.model.frozen import LATE, SHAPE, frozen_clip, frozen_model
from tests.model.small import clip_of, small


@float64()
def test_predictions_loss_and_gradients_equal_the_authors():
    model, theirs, (context, target) = frozen_model("Crevnet"), authors_outputs("Crevnet"), frozen_parts()
    with torch.no_grad():
        np.testing.assert_allclose(model(context).numpy(), theirs["prediction"], atol=1e-9)
    assert theirs["prediction"].std() > 0.1
    assert_same_training(model, model.train().training_loss(context, target, LATE), theirs)


def test_has_the_parameters_that_the_benchmark_prints():
    with torch.device("meta"):
        model = build_model(ModelConfig(model="Crevnet"), DATASETS["mmnist"].shape)
    # OpenSTL's page of results on Moving MNIST: 5.0M.
    assert f"{count_parameters(model)['total'] / 1e6:.1f}M" == "5.0M"


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("shape", [ClipShape(4, 4, 2, 32, 16), ClipShape(2, 3, 1, 16, 24), ClipShape(1, 2, 3, 16, 16)])
def test_the_autoencoder_loses_nothing(shape, training):
    model = small("Crevnet", shape).train(training)
    frames = clip_of(shape, batch=3)[:, : model.window]
    with torch.no_grad():
        code = model.encode(frames)
        decoded = model.decode(*code)
        moved = model.decode(code[0] + 0.1, code[1])
    assert sum(half.numel() for half in code) == frames.numel()
    torch.testing.assert_close(decoded, frames, rtol=0, atol=1e-5)
    assert (moved - frames).abs().max() > 0.05


def test_every_weight_is_trained():
    model = frozen_model("Crevnet").train()
    clip = frozen_clip()
    model.training_loss(clip[:, :4], clip[:, 4:], LATE).backward()
    # The last layer's shared memory goes to the next window's first layer, so all gates matter from the second window on.
    assert all(parameter.grad.any() for parameter in model.parameters())


def test_no_prediction_depends_on_later_frames():
    model, clip = frozen_model("Crevnet"), frozen_clip()
    with torch.no_grad():
        before = model.unroll(clip)
        for changed in range(clip.shape[1] - 1):
            other = clip.clone()
            other[:, changed] = 1 - other[:, changed]
            after = model.unroll(other)
            # Prediction t is made from frames up to t + 2.
            first = max(0, changed - 2)
            assert torch.equal(after[:, :first], before[:, :first])
            assert not torch.equal(after[:, first], before[:, first])


def test_after_the_context_the_model_reads_what_it_predicted():
    model, seen = frozen_model("Crevnet"), []
    clip = frozen_clip()[:, : SHAPE.context_frames]

    def step(frames, state):
        """Predict the number of the step."""
        seen.append(frames)
        return torch.full_like(frames, len(seen)), state

    model.step = step
    prediction = model(clip)
    assert prediction[0, :, 0, 0, 0].tolist() == [2, 3, 4]
    first_pixels = clip[0, :, 0, 0, 0].tolist()
    assert [frames[0, :, 0, 0, 0].tolist() for frames in seen] == [
        first_pixels[:3],
        first_pixels[1:],
        [*first_pixels[2:], 2],
        [first_pixels[3], 3, 3],
    ]
