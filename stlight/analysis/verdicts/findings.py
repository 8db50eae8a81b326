"""A claim's verdict on one source of numbers, and the table of all of them."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from stlight.analysis.text import settings_text
from stlight.analysis.verdicts.difference import Difference, Subject
from stlight.analysis.verdicts.judging import Test, Verdict
from stlight.experiments.claim_types import BaseClaim
from stlight.experiments.grid_cells import GridCell
from stlight.registry.metric_specs import METRICS

Source = Literal["published", "measured"]


@dataclass(frozen=True)
class Part:
    """One comparison of a claim."""

    label: str
    effect: float
    """By how much it is as the sentence says."""
    as_stated: bool
    values: str
    """Every seed's value on both sides."""


@dataclass(frozen=True)
class Finding:
    """A claim's verdict on one source, with all that explains it."""

    claim: BaseClaim
    experiment: str
    source: Source
    verdict: Verdict = "untested"
    why: str = ""
    effect: float = math.nan
    low: float = math.nan
    high: float = math.nan
    n: int = 0
    detectable: float = math.nan
    parts: list[Part] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)


_OF_THE_CLAIM = ("id", "section", "sentence")
_OF_THE_FINDING = ("experiment", "source", "verdict", "effect", "low", "high", "n", "detectable", "why")
COLUMNS = ("id", "experiment", "section", "sentence", *_OF_THE_FINDING[1:])


def as_table(findings: Iterable[Finding]) -> pd.DataFrame:
    """Return the rows of claims.csv: one per claim and source."""
    rows = [
        {name: getattr(f.claim, name) for name in _OF_THE_CLAIM} | {name: getattr(f, name) for name in _OF_THE_FINDING}
        for f in findings
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def parts_of(test: Test) -> list[Part]:
    """Return the comparisons behind a verdict: those of the groups that support the sentence most."""
    return [Part(label(d), d.estimate, d.margin > 0, seeds_text(d)) for d in test.for_it()]


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
