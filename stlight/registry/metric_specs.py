"""The metrics that a table, figure or claim can name: label, direction, unit, and where each value comes from."""

import math
from dataclasses import dataclass
from typing import Literal

Origin = Literal["frame", "curve", "counted", "timed", "recorded"]
"""frame: a function of `stlight.metrics`, averaged over the test clips' frames, recorded for each selection.
curve: a function of `stlight.analysis.curves`, computed from a run's history or losses.
counted: parameters or FLOPs at the paper's size; needs no training.
timed: measured for all variants side by side in one process.
recorded: a field of the run's record."""


@dataclass(frozen=True, kw_only=True)
class MetricSpec:
    """One metric."""

    label: str
    """Name that a reader sees, without the arrow for the direction."""
    origin: Origin
    higher_is_better: bool | None = False
    """None: a larger value is neither better nor worse."""
    unit: Literal["", "count", "bytes", "steps"] = ""
    """count: printed with K, M or G. bytes: printed in MiB or GiB. steps: a whole number, "never" if it is infinite."""
    digits: int = 2
    """Digits after the decimal point."""
    significant: int | None = None
    """Significant digits, instead of `digits`."""
    source: str = ""
    """Origin frame: the metric it is computed from, if not of its own name. Origin curve: the column of the history or
    the losses."""
    factor: float = 1.0
    """Published values are this factor times the recorded ones."""

    @property
    def arrow_label(self) -> str:
        """Label followed by an arrow that points to better values, if there is a direction."""
        arrow = {True: " ↑", False: " ↓", None: ""}[self.higher_is_better]
        return self.label + arrow

    @property
    def ranked(self) -> bool:
        """True if cells are ranked by this metric: it says how good a prediction is."""
        return self.origin == "frame"

    @property
    def cost(self) -> bool:
        """True for what a model takes (parameters, FLOPs, time, memory) rather than how well it predicts."""
        return self.origin in ("counted", "timed", "recorded")

    def format(self, value: float) -> str:
        """Return a value with the digits and unit that the metric is usually printed with; "–" if it is not finite."""
        if self.unit == "steps" and not math.isnan(value):
            return f"{value:.0f}" if math.isfinite(value) else "never"
        if not math.isfinite(value):
            return "–"
        if self.unit == "bytes":
            return f"{value / 2**30:.2f} GiB" if value >= 2**30 else f"{value / 2**20:.1f} MiB"
        if self.unit == "count":
            suffix, size = ("G", 1e9) if value >= 1e9 else ("M", 1e6) if value >= 1e6 else ("K", 1e3)
            return f"{value / size:.1f}{suffix}"
        if self.significant is not None:
            return f"{value:.0f}" if self.origin == "timed" and abs(value) >= 1000 else f"{value:.{self.significant}g}"
        # The mean of runs that exploded may have fifty digits before the point.
        return f"{value:.{self.digits}f}" if abs(value) < 1e6 else f"{value:.2g}"


METRICS: dict[str, MetricSpec] = {
    "mse": MetricSpec(label="MSE", origin="frame"),
    "mae": MetricSpec(label="MAE", origin="frame"),
    "ssim": MetricSpec(label="SSIM", origin="frame", higher_is_better=True, digits=4),
    "ssim_unit_range": MetricSpec(label="SSIM (unit range)", origin="frame", higher_is_better=True, digits=4),
    "psnr": MetricSpec(label="PSNR", origin="frame", higher_is_better=True),
    "lpips": MetricSpec(label="LPIPS", origin="frame"),
    "mse_x100": MetricSpec(label="MSE × 100", origin="frame", source="mse", factor=100),
    "dispersion": MetricSpec(label="dispersion", origin="curve", source="test_mse", significant=3),
    "late_dispersion": MetricSpec(label="dispersion after a tenth", origin="curve", source="test_mse", significant=3),
    "loss_dispersion": MetricSpec(label="dispersion of the training loss", origin="curve", source="train_loss", significant=3),
    "late_loss_dispersion": MetricSpec(
        label="dispersion of the training loss after a tenth", origin="curve", source="train_loss", significant=3
    ),
    "steps_to_learn": MetricSpec(label="steps to learn", origin="curve", source="train_loss", unit="steps"),
    "largest_rise": MetricSpec(label="largest rise", origin="curve", source="test_mse", significant=3),
    "roughness": MetricSpec(label="roughness", origin="curve", source="test_mse", significant=3),
    "late_roughness": MetricSpec(label="roughness at the end", origin="curve", source="test_mse", significant=3),
    "num_params": MetricSpec(label="parameters", origin="counted", higher_is_better=None, unit="count"),
    "benchmark_flops": MetricSpec(label="FLOPs", origin="counted", higher_is_better=None, unit="count"),
    "prediction_flops": MetricSpec(label="FLOPs of a prediction", origin="counted", higher_is_better=None, unit="count"),
    "seconds": MetricSpec(label="training seconds", origin="recorded", higher_is_better=None, digits=1),
    "epoch_seconds": MetricSpec(label="s per epoch", origin="timed", higher_is_better=None, significant=3),
    "clips_per_second": MetricSpec(label="clips / s", origin="timed", higher_is_better=True, significant=3),
    "peak_memory": MetricSpec(label="peak memory", origin="timed", higher_is_better=None, unit="bytes"),
}


def metrics_from(*origins: Origin) -> frozenset[str]:
    """Return the names of the metrics whose values come from any of these origins."""
    return frozenset(name for name, spec in METRICS.items() if spec.origin in origins)


COUNTED_METRICS = metrics_from("counted")
TIMED_METRICS = metrics_from("timed")
