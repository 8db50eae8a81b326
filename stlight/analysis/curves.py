"""Metrics of a learning curve. Each function takes one value per epoch, lower being better, and returns one number."""

import math

import numpy as np

FALL = 0.1


def dispersion(curve: np.ndarray) -> float:
    """Standard deviation of the differences between consecutive epochs (Section F); NaN below three epochs."""
    return float(np.diff(curve).std(ddof=1)) if len(curve) > 2 else math.nan


def late_dispersion(curve: np.ndarray) -> float:
    """Dispersion without the first tenth of the epochs, whose fall is steep in every run."""
    return dispersion(curve[math.ceil(len(curve) * FALL) :])


def roughness(curve: np.ndarray) -> float:
    """Noise of the log error from one evaluation to the next, after the first tenth of them; NaN below three values."""
    late = np.log(curve[math.ceil(len(curve) * FALL) :])
    return float(np.sqrt(np.mean(np.diff(late, 2) ** 2) / 6)) if len(late) > 2 else math.nan


# Metrics are found here by their names; these two are computed from the training loss.
loss_dispersion = dispersion
late_loss_dispersion = late_dispersion


def onset(curve: np.ndarray) -> float:
    """Epochs after the first until a tenth of the curve's whole fall is done for good (Section D: epochs needed to stabilise).

    Between two epochs it is interpolated. Infinite if the curve never falls below its first value, or does not stay there; NaN
    for one epoch.
    """
    if len(curve) < 2:
        return math.nan
    target = curve[0] - FALL * (curve[0] - np.nanmin(curve))
    above = np.flatnonzero(curve > target)
    if not target < curve[0] or above[-1] == len(curve) - 1:
        return math.inf
    last = int(above[-1])
    return float(last + (curve[last] - target) / (curve[last] - curve[last + 1]))


def instability(curve: np.ndarray) -> float:
    """The largest rise above what the curve had reached before, as a share of that; 0 if it never rises, NaN for one epoch."""
    return late_instability(curve, share=1.0)


def late_instability(curve: np.ndarray, share: float = 0.2) -> float:
    """The largest rise in the last fifth of the epochs above what the curve had reached before, as a share of that."""
    if len(curve) < 2:
        return math.nan
    rises = curve / np.fmin.accumulate(curve) - 1
    return float(np.nanmax(rises[-math.ceil(len(curve) * share) :]))
