"""The differences that a claim comes to: what must be above zero for it to hold, and what for it to fail."""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from stlight.analysis.text import METRIC_LABELS, axis_text, field_label, is_higher_better, number
from stlight.analysis.verdicts.statistics import Difference, Test
from stlight.experiments import Experiment
from stlight.experiments.claims import Cell, Claim, cells_of, groups, sides, with_metrics
from stlight.experiments.yaml_files import half_unit


def claimed_cells(experiment: Experiment, claim: Claim) -> list[Cell]:
    """The cells that a claim may speak of."""
    metrics = {m for names in experiment.metrics.values() for m in names}
    return with_metrics(claim, cells_of(experiment.variants, experiment.published, experiment.quoted, metrics))


def compared_cells(claim: Claim, group: list[Cell]) -> tuple[list[Cell], ...]:
    """All cells that a claim compares within one of its groups."""
    return ([c for c in group if not c.quoted],) if claim.kind == "improves_along" else sides(claim, group)


def build_test(
    experiment: Experiment,
    claim: Claim,
    cells: list[Cell],
    values: Callable[[Cell, str], np.ndarray],
    paired: Callable[[Cell, str], bool],
    printed: bool = False,
) -> Test:
    """The differences that a claim comes to. `values` gives the numbers of a cell, one for each seed, as they are printed.

    `paired` says whether a cell is compared with others seed by seed. `printed`: they are the paper's, rounded to the digits
    it prints.
    """

    def losses(cell: Cell, metric: str) -> np.ndarray:
        found = values(cell, metric)
        return -found if is_higher_better(metric) else found

    def difference(better: Cell, worse: Cell, metric: str, threshold: float = 0.0) -> Difference:
        a, b = losses(better, metric), losses(worse, metric)
        shown = [c.printed[metric] if printed else _mean(v, metric) for c, v in ((better, a), (worse, b))]
        # Of many axes those that matter here; a place on one or two is told whole.
        matter = [a for a in experiment.axes if a in claim.each or better.place.get(a) != worse.place.get(a)]
        told = experiment.axes if len(experiment.axes) <= 2 else matter
        names = [_name(experiment, cell, told) for cell in (better, worse)]
        label = f"{metric_name(metric)} {shown[0]} ({names[0]}) against {shown[1]} ({names[1]})"
        if threshold:
            least = f"better by more than {threshold:.3g}" if threshold > 0 else f"no worse than by {-threshold:.3g}"
            label += f", {least}"
        resolution = max(half_unit(cell.printed[metric]) for cell in (better, worse)) if printed else 0.0
        return Difference(a, b, paired(better, metric), threshold, resolution, label, metric)

    holds: list[tuple[tuple[Difference, ...], ...]] = []
    fails: list[tuple[Difference, ...]] = []
    for group, metric in itertools.product(groups(claim, cells), claim.metrics):
        for_it, against = _KINDS[claim.kind](claim, group, metric, difference, losses)
        holds.append(tuple(for_it))
        fails += against
    return Test(tuple(holds), tuple(fails))


Groups = list[tuple[Difference, ...]]
Compare = Callable[..., Difference]
Losses = Callable[[Cell, str], np.ndarray]


def _better(claim: Claim, group: list[Cell], metric: str, compare: Compare, _: Losses) -> tuple[Groups, Groups]:
    pairs = list(itertools.product(*sides(claim, group)))
    return [tuple(compare(a, b, metric) for a, b in pairs)], [(compare(b, a, metric),) for a, b in pairs]


def _optimum_in(claim: Claim, group: list[Cell], metric: str, compare: Compare, _: Losses) -> tuple[Groups, Groups]:
    inside, outside = sides(claim, group)
    return (
        [tuple(compare(a, b, metric) for b in outside) for a in inside],
        [tuple(compare(b, a, metric) for a in inside) for b in outside],
    )


def _as_good_as_best(claim: Claim, group: list[Cell], metric: str, compare: Compare, _: Losses) -> tuple[Groups, Groups]:
    inside, outside = sides(claim, group)
    pairs = [(a, b) for a in inside for b in [*inside, *outside] if a is not b]

    def margin(cell: Cell) -> float:
        return _in_proportion(claim.terms["margin"], cell, metric, compare)

    return (
        [tuple(compare(a, b, metric, -margin(b)) for a, b in pairs)],
        [(compare(b, a, metric, margin(b)),) for a, b in pairs],
    )


def _improves_along(claim: Claim, group: list[Cell], metric: str, compare: Compare, _: Losses) -> tuple[Groups, Groups]:
    line = sorted((cell for cell in group if not cell.quoted), key=lambda cell: cell.place[claim.terms])
    steps = list(itertools.pairwise(line))
    return [tuple(compare(b, a, metric) for a, b in steps)], [(compare(a, b, metric),) for a, b in steps]


def _gains(claim: Claim, group: list[Cell], metric: str, compare: Compare, _: Losses) -> tuple[Groups, Groups]:
    (this,), (over,) = sides(claim, group)
    by, margin = (_in_proportion(claim.terms[key], over, metric, compare) for key in ("by", "margin"))
    more, less = compare(this, over, metric, by - margin), compare(over, this, metric, -(by + margin))
    return (
        [(more, less)],
        [(compare(over, this, metric, margin - by),), (compare(this, over, metric, by + margin),)],
    )


def _smaller_spread(claim: Claim, group: list[Cell], metric: str, compare: Compare, losses: Losses) -> tuple[Groups, Groups]:
    (this,), (than,) = sides(claim, group)

    def deviations(one: Cell, other: Cell) -> Difference:
        # Brown and Forsythe: spreads are compared by the distances from the median.
        compared = compare(one, other, metric)
        a, b = _distances(compared.a), _distances(compared.b)
        names = compared.label.replace(f"{metric_name(metric)} ", "", 1).split(" against ")
        cells = [name.partition(" (")[2].rstrip(")") for name in names]
        shown = [f"{float(side.mean()):.3g} ({cell})" for side, cell in zip((a, b), cells, strict=True)]
        label = f"mean distance of {metric_name(metric)} from its median {shown[0]} against {shown[1]}"
        return replace(compared, a=a, b=b, paired=False, label=label, shown=(compared.a, compared.b))

    return [(deviations(this, than),)], [(deviations(than, this),)]


def _distances(values: np.ndarray) -> np.ndarray:
    """From their median; a run that diverged is infinitely far from any."""
    finite = np.isfinite(values)
    return np.where(finite, np.abs(values - (np.median(values[finite]) if finite.any() else 0.0)), math.inf)


_KINDS: dict[str, Callable[[Claim, list[Cell], str, Compare, Losses], tuple[Groups, Groups]]] = {
    "better": _better,
    "optimum_in": _optimum_in,
    "as_good_as_best": _as_good_as_best,
    "improves_along": _improves_along,
    "gains": _gains,
    "smaller_spread": _smaller_spread,
}


def _in_proportion(amount: float, cell: Cell, metric: str, compare: Compare) -> float:
    """An amount in the paper's units, in the units of this scale: the same share of the cell it is measured against."""
    here, printed = abs(float(compare(cell, cell, metric).b.mean())), abs(cell.published.get(metric, 0.0))
    return amount * here / printed if printed and math.isfinite(here) else float(amount)


def _name(experiment: Experiment, cell: Cell, axes: list[str]) -> str:
    """What a reader calls a cell beside another: its model, or its place on the axes that matter there."""
    if cell.quoted:
        return cell.label
    if experiment.quoted or "model" in experiment.axes:
        return str(cell.place["model"])
    return ", ".join(f"{field_label(axis)} = {axis_text(axis, cell.place[axis])}" for axis in axes)


def metric_name(metric: str) -> str:
    """What a reader calls a metric, without its arrow."""
    return METRIC_LABELS[metric].rstrip(" ↓↑")


def _mean(losses: np.ndarray, metric: str) -> str:
    value = float(losses.mean())
    return "diverged" if math.isinf(value) else number(-value if is_higher_better(metric) else value, metric)
