"""Claims about a grid as a whole, as contrasts of its cells: averages, trends and the optimum of a fitted parabola."""

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

from stlight.analysis.text import axis_text, field_label
from stlight.analysis.verdicts.contrasts import Contrast, block_weights
from stlight.analysis.verdicts.differences import CONFIDENCE
from stlight.experiments.grid_cells import GridCell
from stlight.registry.metric_specs import METRICS

if TYPE_CHECKING:
    from stlight.analysis.verdicts.comparisons import Comparer

Cells = list[GridCell]

_FAR = 50.0
"""Distance of a minimum from the stated optimum, as a logarithm, from which on it is called none."""


def on_average(claim: Any, this: Cells, than: Cells, metric: str, compare: "Comparer") -> Contrast:
    """Return by how much `than` is worse than `this`: the mean over blocks of the difference of the means of both sides."""
    cells = [*this, *than]
    blocks, side = [claim.block(cell) for cell in cells], np.array([[0.0]] * len(this) + [[1.0]] * len(than))
    weights = block_weights(side, blocks, np.ones(1))
    means = [_mean(compare, cells, np.where(side[:, 0] == one, np.abs(weights), 0.0), metric) for one in (0, 1)]
    names = tuple(_side_text(cells, other, claim.on_average) for cells, other in ((this, than), (than, this)))
    shown = [f"{METRICS[metric].format(mean)} ({name})" for mean, name in zip(means, names, strict=True)]
    over = f"{len(set(blocks))} {' and '.join(map(field_label, claim.on_average))}"
    said = f"{METRICS[metric].label} {shown[0]} against {shown[1]}, on average over {over}"
    return compare.contrast(cells, weights, blocks, metric, said=said, names=names)


def trend(claim: Any, line: Cells, none: Cells, metric: str, compare: "Comparer") -> Contrast:
    """Return how the loss changes from one value of an axis to the next, by least squares on the ranks of its values.

    Ranks, because a grid's values are chosen to be one step apart in the unit that matters, be it their logarithm or not. It is
    the mean of the slopes of all lines along the axis, with the sign that makes the claim positive.
    """
    axis = claim.terms.axis
    values = sorted({cell.coordinates[axis] for cell in line})
    ranks = np.array([[float(values.index(cell.coordinates[axis]))] for cell in line])
    blocks, sign = [claim.block(cell) for cell in line], 1.0 if claim.terms.becomes == "worse" else -1.0
    contrast = compare.contrast(line, block_weights(ranks, blocks, np.array([sign])), blocks, metric)
    lines = f", on average over {len(set(blocks))} lines" if len(set(blocks)) > 1 else ""
    change = sign * contrast.estimate * (-1 if METRICS[metric].higher_is_better else 1)
    word = "changes" if not math.isfinite(change) else "rises" if change > 0 else "falls"
    amount = f" by {abs(change):.3g}" if math.isfinite(change) else ""
    steps = f"{field_label(axis)} from {axis_text(values[0])} to {axis_text(values[-1])}"
    return replace(contrast, said=f"{METRICS[metric].label} {word}{amount} per step of {steps}{lines}")


def optimum(claim: Any, line: Cells, none: Cells, metric: str, compare: "Comparer") -> tuple[Contrast, Contrast]:
    """Return two slopes of a parabola through the logarithm of the error: down to the claimed optimum, and up from it.

    The parabola is fitted along the logarithm of the axis on each line, and the slopes are averaged over the lines. The optimum
    lies between two values if the error falls at the lower one and rises at the upper one. This inverts Fieller's interval for
    the vertex, without a ratio of two uncertain numbers. A diverged run counts as the worst finite run of the grid.
    """
    terms, blocks = claim.terms, [claim.block(cell) for cell in line]
    x = np.log([cell.coordinates[terms.axis] / terms.near for cell in line])
    powers = np.column_stack([x, x**2])

    def slope(at: float, sign: float) -> Contrast:
        weights = block_weights(powers, blocks, sign * np.array([1.0, 2 * at]))
        return _of_logarithms(compare, line, weights, blocks, metric)

    ends = slope(-math.log(terms.factor), -1.0), slope(math.log(terms.factor), 1.0)
    lowest = _vertex(slope(0.0, 1.0), slope(1.0, 1.0), terms.near)
    said = f"the parabola through log {METRICS[metric].label} is lowest at {field_label(terms.axis)} {lowest}"
    return replace(ends[0], said=said), replace(ends[1], said=said)


def _of_logarithms(compare: "Comparer", line: Cells, weights: np.ndarray, blocks: list[Any], metric: str) -> Contrast:
    """Return a contrast of logarithms of errors."""
    values = [compare.values(cell, metric) for cell in line]
    finite = np.concatenate([v[np.isfinite(v)] for v in values])
    if compare.losses is None:
        # What is known of a printed number is known of its logarithm relative to the number.
        means = np.array([v.mean() for v in values])
        resolution = compare.contrast(line, weights / means, blocks, metric).resolution
    else:
        resolution = 0.0
    contrast = compare.contrast(line, weights, blocks, metric)
    worst = finite.max() if len(finite) else math.inf
    logs = tuple(np.log(np.where(np.isfinite(losses), losses, worst)) for losses in contrast.losses)
    return replace(contrast, losses=logs, resolution=resolution, logarithmic=True)


def _vertex(at_0: Contrast, at_1: Contrast, unit: float) -> str:
    """Return where a parabola is lowest, from its slopes at 0 and 1, with Fieller's interval if that is finite."""
    curvature = at_1.estimate - at_0.estimate
    lowest = -at_0.estimate / curvature if curvature > 0 else math.inf
    if abs(lowest) > _FAR:
        return "nowhere: it has no minimum"
    found = f"{unit * math.exp(lowest):.2g}"
    low, high = vertex_interval(at_0, at_1)
    if max(abs(low), abs(high)) < _FAR:
        found += f" ({CONFIDENCE:.0%}: {unit * math.exp(low):.2g} to {unit * math.exp(high):.2g})"
    return found


def vertex_interval(at_0: Contrast, at_1: Contrast) -> tuple[float, float]:
    """Return Fieller's interval for the zero of a slope that is linear in x, from the contrasts for its values at 0 and 1.

    It holds every x at which the slope cannot be distinguished from 0; infinite if these have no bounds, NaN without repeats.
    """
    if not at_0.testable or at_0.by_ranks or at_1.by_ranks:
        return math.nan, math.nan
    # Samples of the slope at x: the slope and its variance are a line and a parabola in x.
    squares = [np.cov(zero, one)[[0, 0, 1], [0, 1, 1]] / len(zero) for zero, one in _pairs(at_0, at_1)]
    v00, v01, v11 = np.sum(squares, axis=0)
    t = float(special.stdtrit(at_0.error()[1], (1 + CONFIDENCE) / 2))
    s0, s1 = at_0.estimate, at_1.estimate - at_0.estimate
    c11, c01 = v11 - 2 * v01 + v00, v01 - v00
    a, b, c = s1**2 - t**2 * c11, 2 * (s0 * s1 - t**2 * c01), s0**2 - t**2 * v00
    if a <= 0 or b**2 < 4 * a * c:
        return -math.inf, math.inf
    root = math.sqrt(b**2 - 4 * a * c)
    return (-b - root) / (2 * a), (-b + root) / (2 * a)


def _pairs(one: Contrast, other: Contrast) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    return zip(one.samples, other.samples, strict=True)


def _mean(compare: "Comparer", cells: Cells, weights: np.ndarray, metric: str) -> float:
    """Return the weighted mean of one side, as the metric's value."""
    found = [float(w * compare.values(cell, metric).mean()) for cell, w in zip(cells, weights, strict=True) if w]
    return sum(found) * (-1 if METRICS[metric].higher_is_better else 1)


def _side_text(cells: Cells, others: Cells, averaged: list[str]) -> str:
    """Return the settings of a side that the other side does not have."""

    def settings(side: Cells) -> dict[str, list[str]]:
        axes = [axis for axis in side[0].coordinates if axis not in averaged]
        return {axis: list(dict.fromkeys(axis_text(cell.coordinates[axis]) for cell in side)) for axis in axes}

    own, other = settings(cells), settings(others)
    told = (f"{field_label(axis)} = {' or '.join(texts)}" for axis, texts in own.items() if texts != other.get(axis))
    return ", ".join(told)
