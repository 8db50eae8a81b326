"""Metrics of a learning curve. Each function takes one value per epoch, lower being better, and returns one number."""

import math

import numpy as np

FALL = 0.1


def dispersion(losses: np.ndarray) -> float:
    """Standard deviation of the differences in loss between consecutive epochs (Section F); NaN below three epochs."""
    return float(np.diff(losses).std(ddof=1)) if len(losses) > 2 else math.nan


def onset(curve: np.ndarray) -> float:
    """Epochs after the first until a tenth of the curve's whole fall is done (Section D: epochs needed to stabilise).

    Between two epochs it is interpolated. Infinite if the curve never falls below its first value; NaN for one epoch.
    """
    if len(curve) < 2:
        return math.nan
    target = curve[0] - FALL * (curve[0] - np.nanmin(curve))
    if not target < curve[0]:
        return math.inf
    below = int(np.argmax(curve <= target))
    return float(below - (target - curve[below]) / (curve[below - 1] - curve[below]))


def instability(curve: np.ndarray) -> float:
    """The largest rise above what the curve had reached before, as a share of that; 0 if it never rises, NaN for one epoch."""
    if len(curve) < 2:
        return math.nan
    reached = np.fmin.accumulate(curve)
    return float(np.nanmax(curve / reached - 1))
