"""Translate a claim into one-sided comparisons that must exceed zero for it to hold."""

import itertools
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import linregress

from stlight.analysis import curves
from stlight.analysis.evidence import key
from stlight.analysis.text import settings_text
from stlight.analysis.verdicts.contrasts import Contrast
from stlight.analysis.verdicts.differences import Difference
from stlight.analysis.verdicts.grid_contrasts import on_average, optimum, trend
from stlight.analysis.verdicts.judging import Either, Test
from stlight.analysis.verdicts.repeats import PaperNoise
from stlight.experiments import Experiment, Variant
from stlight.experiments.claim_base import ComparisonClaim
from stlight.experiments.grid_cells import GridCell
from stlight.experiments.published_data import PublishedBand
from stlight.registry.metric_specs import METRICS


@dataclass(frozen=True)
class Comparer:
    """Compares two cells for a claim."""

    experiment: Experiment
    claim: ComparisonClaim
    losses: Callable[[Variant, str], np.ndarray] | None = None
    """The losses of a variant in a metric, one per seed; None to compare the paper's numbers."""
    noise: PaperNoise | None = None
    """How far apart two of the paper's numbers must be."""

    def __call__(self, better: GridCell, worse: GridCell, metric: str, threshold: float = 0.0) -> Difference:
        """Return the difference that exceeds the threshold if the first cell is better by more than it."""
        cells = (better, worse)
        a, b = (self.values(cell, metric) for cell in cells)
        paired = len(set(map(self.seed_group, cells))) == 1
        difference = Difference(a, b, paired, threshold=threshold, metric=metric, cells=cells, names=self._names(*cells))
        if self.losses:
            return difference
        if len(a) > 1:
            # Edges of bands: one band must lie below the other as a whole.
            resolution = float(np.ptp(a) + np.ptp(b)) / 2
        else:
            rounding = max(cell.printed[metric].half_unit for cell in cells)
            resolution = max(rounding, self.noise.resolution(cells, (-1.0, 1.0), metric) if self.noise else 0.0)
        return replace(difference, published=True, resolution=resolution)

    def contrast(self, cells: list[GridCell], weights: np.ndarray, blocks: list[Any], metric: str, **more: Any) -> Contrast:
        """Return the contrast of cells with these weights, in the metric's unit."""
        losses = tuple(self.values(cell, metric) for cell in cells)
        resolution = 0.0
        if not self.losses:
            halves = [np.ptp(x) / 2 if len(x) > 1 else c.printed[metric].half_unit for c, x in zip(cells, losses, strict=True)]
            resolution = float(np.abs(weights) @ halves)
            if self.noise and metric in cells[0].printed:
                resolution = max(resolution, self.noise.resolution(cells, weights, metric))
        return Contrast(
            losses=losses,
            weights=weights,
            groups=tuple(map(self.seed_group, cells)),
            blocks=tuple(blocks),
            cells=tuple(cells),
            metric=metric,
            published=not self.losses,
            resolution=resolution,
            **more,
        )

    def seed_group(self, cell: GridCell) -> Hashable:
        """Return what cells that are compared seed by seed have in common."""
        return cell.variant.seed_group if cell.variant and self.claim.paired else cell.label

    def scaled(self, amount: float, cell: GridCell, metric: str) -> float:
        """Return an amount in the paper's units as the same share of the cell's value at this scale."""
        here = abs(float(self.values(cell, metric).mean()))
        printed = abs(cell.printed[metric].value) if metric in cell.printed else 0.0
        return amount * here / printed if printed and math.isfinite(here) else float(amount)

    def values(self, cell: GridCell, metric: str) -> np.ndarray:
        """Return the losses of a cell: one per seed, or the printed number or band."""
        if self.losses and cell.variant:
            return self.losses(cell.variant, metric)
        values = np.array([cell.printed[metric].value]) if metric in cell.printed else band_edges(cell.band, metric)
        return -values if METRICS[metric].higher_is_better else values

    def _names(self, *cells: GridCell) -> tuple[str, ...]:
        axes = self.experiment.axes
        if self.experiment.quoted or "model" in axes:
            models = tuple(cell.label if cell.quoted else str(cell.coordinates["model"]) for cell in cells)
            if len(set(models)) > 1:
                return models
        # One or two axes are named completely; of more, those that differ.
        one, other = (cell.coordinates for cell in cells)
        told_by = [axis for axis in axes if len(axes) <= 2 or axis in self.claim.each or one.get(axis) != other.get(axis)]
        return tuple(settings_text(dict.fromkeys(axes) | cell.coordinates, told_by) for cell in cells)


def build_test(comparer: Comparer, cells: list[GridCell]) -> Test:
    """Return the differences that a claim comes to. It must hold in each of its groups and metrics."""
    claim = comparer.claim
    places = itertools.product(claim.groups(cells), claim.metrics)
    found = (COMPARISONS_BY_KIND[claim.kind](claim, *claim.sides(group), metric, comparer) for group, metric in places)
    return Test(tuple(itertools.chain(*found)))


def looks_of(experiment: Experiment, claim: ComparisonClaim, cells: list[GridCell], looks: tuple[int, ...]) -> tuple[int, ...]:
    """Return the numbers of seeds at which a claim is looked at: one too, if a seed for each cell can decide it by design."""
    one_seed = build_test(Comparer(experiment, claim, lambda variant, metric: np.ones(1)), cells)
    return (1, *looks) if looks and looks[0] > 1 and one_seed.testable else looks


def band_edges(band: PublishedBand | None, metric: str) -> np.ndarray:
    """Return a metric of the lowest and the highest curve of a band, smaller value first; empty if the band has no such metric.

    The metric of the curve itself is that of the last epoch. Steps to learn are counted on the test error, at its common error.
    """
    if band is None:
        return np.array([])
    edges = (np.array(list(edge.values())) for edge in (band.low, band.high))
    if metric == band.metric:
        return np.sort([edge[-1] for edge in edges])
    if METRICS[metric].source == f"test_{band.metric}":
        return np.sort([curves.BY_EVALUATION[metric](edge) for edge in edges])
    if metric == "steps_to_learn" and band.steps_per_epoch and band.common_error:
        return np.sort([_steps_to_learn(edge, band.steps_per_epoch, band.common_error) for edge in (band.low, band.high)])
    return np.array([])


def _steps_to_learn(edge: dict[int, float], steps_per_epoch: int, error: float) -> float:
    """Return the steps to learn of an edge of a band, by the epochs after which its error is known."""
    steps = steps_per_epoch * (1 + np.array(list(edge)))
    return curves.steps_to_learn(steps, np.array(list(edge.values())), error, int(steps[-1]))


def compared_cells(claim: ComparisonClaim, cells: list[GridCell]) -> list[GridCell]:
    """Return all cells that a claim compares; a cell once for each of its groups."""
    return [cell for group in claim.groups(cells) for side in claim.sides(group) for cell in side]


Cells = list[GridCell]
Eithers = tuple[Either, ...]


def _better(claim: Any, this: Cells, than: Cells, metric: str, compare: Comparer) -> Eithers:
    if claim.on_average:
        return (((on_average(claim, this, than, metric, compare),),),)
    return ((tuple(compare(a, b, metric) for a, b in itertools.product(this, than)),),)


def _optimum_in(claim: Any, inside: Cells, outside: Cells, metric: str, compare: Comparer) -> Eithers:
    return (tuple(tuple(compare(a, b, metric) for b in outside) for a in inside),)


def _as_good_as_best(claim: Any, inside: Cells, outside: Cells, metric: str, compare: Comparer) -> Eithers:
    pairs = [(a, b) for a in inside for b in [*inside, *outside] if a is not b]
    return ((tuple(compare(a, b, metric, -compare.scaled(claim.terms.margin, b, metric)) for a, b in pairs),),)


def _not_dominated(claim: Any, this: Cells, by: Cells, metric: str, compare: Comparer) -> Eithers:
    cost = claim.terms.cost
    return tuple(((compare(a, b, metric),), (compare(a, b, cost),)) for a, b in itertools.product(this, by))


def _improves_along(claim: Any, line: Cells, none: Cells, metric: str, compare: Comparer) -> Eithers:
    line = sorted(line, key=lambda cell: cell.coordinates[claim.terms])
    return ((tuple(compare(b, a, metric) for a, b in itertools.pairwise(line)),),)


def _gains(claim: Any, this: Cells, over: Cells, metric: str, compare: Comparer) -> Eithers:
    by, margin = (compare.scaled(amount, over[0], metric) for amount in (claim.terms.by, claim.terms.margin))
    return (((compare(this[0], over[0], metric, by - margin), compare(over[0], this[0], metric, -(by + margin))),),)


def _smaller_spread(claim: Any, this: Cells, than: Cells, metric: str, compare: Comparer) -> Eithers:
    """Compare spreads by the distances from the median (Brown and Forsythe)."""
    values = compare(this[0], than[0], metric)
    a, b = (_from_median(side) for side in (values.a, values.b))
    # The paper's bands are known to the digits of their edges.
    values = replace(values, resolution=min(values.resolution, 0.01))
    return (((replace(values, a=a, b=b, paired=False, seeds=(values.a, values.b)),),),)


def _from_median(values: np.ndarray) -> np.ndarray:
    """Return the distances of values from their median; a diverged run is infinitely far from it."""
    finite = np.isfinite(values)
    return np.where(finite, np.abs(values - (np.median(values[finite]) if finite.any() else 0.0)), math.inf)


COMPARISONS_BY_KIND: dict[str, Callable[[Any, Cells, Cells, str, Comparer], Eithers]] = {
    "trend": lambda *claimed: (((trend(*claimed),),),),
    "optimum": lambda *claimed: tuple(((slope,),) for slope in optimum(*claimed)),
    "better": _better,
    "optimum_in": _optimum_in,
    "as_good_as_best": _as_good_as_best,
    "not_dominated": _not_dominated,
    "improves_along": _improves_along,
    "gains": _gains,
    "smaller_spread": _smaller_spread,
}
"""For each kind of claim about cells: claim, its sides, metric and comparer to what must hold."""


Deviations = tuple[dict[str, float], str]
"""The deviation of each part by its label, and a sentence about the largest, `most`."""


def _counts_equal(claim: Any, experiment: Experiment, counts: dict[str, Any]) -> Deviations:
    terms, deviations = claim.terms, {}
    for variant in experiment.variants:
        count = counts[key(variant)]
        # A component that has no parameters by Section B has no closed form.
        counted, formula = count["weights"][terms.component], count["closed_forms"].get(terms.component, 0)
        deviations[f"{settings_text(variant.axes, variant.axes)}: {counted:,} against {formula:,}"] = abs(
            counted - formula
        ) / max(formula, 1)
    return deviations, f"counted weights are at most {{most:.1%}} from the formula (allowed: {terms.within:.0%})"


def _count_grows(claim: Any, experiment: Experiment, counts: dict[str, Any]) -> Deviations:
    terms, deviations = claim.terms, {}
    lines: dict[str, list[tuple[float, float]]] = {}
    for variant in experiment.variants:
        others = settings_text(variant.axes, (axis for axis in variant.axes if axis != terms.axis))
        count = counts[key(variant)]["parameters"][terms.component]
        lines.setdefault(others, []).append((math.log(variant.axes[terms.axis]), math.log(count)))
    for name, line in lines.items():
        if len(line) > 1:
            exponent = float(linregress(*zip(*line, strict=True)).slope)
            deviations[f"{name}: exponent {exponent:.3f}"] = abs(exponent - terms.exponent)
    return deviations, f"the exponent is at most {{most:.3f}} from {terms.exponent:g} (allowed: {terms.within:g})"


DEVIATIONS_BY_KIND: dict[str, Callable[[Any, Experiment, dict[str, Any]], Deviations]] = {
    "counts_equal": _counts_equal,
    "count_grows": _count_grows,
}
"""For each kind of claim about counts: claim, experiment and counts to the deviations from it."""
