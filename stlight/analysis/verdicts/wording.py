"""Differences as text for readers, made last from their typed parts."""

import math

import numpy as np

from stlight.analysis.text import settings_text
from stlight.analysis.verdicts.difference import Difference, Subject
from stlight.experiments.grid_cells import GridCell
from stlight.registry.metric_specs import METRICS


def subject(difference: Difference) -> Subject:
    """Return what a difference between cells of a grid compares."""
    assert difference.subject is not None
    return difference.subject


def label(difference: Difference) -> str:
    """Return what is compared with what: "MSE 60.10 (depth = 16) against 80.20 (depth = 4)"."""
    about = subject(difference)
    metric = METRICS[about.metric].label
    sides = ((about.better, difference.a), (about.worse, difference.b))
    if about.seeds:
        shown = [f"{float(losses.mean()):.3g}" for _, losses in sides]
        metric = f"mean distance of {metric} from its median"
    elif about.published:
        shown = [str(cell.printed[about.metric]) for cell, _ in sides]
    else:
        shown = [loss_text(float(losses.mean()), about.metric) for _, losses in sides]
    names = [_name(cell, about.told_by) for cell, _ in sides]
    text = f"{metric} {shown[0]} ({names[0]}) against {shown[1]} ({names[1]})"
    if difference.threshold > 0:
        text += f", better by more than {difference.threshold:.3g}"
    elif difference.threshold < 0:
        text += f", no worse than by {-difference.threshold:.3g}"
    return text


def seeds_text(difference: Difference) -> str:
    """Return every seed's value on both sides."""
    about = subject(difference)
    sides = about.seeds or (difference.a, difference.b)
    return " | ".join(", ".join(loss_text(float(loss), about.metric) for loss in losses) for losses in sides)


def loss_text(loss: float, metric: str) -> str:
    """Return a loss as the value of its metric; "diverged" if it is infinite."""
    spec = METRICS[metric]
    return "diverged" if math.isinf(loss) else spec.format(-loss if spec.higher_is_better else loss)


def as_loss(value: float, metric: str) -> np.ndarray:
    """Return a single number of a metric as a loss: lower is better."""
    return np.array([-value if METRICS[metric].higher_is_better else value])


def _name(cell: GridCell, told_by: list[str]) -> str:
    if cell.quoted:
        return cell.label
    return str(cell.coordinates["model"]) if told_by == ["model"] else settings_text(cell.coordinates, told_by)
