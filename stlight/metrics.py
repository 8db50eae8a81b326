"""The benchmark's metrics as pure functions of (prediction, target), both (B, T, C, H, W) with targets in [0, 1].

Errors are summed over the pixels of a frame and averaged over frames, as the OpenSTL benchmark prints them, on predictions
that are not clipped; similarity and signal-to-noise clip the prediction to [0, 1] first. No function loops over frames.
Every function raises `ValueError` when the shapes differ or are not five-dimensional.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW = 7
K1, K2 = 0.01, 0.03

# Frames for which SSIM's float64 intermediates are held at once: bounds the memory, changes no value.
_FRAMES_AT_ONCE = 512


def _check(prediction: Tensor, target: Tensor) -> None:
    if prediction.ndim != 5 or prediction.shape != target.shape:
        raise ValueError(
            f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} must both be (B, T, C, H, W), alike"
        )


def _per_frame_sum(values_BTCHW: Tensor) -> Tensor:
    return values_BTCHW.sum(dim=(2, 3, 4), dtype=torch.float64)


def mse(prediction: Tensor, target: Tensor) -> float:
    """Squared error summed over C·H·W, averaged over clips and frames; 0 is perfect."""
    _check(prediction, target)
    return _per_frame_sum((prediction.double() - target.double()).square()).mean().item()


def mae(prediction: Tensor, target: Tensor) -> float:
    """Absolute error summed over C·H·W, averaged over clips and frames; 0 is perfect."""
    _check(prediction, target)
    return _per_frame_sum((prediction.double() - target.double()).abs()).mean().item()


def psnr(prediction: Tensor, target: Tensor) -> float:
    """Peak signal-to-noise ratio in dB per frame, averaged over frames; prediction clipped; infinite if a frame is perfect."""
    _check(prediction, target)
    error = (prediction.double().clamp(0, 1) - target.double()).square().mean(dim=(2, 3, 4))
    return (-10 * torch.log10(error)).mean().item()


def ssim(prediction: Tensor, target: Tensor) -> float:
    """Structural similarity as the benchmark publishes it: data range 2, twice the true one (see `ssim_unit_range`)."""
    return _ssim(prediction, target, data_range=2.0)


def ssim_unit_range(prediction: Tensor, target: Tensor) -> float:
    """Structural similarity with the true data range of 1; stricter than `ssim`, and not what the benchmark prints."""
    return _ssim(prediction, target, data_range=1.0)


def _ssim(prediction: Tensor, target: Tensor, data_range: float) -> float:
    """7×7 uniform window, sample covariance, mean over the windows that lie wholly inside, per channel, then averaged."""
    _check(prediction, target)
    if min(prediction.shape[-2:]) < WINDOW:
        raise ValueError(f"frames of {tuple(prediction.shape[-2:])} are smaller than the {WINDOW}x{WINDOW} window of SSIM")
    frames = torch.stack((prediction.clamp(0, 1), target)).flatten(1, 3).unsqueeze(2)
    per_chunk = [_ssim_maps(chunk[0], chunk[1], data_range).mean((1, 2, 3)) for chunk in frames.split(_FRAMES_AT_ONCE, 1)]
    return torch.cat(per_chunk).mean().item()


def _ssim_maps(x: Tensor, y: Tensor, data_range: float) -> Tensor:
    x, y = x.double(), y.double()
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = (F.avg_pool2d(z, WINDOW, stride=1) for z in (x, y, x * x, y * y, x * y))
    to_sample = WINDOW**2 / (WINDOW**2 - 1)
    variance_x = to_sample * (mean_xx - mean_x * mean_x)
    variance_y = to_sample * (mean_yy - mean_y * mean_y)
    covariance = to_sample * (mean_xy - mean_x * mean_y)
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    return ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    )
