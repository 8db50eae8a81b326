"""What a reader is shown: names of metrics and fields, and numbers with the digits they are usually printed with."""

import math
from typing import Any

import numpy as np
import pandas as pd

from stlight.registry.metric_specs import COUNTED_METRICS

METRIC_LABELS = {
    "mse": "MSE ↓",
    "mae": "MAE ↓",
    "ssim": "SSIM ↑",
    "ssim_unit_range": "SSIM (unit range) ↑",
    "psnr": "PSNR ↑",
    "lpips": "LPIPS ↓",
    "mse_x100": "MSE × 100 ↓",
    "dispersion": "dispersion ↓",
    "onset": "epochs until it falls ↓",
    "instability": "largest rise ↓",
    "num_params": "parameters",
    "benchmark_flops": "FLOPs",
    "prediction_flops": "FLOPs of the rollout",
    "seconds": "training seconds",
    "epoch_seconds": "s per epoch",
    "clips_per_second": "clips / s ↑",
    "peak_memory": "peak memory",
}

FIELD_LABELS = {
    "k1": "k1",
    "k2": "k2",
    "max_lr": "LR",
    "final_div_factor": "final div factor",
    "num_epochs": "epochs",
    "hidden_dim": "hidden dim",
}

_HIGHER_IS_BETTER = ("ssim", "ssim_unit_range", "psnr", "clips_per_second")


def is_higher_better(metric: str) -> bool:
    """Whether more is better; every other metric is better when lower."""
    return metric in _HIGHER_IS_BETTER


def number(value: float, metric: str) -> str:
    """A value with the digits its metric is usually printed with; "–" where there is none."""
    if not math.isfinite(value):
        return "–"
    if metric == "peak_memory":
        return f"{value / 2**30:.2f} GiB" if value >= 2**30 else f"{value / 2**20:.1f} MiB"
    if metric in ("epoch_seconds", "clips_per_second"):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    if metric in COUNTED_METRICS:
        unit, size = ("G", 1e9) if value >= 1e9 else ("M", 1e6) if value >= 1e6 else ("K", 1e3)
        return f"{value / size:.1f}{unit}"
    digits = {"ssim": 4, "ssim_unit_range": 4, "seconds": 1}.get(metric, 2)
    return f"{value:.3g}" if metric == "dispersion" else f"{value:.{digits}f}"


def axis_text(axis: str, value: Any) -> str:
    """An axis value for a reader."""
    if pd.isna(value):
        return ""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, int | float | np.number) else str(value)


def field_label(name: str) -> str:
    """What a reader calls a field."""
    return FIELD_LABELS.get(name, name.replace("_", " "))
