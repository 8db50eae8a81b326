"""A claim's verdict on one source of numbers, and the table of all of them."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from stlight.analysis.protocol import Protocol
from stlight.analysis.verdicts.contrasts import Contrast
from stlight.analysis.verdicts.eligibility import Remedy
from stlight.analysis.verdicts.judging import Comparison, Test, Verdict
from stlight.experiments.claim_types import Claim, UntestedClaim
from stlight.experiments.grid_cells import GridCell
from stlight.registry.metric_specs import METRICS

COLUMNS = (
    *("id", "experiment", "section", "sentence", "source", "protocol", "verdict"),
    *("effect", "low", "high", "n", "detectable", "why"),
)

Basis = Literal["published", "counted", "trained", "nothing"]
"""Printed numbers, counts of our own, trained runs, or nothing because no test of the sentence is possible."""
BASES: tuple[Basis, ...] = get_args(Basis)

OUTCOMES = ("reproduced", "contradicted", "holds at this scale", "reversed at this scale", "undecided", "untested")
"""Verdicts as readers see them."""
_BELOW_EXACT = {"reproduced": "holds at this scale", "contradicted": "reversed at this scale"}


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

    claim: Claim
    experiment: str
    source: Literal["published", "measured"]
    protocol: Protocol | Literal[""] = ""
    """How near the least exact of its runs is to the paper's; empty for a sentence that nothing can test."""
    verdict: Verdict = "untested"
    why: str = ""
    remedy: Remedy = ""
    """The change after which it could be decided, if it is undecided."""
    effect: float = math.nan
    low: float = math.nan
    high: float = math.nan
    n: int = 0
    detectable: float = math.nan
    size: float = math.nan
    """Mean absolute value of what is compared; the effect over it is a share, which sentences about all metrics have alike."""
    parts: list[Part] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    sides: tuple[float, float] = (1.0, 1.0)
    """One-sided p-values for and against the claim, before any correction."""
    levels: tuple[float, ...] = ()
    """One-sided level at each look at which these decide, whatever the other sentences' verdicts are."""

    @property
    def outcome(self) -> str:
        """The verdict as readers see it: runs that are not the paper's own say something about their scale only."""
        return _BELOW_EXACT.get(self.verdict, self.verdict) if self.protocol != "exact" else self.verdict

    @property
    def basis(self) -> Basis:
        """The source of numbers that the verdict rests on."""
        if self.source == "published":
            return "published"
        return "nothing" if isinstance(self.claim, UntestedClaim) else "trained" if self.claim.statistical else "counted"

    def decided(self, test: Test, verdict: Verdict, deciding: Comparison, **more: Any) -> "Finding":
        """Return the finding with a verdict, the effect of the comparison that decides it, and all parts of the test."""
        # The effect is stated in the direction of the sentence.
        stated = deciding.reversed() if verdict == "contradicted" else deciding
        # The two edges of a published band are no sample that an interval could be computed from.
        effect, (low, high) = stated.estimate, (math.nan, math.nan) if stated.published else stated.interval()
        parts = [Part(label(d), d.estimate, d.margin > 0, seeds_text(d)) for d in test.for_it()]
        more |= {"size": _size(stated), "parts": parts}
        return replace(self, verdict=verdict, effect=effect, low=low, high=high, n=stated.n, **more)


def _size(comparison: Comparison) -> float:
    """Return the mean absolute value of the finite losses that are compared; 1 for logarithms, NaN without any."""
    if comparison.logarithmic:
        return 1.0
    losses = np.concatenate([comparison.a, comparison.b])
    finite = np.abs(losses[np.isfinite(losses)])
    return float(finite.mean()) if len(finite) else math.nan


def as_table(findings: Iterable[Finding]) -> pd.DataFrame:
    """Return the rows of claims.csv: one per claim and source."""
    columns = ["outcome" if name == "verdict" else name for name in COLUMNS]
    rows = [[getattr(f if hasattr(f, name) else f.claim, name) for name in columns] for f in findings]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def label(difference: Comparison) -> str:
    """Return what is compared with what: "MSE 60.10 (depth = 16) against 80.20 (depth = 4)"."""
    if isinstance(difference, Contrast):
        return difference.said
    metric, threshold, sides = METRICS[difference.metric].label, difference.threshold, (difference.a, difference.b)
    if difference.seeds:
        metric = f"mean distance of {metric} from its median"
        shown = [f"{losses.mean():.3g}" for losses in sides]
    elif difference.published:
        shown = [_as_published(cell, losses, difference.metric) for cell, losses in zip(difference.cells, sides, strict=True)]
    else:
        shown = [loss_text(losses.mean(), difference.metric) for losses in sides]
    better, worse = (f"{number} ({name})" for number, name in zip(shown, difference.names, strict=True))
    by = f", better by more than {threshold:.3g}" if threshold > 0 else f", no worse than by {-threshold:.3g}"
    return f"{metric} {better} against {worse}{by if threshold else ''}"


def _as_published(cell: GridCell, losses: np.ndarray, metric: str) -> str:
    """Return the printed digits, or both edges of a published band."""
    return str(cell.printed[metric]) if metric in cell.printed else " to ".join(loss_text(loss, metric) for loss in losses)


def seeds_text(difference: Comparison) -> str:
    """Return every seed's value on both sides."""
    sides = difference.seeds or (difference.a, difference.b)
    return " | ".join(", ".join(loss_text(loss, difference.metric) for loss in losses) for losses in sides)


def loss_text(loss: float, metric: str) -> str:
    """Return a loss as the value of its metric; a word if it is infinite."""
    spec = METRICS[metric]
    never = "never, or diverged" if spec.unit == "steps" else "diverged"
    return never if math.isinf(loss) else spec.format(float(-loss if spec.higher_is_better else loss))
