import sys

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from stlight import metrics
from stlight.registry.metric_specs import METRICS

SHAPE = (3, 4, 2, 20, 17)

pytestmark = pytest.mark.usefixtures("with_and_without_kernels")


@pytest.fixture
def pair(rng):
    target = rng.random(SHAPE)
    return torch.from_numpy(target + 0.3 * rng.standard_normal(SHAPE)).float(), torch.from_numpy(target).float()


def as_numpy(pair):
    return (tensor.double().numpy() for tensor in pair)


def test_errors_are_summed_over_pixels_and_averaged_over_frames(pair):
    prediction, target = as_numpy(pair)
    assert metrics.mse(*pair) == pytest.approx(((prediction - target) ** 2).sum((2, 3, 4)).mean(), rel=1e-9)
    assert metrics.mae(*pair) == pytest.approx(np.abs(prediction - target).sum((2, 3, 4)).mean(), rel=1e-9)


def test_errors_by_hand():
    target = torch.zeros(1, 2, 1, 2, 2)
    prediction = torch.tensor([[[[[1.0, 2.0], [0.0, 0.0]]], [[[0.0, 0.0], [0.0, -3.0]]]]])
    assert metrics.mse(prediction, target) == (1 + 4 + 9) / 2
    assert metrics.mae(prediction, target) == (1 + 2 + 3) / 2


@pytest.mark.parametrize(("metric", "data_range"), [(metrics.ssim, 2.0), (metrics.ssim_unit_range, 1.0)])
def test_ssim_equals_scikit_image(pair, metric, data_range):
    prediction, target = as_numpy(pair)
    expected = np.mean(
        [
            structural_similarity(p.transpose(1, 2, 0), t.transpose(1, 2, 0), channel_axis=-1, data_range=data_range)
            for p, t in zip(prediction.clip(0, 1).reshape(-1, *SHAPE[2:]), target.reshape(-1, *SHAPE[2:]), strict=True)
        ]
    )
    assert metric(*pair) == pytest.approx(expected, abs=1e-6)


def test_ssim_does_not_depend_on_how_frames_are_batched():
    torch.manual_seed(0)
    prediction, target = torch.rand(2, 7, 40, 1, 9, 9)
    whole = metrics.ssim(prediction, target)
    assert whole == pytest.approx(
        np.mean([metrics.ssim(p[None], t[None]) for p, t in zip(prediction, target, strict=True)]), abs=1e-12
    )


def test_psnr_clips_and_averages_over_frames(pair):
    prediction, target = as_numpy(pair)
    error = ((prediction.clip(0, 1) - target) ** 2).mean((2, 3, 4))
    assert metrics.psnr(*pair) == pytest.approx((20 * np.log10(1 / np.sqrt(error))).mean(), rel=1e-9)


class FakePackage:
    """Stands for the package lpips; its distance is the mean squared difference."""

    def __init__(self):
        self.LPIPS = self
        self.seen = []

    def __call__(self, *pair, net=None, verbose=None):
        if net:
            return self
        self.seen.append(pair)
        return ((pair[0] - pair[1]) ** 2).mean((1, 2, 3), keepdim=True)

    def eval(self):
        return self

    def to(self, device):
        return self


def test_lpips_clips_scales_and_repeats_grey_frames(monkeypatch):
    metrics.lpips_network.cache_clear()
    monkeypatch.setitem(sys.modules, "lpips", package := FakePackage())
    prediction, target = torch.full((2, 3, 1, 8, 8), 1.5), torch.zeros(2, 3, 1, 8, 8)
    # Clipped to 1, then from [0, 1] to [-1, 1], in three equal channels: a distance of two everywhere.
    assert metrics.all_metrics(prediction, target, with_lpips=True)["lpips"] == pytest.approx(4)
    assert package.seen[0][0].shape == (6, 3, 8, 8)
    with pytest.raises(ValueError, match="lpips needs frames of 1 or 3 channels, got 2"):
        metrics.perceptual_distance(torch.zeros(1, 1, 2, 8, 8), torch.zeros(1, 1, 2, 8, 8))
    metrics.lpips_network.cache_clear()


def test_without_its_package_lpips_says_what_to_install(monkeypatch):
    metrics.lpips_network.cache_clear()
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(ValueError, match="its package is not installed: pip install lpips"):
        metrics.perceptual_distance(torch.zeros(1, 1, 1, 8, 8), torch.zeros(1, 1, 1, 8, 8))


def test_every_frame_metric_has_a_function_and_an_entry():
    described = [name for name, spec in METRICS.items() if spec.origin == "frame" and not spec.source]
    assert list(metrics.FRAME_METRICS) == described


def test_all_metrics_equal_the_single_functions(pair):
    together = metrics.all_metrics(*pair)
    assert together == {name: getattr(metrics, name)(*pair) for name in together}


def test_nan_gives_nan():
    target = torch.zeros(1, 1, 1, 8, 8)
    assert all(np.isnan(value) for value in metrics.all_metrics(target + torch.nan, target).values())


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"\(1, 2, 1, 8, 8\).*\(1, 3, 1, 8, 8\)"):
        metrics.mse(torch.zeros(1, 2, 1, 8, 8), torch.zeros(1, 3, 1, 8, 8))
    with pytest.raises(ValueError, match="smaller than the 7x7 window"):
        metrics.ssim(torch.zeros(1, 1, 1, 6, 8), torch.zeros(1, 1, 1, 6, 8))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
@pytest.mark.parametrize("name", ["mse", "mae", "psnr", "ssim", "ssim_unit_range"])
def test_frames_that_are_not_floating_point_are_refused(name, dtype):
    frames = torch.ones(1, 1, 1, 8, 8)
    words = rf"{dtype}.* must be floating-point, with targets in \[0, 1\]: divide frames of bytes by 255"
    for pair in ((frames.to(dtype), frames.to(dtype)), (frames, frames.to(dtype)), (frames.to(dtype), frames)):
        with pytest.raises(TypeError, match=words):
            getattr(metrics, name)(*pair)
