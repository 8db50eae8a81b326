"""Translate a claim into one-sided comparisons that must exceed zero for it to hold."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import linregress

from stlight.analysis.evidence import key
from stlight.analysis.text import axis_text
from stlight.analysis.verdicts.difference import Difference, Subject
from stlight.analysis.verdicts.judging import Either, Test
from stlight.experiments import Experiment
from stlight.experiments.claim_types import (
    AsGoodAsBestClaim,
    BetterClaim,
    ComparisonClaim,
    CountGrowsClaim,
    CountsEqualClaim,
    GainsClaim,
    ImprovesAlongClaim,
    OptimumInClaim,
    SmallerSpreadClaim,
)
from stlight.experiments.grid_cells import GridCell, groups, sides


@dataclass(frozen=True)
class Comparer:
    """Compares two cells for a claim."""

    experiment: Experiment
    claim: ComparisonClaim
    losses: Callable[[GridCell, str], np.ndarray]
    """The losses of a cell in a metric, one per seed."""
    paired: Callable[[GridCell, str], bool] = lambda cell, metric: False
    """True if a cell is compared with others seed by seed."""
    published: bool = False
    """True if the losses are the paper's numbers, rounded to the digits it prints."""

    def __call__(self, better: GridCell, worse: GridCell, metric: str, threshold: float = 0.0) -> Difference:
        """Return the difference that exceeds the threshold if the first cell is better by more than it."""
        resolution = max(cell.printed[metric].half_unit for cell in (better, worse)) if self.published else 0.0
        about = Subject(metric, better, worse, self._told_by(better, worse), self.published)
        a, b = self.losses(better, metric), self.losses(worse, metric)
        return Difference(a, b, self.paired(better, metric), threshold, resolution, about)

    def scaled(self, amount: float, cell: GridCell, metric: str) -> float:
        """Return an amount in the paper's units as the same share of the cell's value at this scale."""
        here = abs(float(self.losses(cell, metric).mean()))
        printed = abs(cell.printed[metric].value) if metric in cell.printed else 0.0
        return amount * here / printed if printed and math.isfinite(here) else float(amount)

    def _told_by(self, better: GridCell, worse: GridCell) -> list[str]:
        axes = self.experiment.axes
        if self.experiment.quoted or "model" in axes:
            return ["model"]
        # One or two axes are named completely; of more, those that differ.
        differ = [a for a in axes if a in self.claim.each or better.coordinates.get(a) != worse.coordinates.get(a)]
        return axes if len(axes) <= 2 else differ


def build_test(comparer: Comparer, cells: list[GridCell]) -> Test:
    """Return the differences that a claim comes to. It must hold in each of its groups and metrics."""
    claim = comparer.claim
    places = itertools.product(groups(claim, cells), claim.metrics)
    return Test(tuple(KINDS[claim.kind](claim, group, metric, comparer) for group, metric in places))


def compared_cells(claim: ComparisonClaim, cells: list[GridCell]) -> list[GridCell]:
    """Return all cells that a claim compares; a cell once for each of its groups."""
    if isinstance(claim, ImprovesAlongClaim):
        return [cell for group in groups(claim, cells) for cell in group if not cell.quoted]
    return [cell for group in groups(claim, cells) for side in sides(claim, group) for cell in side]


def _better(claim: BetterClaim, group: list[GridCell], metric: str, compare: Comparer) -> Either:
    return (tuple(compare(a, b, metric) for a, b in itertools.product(*sides(claim, group))),)


def _optimum_in(claim: OptimumInClaim, group: list[GridCell], metric: str, compare: Comparer) -> Either:
    inside, outside = sides(claim, group)
    return tuple(tuple(compare(a, b, metric) for b in outside) for a in inside)


def _as_good_as_best(claim: AsGoodAsBestClaim, group: list[GridCell], metric: str, compare: Comparer) -> Either:
    inside, outside = sides(claim, group)
    pairs = [(a, b) for a in inside for b in [*inside, *outside] if a is not b]
    margin = claim.as_good_as_best.margin
    return (tuple(compare(a, b, metric, -compare.scaled(margin, b, metric)) for a, b in pairs),)


def _improves_along(claim: ImprovesAlongClaim, group: list[GridCell], metric: str, compare: Comparer) -> Either:
    ours = [cell for cell in group if not cell.quoted]
    line = sorted(ours, key=lambda cell: cell.coordinates[claim.improves_along])
    return (tuple(compare(b, a, metric) for a, b in itertools.pairwise(line)),)


def _gains(claim: GainsClaim, group: list[GridCell], metric: str, compare: Comparer) -> Either:
    (this,), (over,) = sides(claim, group)
    by, margin = (compare.scaled(amount, over, metric) for amount in (claim.gains.by, claim.gains.margin))
    return ((compare(this, over, metric, by - margin), compare(over, this, metric, -(by + margin))),)


def _smaller_spread(claim: SmallerSpreadClaim, group: list[GridCell], metric: str, compare: Comparer) -> Either:
    """Compare spreads by the distances from the median (Brown and Forsythe)."""
    (this,), (than,) = sides(claim, group)
    values = compare(this, than, metric)
    about = replace(values.subject, seeds=(values.a, values.b))  # type: ignore[type-var]
    return ((replace(values, a=_from_median(values.a), b=_from_median(values.b), paired=False, subject=about),),)


def _from_median(values: np.ndarray) -> np.ndarray:
    """Return the distances of values from their median; a diverged run is infinitely far from it."""
    finite = np.isfinite(values)
    return np.where(finite, np.abs(values - (np.median(values[finite]) if finite.any() else 0.0)), math.inf)


KINDS: dict[str, Callable[..., Either]] = {
    "better": _better,
    "optimum_in": _optimum_in,
    "as_good_as_best": _as_good_as_best,
    "improves_along": _improves_along,
    "gains": _gains,
    "smaller_spread": _smaller_spread,
}
"""For each kind of claim about cells: claim, group, metric and comparer to groups of differences, one of which must hold."""


Deviations = tuple[dict[str, float], float, str]
"""The deviation of each part by its label, how much is allowed, and a sentence about the largest, `most`."""


def _counts_equal(claim: CountsEqualClaim, experiment: Experiment, counts: dict[str, Any]) -> Deviations:
    terms, deviations = claim.counts_equal, {}
    for variant in experiment.variants:
        count = counts[key(variant)]
        counted, formula = (count[kind][terms.component] for kind in ("parameters", "closed_forms"))
        deviations[f"{_settings(variant.axes)}: {counted:,} against {formula:,}"] = abs(counted / formula - 1)
    words = f"counted parameters are at most {{most:.1%}} from the formula (allowed: {terms.within:.0%})"
    return deviations, terms.within, words


def _count_grows(claim: CountGrowsClaim, experiment: Experiment, counts: dict[str, Any]) -> Deviations:
    terms = claim.count_grows
    lines: dict[str, list[tuple[float, float]]] = {}
    for variant in experiment.variants:
        others = _settings({axis: value for axis, value in variant.axes.items() if axis != terms.axis})
        count = counts[key(variant)]["parameters"][terms.component]
        lines.setdefault(others, []).append((math.log(variant.axes[terms.axis]), math.log(count)))
    exponents = {name: float(linregress(*zip(*line, strict=True)).slope) for name, line in lines.items() if len(line) > 1}
    deviations = {f"{name}: exponent {found:.3f}": abs(found - terms.exponent) for name, found in exponents.items()}
    words = f"the exponent is at most {{most:.3f}} from {terms.exponent} (allowed: {terms.within:g})"
    return deviations, terms.within, words


def _settings(axes: dict[str, Any]) -> str:
    return ", ".join(f"{axis} = {axis_text(value)}" for axis, value in axes.items())


COUNT_KINDS: dict[str, Callable[..., Deviations]] = {"counts_equal": _counts_equal, "count_grows": _count_grows}
"""For each kind of claim about counts: claim, experiment and counts to the deviations from it."""
