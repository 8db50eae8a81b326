"""The benchmark's metrics as pure functions of (prediction, target), both (B, T, C, H, W) with targets in [0, 1].

Errors are summed over the pixels of a frame and averaged over frames, as the OpenSTL benchmark prints them, on predictions
that are not clipped; similarity and signal-to-noise clip the prediction to [0, 1] first. No function loops over frames.
Every function raises `ValueError` when the shapes differ or are not five-dimensional.
"""

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stlight.kernels.frames import errors, structural_similarity

WINDOW = 7
K1, K2 = 0.01, 0.03

# Frames for which SSIM's float64 intermediates are held at once: bounds the memory, changes no value.
_FRAMES_AT_ONCE = 32


def _check(prediction: Tensor, target: Tensor) -> None:
    if prediction.ndim != 5 or prediction.shape != target.shape:
        raise ValueError(
            f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} must both be (B, T, C, H, W), alike"
        )


def _errors(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared error, absolute error, and squared error of the clipped prediction, summed over each frame: float64 (3, B·T)."""
    _check(prediction, target)
    x_NM, y_NM = prediction.flatten(2).flatten(0, 1), target.flatten(2).flatten(0, 1)
    if (sums := errors(x_NM, y_NM)) is not None:
        return sums
    x_NM, y_NM = x_NM.double(), y_NM.double()
    error = x_NM - y_NM
    return torch.stack([error.square().sum(1), error.abs().sum(1), (x_NM.clamp(0, 1) - y_NM).square().sum(1)])


def mse(prediction: Tensor, target: Tensor) -> float:
    """Squared error summed over C·H·W, averaged over clips and frames; 0 is perfect."""
    return _errors(prediction, target)[0].mean().item()


def mae(prediction: Tensor, target: Tensor) -> float:
    """Absolute error summed over C·H·W, averaged over clips and frames; 0 is perfect."""
    return _errors(prediction, target)[1].mean().item()


def psnr(prediction: Tensor, target: Tensor) -> float:
    """Peak signal-to-noise ratio in dB per frame, averaged over frames; prediction clipped; infinite if a frame is perfect."""
    return _psnr(_errors(prediction, target)[2], prediction)


def _psnr(squared_errors: Tensor, prediction: Tensor) -> float:
    return (-10 * torch.log10(squared_errors / prediction.shape[2:].numel())).mean().item()


def ssim(prediction: Tensor, target: Tensor) -> float:
    """Structural similarity as the benchmark publishes it: data range 2, twice the true one (see `ssim_unit_range`)."""
    return _similarity(prediction, target, 2.0)[0]


def ssim_unit_range(prediction: Tensor, target: Tensor) -> float:
    """Structural similarity with the true data range of 1; stricter than `ssim`, and not what the benchmark prints."""
    return _similarity(prediction, target, 1.0)[0]


def lpips(prediction: Tensor, target: Tensor) -> float:
    """Learned perceptual distance (AlexNet) per frame, averaged over frames; prediction clipped; 0 is perfect.

    Of grey or colour frames. By the package lpips, which is not installed with the suite; raises `ValueError` without it.
    """
    _check(prediction, target)
    if prediction.shape[2] not in (1, 3):
        raise ValueError(f"lpips is for frames of 1 or 3 channels, got {prediction.shape[2]}")
    x_NCHW, y_NCHW = prediction.clamp(0, 1).flatten(0, 1) * 2 - 1, target.flatten(0, 1) * 2 - 1
    network = lpips_network(prediction.device)
    pairs = zip(x_NCHW.split(_FRAMES_AT_ONCE), y_NCHW.split(_FRAMES_AT_ONCE), strict=True)
    with torch.no_grad():
        return torch.cat([network(x.expand(-1, 3, -1, -1), y.expand(-1, 3, -1, -1)).flatten() for x, y in pairs]).mean().item()


@cache
def lpips_network(device: torch.device) -> Any:
    """The network that judges. Raises `ValueError` where the package is not installed."""
    try:
        import lpips as package
    except ImportError as error:
        raise ValueError("lpips was asked for, but its package is not installed: pip install lpips") from error
    return package.LPIPS(net="alex", verbose=False).eval().to(device)


def all_metrics(prediction: Tensor, target: Tensor) -> dict[str, float]:
    """Every metric by its name, but LPIPS; both similarities from one pass over the windows, and all errors from another."""
    squared, absolute, clipped = _errors(prediction, target)
    published_range, unit_range = _similarity(prediction, target, 2.0, 1.0)
    return {
        "mse": squared.mean().item(),
        "mae": absolute.mean().item(),
        "ssim": published_range,
        "ssim_unit_range": unit_range,
        "psnr": _psnr(clipped, prediction),
    }


def _similarity(prediction: Tensor, target: Tensor, *data_ranges: float) -> list[float]:
    """7×7 uniform window, sample covariance, mean over the windows that lie wholly inside, per channel, then averaged."""
    _check(prediction, target)
    if min(prediction.shape[-2:]) < WINDOW:
        raise ValueError(f"frames of {tuple(prediction.shape[-2:])} are smaller than the {WINDOW}x{WINDOW} window of SSIM")
    x_NHW, y_NHW = prediction.clamp(0, 1).flatten(0, 2), target.flatten(0, 2)
    similarity = structural_similarity(x_NHW, y_NHW, K1, K2, data_ranges)
    if similarity is None:
        pairs = zip(x_NHW.split(_FRAMES_AT_ONCE), y_NHW.split(_FRAMES_AT_ONCE), strict=True)
        similarity = torch.cat([torch.stack(_frame_similarities(x.double(), y.double(), data_ranges)) for x, y in pairs], 1)
    return similarity.mean(1).tolist()


def _frame_similarities(x_NHW: Tensor, y_NHW: Tensor, data_ranges: tuple[float, ...]) -> list[Tensor]:
    """The similarity of each frame, (N,), for each data range."""
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = map(_window_mean, (x_NHW, y_NHW, x_NHW * x_NHW, y_NHW * y_NHW, x_NHW * y_NHW))
    to_sample = WINDOW**2 / (WINDOW**2 - 1)
    product, squares = mean_x * mean_y, mean_x.square() + mean_y.square()
    covariance = to_sample * (mean_xy - product)
    variances = to_sample * (mean_xx + mean_yy - squares)
    similarities = []
    for data_range in data_ranges:
        c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
        ssim_map = (2 * product + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2))
        similarities.append(ssim_map.mean((1, 2)))
    return similarities


def _window_mean(values_NHW: Tensor) -> Tensor:
    """Mean over every whole window, (N, H, W) → (N, H - 6, W - 6): differences of running sums, exact enough in float64."""
    for _ in range(2):
        sums = F.pad(values_NHW.cumsum(-1), (1, 0))
        values_NHW = (sums[..., WINDOW:] - sums[..., :-WINDOW]).transpose(1, 2)
    return values_NHW / WINDOW**2
