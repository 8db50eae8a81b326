"""IAM4VP: equal to its authors' code, one frame of the horizon per training step, a queue of its own predictions."""

import numpy as np
import pytest
import torch

from stlight.config import ModelConfig
from stlight.model import TrainingStep, build_model
from stlight.model.complexity import count_parameters
from stlight.registry.dataset_specs import DATASETS, ClipShape
from tests.model.authors import assert_same_training, authors_outputs, float64, frozen_parts
from tests.model.frozen import frozen_model
from tests.model.small import SMALL, clip_of, parts, small


@float64()
def test_predictions_losses_and_gradients_equal_the_authors():
    model, theirs, (context, target) = frozen_model("IAM4VP", width=1 / 8), authors_outputs("IAM4VP"), frozen_parts()
    with torch.no_grad():
        np.testing.assert_allclose(model(context).numpy(), theirs["prediction"], atol=1e-9)
    assert theirs["prediction"].std() > 0.1
    model.train()
    for t in range(3):
        assert_same_training(model, model.error_at(t, context, target), theirs, f" {t}")


def test_has_the_parameters_of_the_authors_code_without_the_block_that_it_never_calls():
    with torch.device("meta"):
        model = build_model(ModelConfig(model="IAM4VP"), DATASETS["mmnist"].shape)
    assert count_parameters(model)["total"] == 35_351_809 - 3_782_400


def test_every_weight_is_trained():
    model = frozen_model("IAM4VP")
    clip = clip_of(ClipShape(4, 3, 1, 16, 32))
    for t in range(3):
        model.error_at(t, clip[:, :4], clip[:, 4:]).backward()
    assert all(parameter.grad.any() for parameter in model.parameters())


def test_each_step_trains_one_frame_of_the_horizon():
    shape = ClipShape(3, 4, 1, 16, 16)
    model, drawn = small("IAM4VP", shape), []
    model.error_at = lambda t, context, target: drawn.append(t)
    for index in range(400):
        model.training_loss(*parts(clip_of(shape), shape), TrainingStep.at(index, 10, seed=5))
    counts = np.bincount(drawn)
    assert len(counts) == 4
    assert counts.min() > 60


def test_a_frame_is_made_from_the_context_and_the_frames_before_it():
    model, (context, target) = small("IAM4VP").eval(), parts(clip_of(SMALL))
    with torch.no_grad():
        first, second = model(context).unbind(1)
        assert torch.equal(model.next_frame(context, context[:, :0])[:, 0], first)
        assert torch.equal(model.next_frame(context, first[:, None])[:, 0], second)
        assert not torch.equal(model.next_frame(context, 1 - first[:, None])[:, 0], second)
        for frame in range(3):
            other = context.clone()
            other[:, frame] = 1 - other[:, frame]
            assert not torch.equal(model(other)[:, 0], first)
    # The error of frame 0 must not read frame 1 of the target.
    changed = target.clone()
    changed[:, 1] = 1 - changed[:, 1]
    assert model.error_at(0, context, changed) == model.error_at(0, context, target)
    assert model.error_at(1, context, changed) != model.error_at(1, context, target)


@pytest.mark.parametrize("horizon", [1, 3, 7])
def test_the_queue_has_a_slot_for_each_frame(horizon):
    shape = ClipShape(3, horizon, 2, 16, 16)
    model = small("IAM4VP", shape).eval()
    assert len(model.empty_slots) == {1: 3, 3: 3, 7: 9}[horizon]
    with torch.no_grad():
        assert model(parts(clip_of(shape), shape)[0]).shape == (2, horizon, 2, 16, 16)
