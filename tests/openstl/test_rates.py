"""How a schedule was stepped, told from rates that OpenSTL's users and maintainers logged, and from PyTorch's own schedule."""

import pytest
import torch

from stlight.openstl import rates

# Logged with v0.3.0 and 200 epochs of 625 steps at 1e-3 (OpenSTL issue 29): the rate after epochs 8, 9 and 10.
V030 = [(7, 0.0000815), (8, 0.0000923), (9, 0.0001043)]
# Logged with v1.0.0 (OpenSTL issue 99): rates after epochs 1 to 5, counted from 0.
V100 = [(1, 0.0000426), (2, 0.0000459), (3, 0.0000505), (4, 0.0000564), (5, 0.0000635)]


@pytest.mark.parametrize("logged", [V030, V100])
def test_published_logs_were_stepped_by_step(logged):
    assert rates.how_stepped(logged, rates.one_cycle_hypotheses(625, 200, 1e-3, 1e4)) == rates.BY_STEP


def test_the_rate_that_users_of_early_lightning_versions_saw_is_by_epoch():
    # It began at max_lr / 25 and stayed there (OpenSTL issue 113).
    logged = [(epoch, 0.00004) for epoch in range(5)]
    assert rates.how_stepped(logged, rates.one_cycle_hypotheses(625, 200, 1e-3, 1e4)) == rates.BY_EPOCH_IN_STEPS


def test_other_rates_are_neither():
    assert rates.how_stepped([(0, 0.5)], rates.one_cycle_hypotheses(625, 200, 1e-3, 1e4)) == "otherwise"


@pytest.mark.parametrize("total", [6, 40, 1000])
def test_one_cycle_is_pytorchs_also_one_step_after_its_end(total):
    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=total, final_div_factor=100)
    for step in range(total + 1):
        assert rates.one_cycle(step, total, 3e-3, 100) == pytest.approx(schedule.get_last_lr()[0], rel=1e-9)
        if step < total:
            optimizer.step()
            schedule.step()


@pytest.mark.parametrize(
    ("logged", "how"),
    [
        # Logged with v0.3.0: three epochs at 3e-3, one of them warm-up.
        ([(0, 0.0000100), (1, 0.0022503), (2, 0.0007508)], rates.BY_EPOCH),
        ([(0, 0.0000100), (1, 0.0000100), (2, 0.0022503)], rates.BY_EPOCH_LATE),
    ],
)
def test_a_cosine_is_told_from_one_that_lags(logged, how):
    found = rates.cosine_hypotheses(lambda epoch: rates.warm_cosine(epoch, 3, 3e-3, 1e-6, 1, 1e-5), next_epoch=False)
    assert rates.how_stepped(logged, found) == how


def test_v1_logs_the_rate_of_the_next_epoch():
    found = rates.cosine_hypotheses(lambda epoch: rates.warm_cosine(epoch, 3, 3e-3, 1e-6, 1, 1e-5), next_epoch=True)
    assert rates.how_stepped([(1, 0.0007508), (2, 0.0000010)], found) == rates.BY_EPOCH
