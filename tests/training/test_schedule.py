"""Learning rates of the schedules, in themselves and in a training."""

import json

import numpy as np
import pytest
import torch

from stlight.config import TrainingConfig
from stlight.data import TaxiBJStandIn
from stlight.training import train
from stlight.training.schedule import build_schedule
from tests.tiny_runs import tiny
from tests.training.clips import begin


def optimizer_and_schedule(recipe, steps_per_epoch):
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=recipe.max_lr)
    return optimizer, build_schedule(optimizer, recipe, steps_per_epoch)


def test_one_cycle_has_the_protocol_s_values():
    optimizer, schedule = optimizer_and_schedule(TrainingConfig(num_epochs=200), 625)
    # Learning rates after n steps in all, up to floating-point error.
    golden = {5000: 8.150036e-05, 5625: 9.231961e-05, 6250: 1.0431116e-04, 37500: 1e-3, 124_999: 4e-09}
    optimizer.step()
    seen = {}
    for step in golden:
        # A schedule computes the rate from the number of its step alone.
        schedule.last_epoch = step - 1
        schedule.step()
        seen[step] = schedule.get_last_lr()[0]
    assert seen == pytest.approx(golden, rel=1e-4)


def test_momentum_cycles_against_the_learning_rate():
    optimizer, schedule = optimizer_and_schedule(TrainingConfig(num_epochs=100), 1)
    betas = []
    for step in range(100):
        betas.append(optimizer.param_groups[0]["betas"][0])
        optimizer.step()
        schedule.step() if step < 99 else None
    assert (betas[0], min(betas), betas[-1]) == pytest.approx((0.95, 0.85, 0.95))


def test_the_cosine_has_the_protocol_s_values():
    """The golden values are those of the benchmark's scheduler (timm 1.0.31), stepped with the number of the epoch."""
    recipe = TrainingConfig(schedule="cosine", max_lr=5e-4, num_epochs=50, warmup_epochs=5)
    optimizer, schedule = optimizer_and_schedule(recipe, 3)
    rates = []
    for _ in range(150):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    by_epoch = [rates[3 * epoch] for epoch in range(50)]
    assert rates == [rate for rate in by_epoch for _ in range(3)]
    golden = {0: 1e-05, 1: 0.000108, 4: 0.000402, 5: 0.00048778860081564085, 6: 0.0004824792332291187, 25: 0.0002505}
    golden[49] = 1.492331257146246e-06
    assert {epoch: by_epoch[epoch] for epoch in golden} == pytest.approx(golden, rel=1e-12)
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.999)


def test_a_training_follows_its_schedule():
    training = train(begin(tiny(num_epochs=4)), TaxiBJStandIn())
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=16, final_div_factor=1e4)
    expected = []
    for step in range(16):
        expected.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step() if step < 15 else None
    assert [row["learning_rate"] for row in training.history] == pytest.approx(expected[3::4])


def test_a_run_on_a_cosine_resumes_to_the_bit():
    config = tiny(schedule="cosine", warmup_epochs=1, num_epochs=4)
    dataset, saved = TaxiBJStandIn(), []
    whole, part, resumed = begin(config), begin(config), begin(config)
    train(whole, dataset)

    def save(epoch_ended):
        if len(part.history) == 2 and part.step == 1:
            tensors, facts = part.state_dict()
            saved.append((tensors, json.loads(json.dumps(facts))))

    train(part, dataset, at_safe_point=save)
    resumed.load_state_dict(saved[0])
    train(resumed, dataset)
    assert [row["test_mse"] for row in resumed.history] == [row["test_mse"] for row in whole.history]
    assert [row["learning_rate"] for row in whole.history] == pytest.approx(
        [1e-5, *(1e-6 + 0.5 * (1 + np.cos(np.pi * epoch / 4)) * (0.01 - 1e-6) for epoch in (1, 2, 3))]
    )
