"""The training loop: divergence, the best epoch, its clips, and its kernels."""

import warnings

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from stlight.data import MovingMNIST, TaxiBJStandIn
from stlight.kernels import backend_of, frames
from stlight.kernels.whole_step import FlatAdam
from stlight.model import build_model
from stlight.training import loop, train
from tests.tiny_runs import tiny
from tests.training.clips import ExplodingClips, begin

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e4])
def test_divergence_ends_training_with_its_history(value):
    config = tiny()
    result = train(begin(config), ExplodingClips(value))
    assert result.diverged
    assert [row["epoch"] for row in result.history] == [1, 2]


def test_weights_ruined_by_the_last_step_are_seen():
    # The training loss of the only step was still fine.
    config = tiny(num_epochs=1, clips_per_epoch=2, max_lr=1e38)
    result = train(begin(config), TaxiBJStandIn())
    assert np.isfinite(result.history[0]["train_loss"])
    assert result.diverged


def test_best_takes_the_first_of_equals_and_passes_over_nan():
    rows = [{"epoch": 1, "m": float("nan")}, {"epoch": 2, "m": 3.0}, {"epoch": 3, "m": 3.0}]
    training = begin(tiny())
    training.history = rows
    assert training.best("m")["epoch"] == 2


def curve(kernels):
    training = begin(tiny(num_epochs=6), kernels)
    assert backend_of(training.model) == kernels
    return [row["train_loss"] for row in train(training, TaxiBJStandIn()).history]


@pytest.mark.parametrize("kernels", ["fused", "space_to_batch", "channels_last"])
def test_the_kernels_change_a_training_curve_by_no_more_than_rounding(kernels):
    assert curve(kernels) == pytest.approx(curve("plain"), rel=1e-4)


def test_weights_as_one_parameter_take_the_steps_that_each_would():
    torch.manual_seed(0)
    one, many = (build_model(tiny().model, tiny().clip_shape) for _ in range(2))
    optimizers, clip = (FlatAdam(one, lr=0.01), torch.optim.Adam(many.parameters(), lr=0.01)), torch.rand(2, 4, 2, 32, 32)
    for _ in range(3):
        for model, optimizer in zip((one, many), optimizers, strict=True):
            optimizer.zero_grad()
            model(clip).square().mean().backward()
            optimizer.step()
    # Adam's steps near zero gradients are a matter of rounding: the encoder's bias has no other gradient.
    for (name, mine), theirs in zip(one.named_parameters(), many.parameters(), strict=True):
        if name != "patch_encoder.0.bias":
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_clips_drawn_several_batches_at_a_time_are_the_same(monkeypatch):
    config = tiny(clips_per_epoch=11)
    many = list(loop._batches(TaxiBJStandIn(), config, 3))
    monkeypatch.setattr(loop, "_BYTES_AT_ONCE", 1)
    single = list(loop._batches(TaxiBJStandIn(), config, 3))
    assert [len(clip) for clip in many] == [2] * 5
    assert all(torch.equal(a, b) for a, b in zip(many, single, strict=True))


class Reads(TorchDispatchMode):
    """Collect the operators for which a GPU would have to be waited for, because the host needs a value or a size."""

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal")

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().removeprefix("aten::")
        if name.startswith(self.WAITING):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dataset", ["taxibj", "mmnist"])
def test_an_epoch_s_steps_read_no_value_from_the_device(dataset, monkeypatch):
    # On a GPU clips are drawn by PyTorch's operators.
    monkeypatch.setattr(frames, "library", lambda _: None)
    config = tiny(dataset=dataset, source="stand_in" if dataset == "taxibj" else "embedded")
    digits = {"train": np.full((3, 28, 28), 200, np.uint8)}
    clips = TaxiBJStandIn() if dataset == "taxibj" else MovingMNIST(digits)
    training = begin(config)
    with Reads() as reads:
        for clip in loop._batches(clips, config, 1):
            loop.take_step(training.model, training.optimizer, clip, config.clip_shape.context_frames, config.training)
            training.schedule.step()
    assert reads.found == []
    with reads:
        torch.ones(2).sum().item()
    assert reads.found == ["_local_scalar_dense"]


@GPU
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_recorded_steps_give_the_curve_of_steps_that_are_not(precision):
    curves = []
    for cuda_graphs in (False, True):
        training = begin(tiny(num_epochs=4, cuda_graphs=cuda_graphs, precision=precision), device="cuda")
        curves.append([row["train_loss"] for row in train(training, TaxiBJStandIn(device="cuda")).history])
    assert curves[1] == pytest.approx(curves[0], rel=1e-3 if precision == "float32" else 0.05)


@GPU
def test_a_training_step_on_a_gpu_does_not_wait_for_it():
    config = tiny()
    model = build_model(config.model, config.clip_shape).cuda()
    dataset = TaxiBJStandIn(device="cuda")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        for clip in loop._batches(dataset, config, 1):
            model(clip[:, :4]).square().mean().backward()
        torch.cuda.set_sync_debug_mode("default")
    assert not [w for w in caught if "synchroniz" in str(w.message)]
