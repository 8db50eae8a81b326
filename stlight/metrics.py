"""The benchmark's metrics as pure functions of (prediction, target), both (B, T, C, H, W) with targets in [0, 1].

As in the OpenSTL benchmark, errors are summed over the pixels of a frame, averaged over frames, and computed on unclipped
predictions; `ssim` and `psnr` clip the prediction to [0, 1] first. Every function raises `ValueError` for other shapes, and
`TypeError` for frames that are not floating-point numbers, such as bytes.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stlight.kernels import frames

WINDOW = 7
K1, K2 = 0.01, 0.03

# SSIM needs float64 intermediates. Splitting the frames bounds the memory and changes no value.
_FRAMES_AT_ONCE = 32


def mse(prediction: Tensor, target: Tensor) -> float:
    """Return the squared error summed over C·H·W, averaged over clips and frames; 0 is perfect."""
    return frame_errors(prediction, target)["mse"]


def mae(prediction: Tensor, target: Tensor) -> float:
    """Return the absolute error summed over C·H·W, averaged over clips and frames; 0 is perfect."""
    return frame_errors(prediction, target)["mae"]


def psnr(prediction: Tensor, target: Tensor) -> float:
    """Return the peak signal-to-noise ratio in dB, averaged over frames; infinite if a frame is perfect."""
    return frame_errors(prediction, target)["psnr"]


def ssim(prediction: Tensor, target: Tensor) -> float:
    """Return the structural similarity as the benchmark publishes it: data range 2, twice the true range."""
    return similarities(prediction, target)["ssim"]


def ssim_unit_range(prediction: Tensor, target: Tensor) -> float:
    """Return the structural similarity with the true data range 1; stricter than `ssim`, and not printed by the benchmark."""
    return similarities(prediction, target)["ssim_unit_range"]


def frame_errors(prediction: Tensor, target: Tensor) -> dict[str, float]:
    """Compute `mse`, `mae` and `psnr` in one pass over the pixels."""
    _check(prediction, target)
    x_NM, y_NM = prediction.flatten(2).flatten(0, 1), target.flatten(2).flatten(0, 1)
    sums = frames.errors(x_NM, y_NM)
    if sums is None:
        x_NM, y_NM = x_NM.double(), y_NM.double()
        error = x_NM - y_NM
        sums = torch.stack([error.square().sum(1), error.abs().sum(1), (x_NM.clamp(0, 1) - y_NM).square().sum(1)])
    squared, absolute, squared_clipped = sums
    ratios = -10 * torch.log10(squared_clipped / prediction.shape[2:].numel())
    return {"mse": squared.mean().item(), "mae": absolute.mean().item(), "psnr": ratios.mean().item()}


def similarities(prediction: Tensor, target: Tensor) -> dict[str, float]:
    """Compute `ssim` and `ssim_unit_range` in one pass over the windows.

    The window is uniform and 7 × 7, the covariance is the sample covariance. Averages over all windows that lie wholly inside
    the frame, over channels and over frames.
    """
    _check(prediction, target)
    if min(prediction.shape[-2:]) < WINDOW:
        raise ValueError(f"frames of {tuple(prediction.shape[-2:])} are smaller than the {WINDOW}x{WINDOW} window of SSIM")
    x_NHW, y_NHW = prediction.clamp(0, 1).flatten(0, 2), target.flatten(0, 2)
    data_ranges = (2.0, 1.0)
    similarity = frames.structural_similarity(x_NHW, y_NHW, K1, K2, data_ranges)
    if similarity is None:
        pairs = zip(x_NHW.split(_FRAMES_AT_ONCE), y_NHW.split(_FRAMES_AT_ONCE), strict=True)
        similarity = torch.cat([torch.stack(_frame_similarities(x.double(), y.double(), data_ranges)) for x, y in pairs], 1)
    return dict(zip(("ssim", "ssim_unit_range"), similarity.mean(1).tolist(), strict=True))


def perceptual_distance(prediction: Tensor, target: Tensor) -> dict[str, float]:
    """Compute `lpips`, the learned perceptual distance (AlexNet), averaged over frames; prediction clipped; 0 is perfect."""
    _check(prediction, target)
    if prediction.shape[2] not in (1, 3):
        raise ValueError(f"lpips needs frames of 1 or 3 channels, got {prediction.shape[2]}")
    x_NCHW, y_NCHW = prediction.clamp(0, 1).flatten(0, 1) * 2 - 1, target.flatten(0, 1) * 2 - 1
    network = lpips_network(prediction.device)
    pairs = zip(x_NCHW.split(_FRAMES_AT_ONCE), y_NCHW.split(_FRAMES_AT_ONCE), strict=True)
    with torch.no_grad():
        distances = [network(x.expand(-1, 3, -1, -1), y.expand(-1, 3, -1, -1)).flatten() for x, y in pairs]
    return {"lpips": torch.cat(distances).mean().item()}


@cache
def lpips_network(device: torch.device) -> Any:
    """Load the network behind LPIPS. Raises `ValueError` if its package is not installed."""
    try:
        import lpips as package
    except ImportError as error:
        raise ValueError("lpips was asked for, but its package is not installed: pip install lpips") from error
    return package.LPIPS(net="alex", verbose=False).eval().to(device)


# The function that computes each metric. A function may compute several metrics that share a pass.
FRAME_METRICS: dict[str, Callable[[Tensor, Tensor], dict[str, float]]] = {
    "mse": frame_errors,
    "mae": frame_errors,
    "ssim": similarities,
    "ssim_unit_range": similarities,
    "psnr": frame_errors,
    "lpips": perceptual_distance,
}


def all_metrics(prediction: Tensor, target: Tensor, *, with_lpips: bool = False) -> dict[str, float]:
    """Compute every metric of `FRAME_METRICS`, in its order; `lpips`, which needs another package, only if asked for."""
    names = [name for name in FRAME_METRICS if name != "lpips" or with_lpips]
    values: dict[str, float] = {}
    for function in dict.fromkeys(FRAME_METRICS[name] for name in names):
        values |= function(prediction, target)
    return {name: values[name] for name in names}


def _check(prediction: Tensor, target: Tensor) -> None:
    if prediction.ndim != 5 or prediction.shape != target.shape:
        shapes = f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)}"
        raise ValueError(f"{shapes} must have the same shape (B, T, C, H, W)")
    if not (prediction.is_floating_point() and target.is_floating_point()):
        dtypes = f"prediction {prediction.dtype} and target {target.dtype}"
        raise TypeError(f"{dtypes} must be floating-point, with targets in [0, 1]: divide frames of bytes by 255")


def _frame_similarities(x_NHW: Tensor, y_NHW: Tensor, data_ranges: tuple[float, ...]) -> list[Tensor]:
    """Return the similarity of each frame, (N,), for each data range."""
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = map(_window_mean, (x_NHW, y_NHW, x_NHW * x_NHW, y_NHW * y_NHW, x_NHW * y_NHW))
    to_sample = WINDOW**2 / (WINDOW**2 - 1)
    product, squares = mean_x * mean_y, mean_x.square() + mean_y.square()
    covariance = to_sample * (mean_xy - product)
    variances = to_sample * (mean_xx + mean_yy - squares)
    maps = []
    for data_range in data_ranges:
        c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
        ssim_map = (2 * product + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2))
        maps.append(ssim_map.mean((1, 2)))
    return maps


def _window_mean(values_NHW: Tensor) -> Tensor:
    """Return the mean over every whole window, (N, H, W) → (N, H - 6, W - 6). Running sums are exact enough in float64."""
    for _ in range(2):
        sums = F.pad(values_NHW.cumsum(-1), (1, 0))
        values_NHW = (sums[..., WINDOW:] - sums[..., :-WINDOW]).transpose(1, 2)
    return values_NHW / WINDOW**2
