"""Bytes of live tensors and operations of a training step, compared with sums made by hand."""

import pytest
import torch

from stlight.config import RunConfig
from stlight.costs.workload import Workload, peak_growth, resident_bytes
from stlight.kernels.whole_step import FlatAdam

CPU = torch.device("cpu")
N = 10_000


def test_freed_tensors_do_not_add_up():
    def chain():
        x = torch.empty(N)
        y = x + 1
        del x
        # Two tensors are alive at a time; a view adds none.
        z = (y + 1).view(100, -1)
        del y
        z.mul_(2)

    assert peak_growth(chain, CPU) == 2 * 4 * N


def test_existing_tensors_do_not_count():
    x = torch.zeros(N)
    assert peak_growth(lambda: x.add_(1).view(100, -1).t(), CPU) == 0


def test_tensors_saved_for_the_backward_pass_count():
    weight, x = torch.nn.Parameter(torch.rand(N)), torch.rand(N)
    weight.grad = torch.zeros(N)

    def step(layers):
        y = weight * x
        for _ in range(layers):
            y = y.exp()
        total = y.sum()
        del y
        total.backward()

    # Each exponential saves its result. The backward pass adds a gradient, which replaces the result it has used.
    for layers in (1, 2, 5):
        peak = peak_growth(lambda layers=layers: step(layers), CPU)
        scalars = 64
        assert 0 <= peak - (layers + 1) * 4 * N < scalars, layers


def test_resident_memory_is_four_numbers_per_weight_and_the_buffers():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, bias=False), torch.nn.BatchNorm2d(8))
    optimizer = FlatAdam(model)
    model(torch.rand(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    weights = 8 * 3 * 9 + 16
    # BatchNorm has 8 running means and 8 variances (float32) and a counter (int64); Adam has a counter (float32).
    assert resident_bytes(model, optimizer) == 16 * weights + 2 * 8 * 4 + 8 + 4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_uses_the_allocators_statistics():
    assert peak_growth(lambda: torch.empty(2**20, device="cuda"), torch.device("cuda")) == 4 * 2**20


def workload(**fields):
    config = RunConfig.from_fields({"dataset": "mmnist"} | fields)
    return Workload(config, torch.device("meta"), clips=1, race=False)


def test_what_has_no_gradient_counts_once_in_a_step(monkeypatch):
    weight = torch.nn.Parameter(torch.rand(3, 5, device="meta"))

    def loss(context, target, step):
        with torch.no_grad():
            torch.rand(7, 3, device="meta") @ weight
        return (torch.rand(2, 3, device="meta") @ weight).sum()

    work = workload()
    monkeypatch.setattr(work.model, "training_loss", loss, raising=False)
    assert work.step_flops() == 3 * (2 * 3 * 5) + 7 * 3 * 5


def test_the_counted_step_of_a_model_that_draws_a_frame_costs_about_the_mean():
    work = workload(model="IAM4VP", baseline_width=1 / 8, baseline_depth=0.25)
    typical, costs = work.step_flops(), []
    for work.index in range(60):
        costs.append(work.step_flops())
    assert typical == pytest.approx(sum(costs) / len(costs), rel=0.15)
    # One that draws the first frame, or the last.
    assert min(costs) < 0.85 * typical
    assert max(costs) > 1.15 * typical
