"""Evaluation uses BatchNorm's running statistics: they must fit the weights at the end of a run of a few hundred steps."""

import pytest
import torch
from torch import nn

from stlight.data import TaxiBJStandIn
from stlight.training import train
from stlight.training.loop import evaluate, predictor
from tests.tiny_runs import tiny
from tests.training.clips import begin


def normalizations(training):
    return [module for module in training.model.modules() if isinstance(module, nn.BatchNorm2d)]


@torch.no_grad()
def recompute_statistics(training, batches):
    """Replace running statistics by the means over batches of training clips with the final weights."""
    for norm in normalizations(training):
        norm.reset_running_stats()
    training.model.train()
    for batch in range(batches):
        for norm in normalizations(training):
            norm.momentum = 1 / (batch + 1)
        clips = TaxiBJStandIn().clips("train", torch.arange(4 * batch, 4 * batch + 4), epoch=1)
        training.model(clips[:, :4])


@pytest.mark.parametrize("kernels", ["plain", "fused"])
def test_running_statistics_predict_as_well_as_recomputed_ones(kernels):
    config = tiny(num_epochs=1, clips_per_epoch=1000, batch_size=4, max_lr=0.03)
    training = train(begin(config, kernels), TaxiBJStandIn())

    def test_mse():
        predict = predictor(training.model, torch.device("cpu"), config.training)
        return evaluate(predict, TaxiBJStandIn(), "test", 64, 4)["mse"]

    running = test_mse()
    recompute_statistics(training, 100)
    assert running == pytest.approx(test_mse(), rel=0.02)
