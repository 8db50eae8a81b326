"""Metrics of a learning curve, each in one number, lower being better. docs/statistics.md defines them.

The metrics in `BY_EVALUATION` take one value per evaluation, at the end of each epoch. `steps_to_learn` takes losses by step.
"""

import math
from collections.abc import Callable

import numpy as np

_FIRST, _LAST = 0.1, 0.2
"""Shares of the evaluations: the steep fall at the beginning, and the end."""

_SMOOTHED_EVALUATIONS = 0.05
_SMOOTHED_STEPS = 0.02


def dispersion(curve: np.ndarray) -> float:
    """Standard deviation of the differences between consecutive epochs (Section F); NaN below three epochs."""
    return float(np.diff(curve).std(ddof=1)) if len(curve) > 2 else math.nan


def late_dispersion(curve: np.ndarray) -> float:
    """Dispersion without the first tenth of the epochs, whose fall is steep in every run."""
    return dispersion(_without_first(curve))


def largest_rise(curve: np.ndarray) -> float:
    """Largest rise of the smoothed log error above its lowest earlier value: 0.1 is a rise by a tenth; 0 if it only falls.

    Smoothed over a twentieth of the evaluations, three at least. NaN if fewer than two smoothed values are left.
    """
    smooth = _moving_mean(_log(curve), max(3, round(len(curve) * _SMOOTHED_EVALUATIONS)))
    return float((smooth - np.minimum.accumulate(smooth)).max()) if len(smooth) > 1 else math.nan


def roughness(curve: np.ndarray) -> float:
    """Noise of the log error from one evaluation to the next, after the first tenth of them; NaN below three values."""
    return _noise(_log(_without_first(curve)))


def late_roughness(curve: np.ndarray) -> float:
    """Noise of the log error from one evaluation to the next in the last fifth of them, seven at least; NaN below seven.

    Seven values have five second differences. Those of the last four of twenty would spread by 60 % from seed to seed.
    """
    count = max(7, math.ceil(len(curve) * _LAST))
    return _noise(_log(curve[-count:])) if len(curve) >= count else math.nan


def steps_to_learn(steps: np.ndarray, losses: np.ndarray, error: float, num_steps: int) -> float:
    """Optimizer steps until the smoothed loss first falls below `error`, in the same unit; infinite if it never does.

    Args:
        steps: (N,) equally spaced; each loss is the mean up to its step.
        losses: (N,) Smoothed by the mean over the last 2 % of `num_steps`, at least one loss.
        error: of the best trivial predictor.
        num_steps: of the whole run, also if it ended early.

    Returns NaN if losses or `error` are unknown.
    """
    if not len(losses) or math.isnan(error) or np.isnan(losses).all():
        return math.nan
    window = max(1, round(_SMOOTHED_STEPS * num_steps / steps[0]))
    below = np.flatnonzero(_moving_mean(losses, window) < error)
    return float(steps[below[0] + window - 1]) if len(below) else math.inf


BY_EVALUATION: dict[str, Callable[[np.ndarray], float]] = {
    "dispersion": dispersion,
    "late_dispersion": late_dispersion,
    "loss_dispersion": dispersion,
    "late_loss_dispersion": late_dispersion,
    "largest_rise": largest_rise,
    "roughness": roughness,
    "late_roughness": late_roughness,
}


def _without_first(curve: np.ndarray) -> np.ndarray:
    return curve[math.ceil(len(curve) * _FIRST) :]


def _log(curve: np.ndarray) -> np.ndarray:
    """Return the logarithms of the values that have one. Only the last evaluation of a diverged run is not finite."""
    return np.log(curve[np.isfinite(curve) & (curve > 0)])


def _moving_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Return the means of all `window` consecutive values; empty if there are fewer."""
    if len(values) < window:
        return np.array([])
    return np.lib.stride_tricks.sliding_window_view(values, window).mean(axis=1)


def _noise(values: np.ndarray) -> float:
    """Return the standard deviation of noise on a line, six times whose variance a second difference has."""
    return float(np.sqrt(np.mean(np.diff(values, 2) ** 2) / 6)) if len(values) > 2 else math.nan
