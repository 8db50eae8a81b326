"""How fast an experiment's variants are, and how much memory they take, measured side by side. What measures is `measure`.

Importing this room loads no torch: the plan and the tables only need to know the metrics.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stlight.experiments import Experiment

SPEED_METRICS = ("epoch_seconds", "clips_per_second", "peak_memory")
"""Seconds of an epoch's training steps, clips predicted in a second, and bytes at the peak of a training step."""


def is_timed(experiment: "Experiment") -> bool:
    """Whether some metric of an experiment is measured side by side, which needs a process of its own."""
    return any(metric in SPEED_METRICS for names in experiment.metrics.values() for metric in names)
