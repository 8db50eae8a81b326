"""A metric against what models cost, with the Pareto front."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import LogLocator, NullLocator
from matplotlib.transforms import Bbox

from stlight.analysis.figures.style import COLOURS
from stlight.analysis.values import Values
from stlight.experiments.figure_types import TradeoffFigure
from stlight.registry.metric_specs import METRICS
from stlight.registry.model_specs import OURS

COSTS = {"num_params": "parameters", "benchmark_flops": "FLOPs", "seconds": "seconds of training"}
"""Costs of a model, one column of panels each. The time is that of an epoch, timed side by side, if the experiment has it."""


def draw_tradeoff(options: TradeoffFigure, values: Values) -> Figure:
    """Draw published panels above measured ones for each data set; members of the front are filled."""
    metrics, spec = values.experiment.metrics, METRICS[options.y]
    figure, axes = plt.subplots(2 * len(metrics), 3, figsize=(15, 9 * len(metrics)), constrained_layout=True, squeeze=False)
    for row, (dataset, source) in enumerate((d, s) for d in metrics for s in ("published", "measured")):
        points = _published(options, values, dataset) if source == "published" else _measured(options, values, dataset)
        for ax, (cost, name) in zip(axes[row], COSTS.items(), strict=True):
            shown = points[np.isfinite(points[[cost, "y"]]).all(axis=1)]
            ax.set_visible(not shown.empty)
            if shown.empty:
                continue
            front = pareto_front(shown[cost].to_numpy(), shown["y"].to_numpy(), bool(spec.higher_is_better))
            _draw_panel(ax, shown[cost], shown["y"], shown["model"], front)
            if cost == "seconds" and "epoch_seconds" in metrics[dataset]:
                name = "seconds of an epoch's steps"
            place, size = (f"{dataset}, {source}" if len(metrics) > 1 else source), " at this scale" * (source == "measured")
            ax.set(title=f"{place}: {spec.arrow_label} against {name}", xlabel=f"{name}{size}", ylabel=spec.arrow_label)
            _few_numbers(ax.xaxis, shown[cost], cost)
    if not any(ax.get_visible() for ax in axes.flat):
        axes[0, 0].set_visible(True)
        axes[0, 0].axis("off")
        axes[0, 0].text(0.5, 0.5, "no model with both a metric and a cost yet", ha="center")
    figure.supxlabel(
        f"filled, on the dashed line: no other is at most as costly and at least as good; diamond: {OURS}", fontsize="small"
    )
    # The space for names is known once the panels are laid out.
    figure.draw_without_rendering()
    for ax in axes.flat:
        if ax.lines:
            _name_points(ax)
    return figure


def pareto_front(costs: np.ndarray, values: np.ndarray, higher_is_better: bool = False) -> np.ndarray:
    """Return which points (N,) no other beats: none is at most as costly and at least as good, and one of both strictly.

    Equal points are all on the front or none. A point with a NaN is not on it and beats none.
    """
    losses = -values if higher_is_better else values
    front = np.zeros(len(costs), bool)
    there = np.flatnonzero(~(np.isnan(costs) | np.isnan(losses)))
    least = np.inf
    for cost in np.unique(costs[there]):
        alike = there[costs[there] == cost]
        best = losses[alike].min()
        # The cheapest point has no rival, even if it is infinitely bad.
        if best < least or not front.any():
            front[alike[losses[alike] == best]] = True
        least = min(least, best)
    return front


def _points(rows: list[dict[str, object]]) -> pd.DataFrame:
    """Return a row per model: its name, the figure's metric as `y`, and each cost; NaN if unknown."""
    return pd.DataFrame(rows, columns=["model", "y", *COSTS]).astype(dict.fromkeys(["y", *COSTS], float))


def _published(options: TradeoffFigure, values: Values, dataset: str) -> pd.DataFrame:
    rows = []
    cells = values.cells[values.cells["dataset"] == dataset]
    for place, of_place in cells.groupby(values.coordinates, sort=False, dropna=False):
        numbers = of_place.set_index("metric")["published"]
        row = {"model": place[values.coordinates.index("model")], "y": numbers.get(options.y)}
        row |= {cost: numbers.get(cost) for cost in COSTS}
        if row["benchmark_flops"] == row["num_params"]:
            # A misprint (see the errata) that would be the front all by itself.
            row["benchmark_flops"] = None
        rows.append(row)
    return _points(rows)


def _measured(options: TradeoffFigure, values: Values, dataset: str) -> pd.DataFrame:
    rows = []
    seconds = "epoch_seconds" if "epoch_seconds" in values.experiment.metrics[dataset] else "seconds"
    for variant in values.variants_of(dataset):
        # The size that ran, because at a smaller scale the metric is not of the paper's size.
        records = [run.record for run in values.evidence.recorded(variant).values()]
        rows.append(
            {
                "model": variant.axes["model"],
                "y": values.mean(variant, options.y),
                "num_params": np.mean([r.num_params for r in records]) if records else None,
                "benchmark_flops": np.mean([r.prediction_flops for r in records]) if records else None,
                "seconds": values.mean(variant, seconds),
            }
        )
    return _points(rows)


def _draw_panel(ax: Axes, x: "pd.Series[float]", y: "pd.Series[float]", names: "pd.Series[str]", front: np.ndarray) -> None:
    """Draw markers on a logarithmic axis and the front as a line. Names stand on the points until `_name_points` moves them."""
    ax.set_xscale("log")
    order = np.argsort(x[front].to_numpy(), kind="stable")
    steps = (x[front].to_numpy()[order], y[front].to_numpy()[order])
    ax.plot(*steps, linestyle="--", drawstyle="steps-post", color=COLOURS[1], linewidth=1.2, zorder=1)
    for at_x, at_y, name, member in zip(x, y, names, front, strict=True):
        ours = name == OURS
        colour = COLOURS[0] if ours else COLOURS[1] if member else "#5d6a72"
        face = colour if member else "white"
        marker, size = ("D", 90) if ours else ("o", 45)
        ax.scatter(at_x, at_y, s=size, marker=marker, facecolor=face, edgecolor=colour, linewidth=1.5, zorder=2)
        text = ax.annotate(str(name), (at_x, at_y), (8, 0), textcoords="offset points", fontsize="x-small", color=colour)
        text.set(in_layout=False, fontweight="bold" if ours or member else "normal")
    ax.margins(x=0.15, y=0.12)
    sns.despine(ax=ax)


def _few_numbers(axis: Axis, values: "pd.Series[float]", metric: str) -> None:
    """Write a few numbers along a logarithmic axis, with the unit of its metric."""
    span = values.max() / values.min()
    steps = (1,) if span > 30 else (1, 2, 5) if span > 4 else (1, 1.5, 2, 3, 4, 5, 6, 8)
    axis.set_major_locator(LogLocator(base=10, subs=steps, numticks=12))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: f"{value:,.6g}" if metric == "seconds" else METRICS[metric].format(value))


# Where a name may stand beside its point, the best first: offset in points, and how the text is aligned.
_ASIDE = {1: "left", 0: "center", -1: "right"}
_UP = {1: "bottom", 0: "center", -1: "top"}
_BESIDE = [
    ((radius * x, radius * y), _ASIDE[x], _UP[y])
    for radius in (9, 16, 26, 38)
    for x, y in ((1, 0), (0, 1), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))
]


def _name_points(ax: Axes) -> None:
    """Move each annotation to the first place beside its point where it covers no point, name or the panel's first line."""
    texts = [text for text in ax.texts if isinstance(text, Annotation)]
    points = ax.transData.transform([text.xy for text in texts])
    # About half a marker's width in pixels.
    taken = [Bbox.from_extents(x - 6, y - 6, x + 6, y + 6) for x, y in points]
    # The steps of the line go right, then up or down. Three pixels to either side.
    corners = ax.transData.transform(ax.lines[0].get_xydata())
    for (x0, y0), (x1, y1) in itertools.pairwise(corners):
        taken.append(Bbox.from_extents(x0, y0 - 3, x1, y0 + 3))
        taken.append(Bbox.from_extents(x1 - 3, min(y0, y1), x1 + 3, max(y0, y1)))
    inside = ax.get_window_extent()
    for text in texts:
        tries = []
        for offset, aside, up in _BESIDE:
            text.xyann = offset
            text.set(ha=aside, va=up)
            box = text.get_window_extent()
            outside = box.x0 < inside.x0 or box.x1 > inside.x1 or box.y0 < inside.y0 or box.y1 > inside.y1
            tries.append((box.count_overlaps(taken) + 2 * outside, offset, aside, up, box))
            if not tries[-1][0]:
                break
        # The first of those that cover least.
        _, text.xyann, aside, up, box = min(tries, key=lambda tried: tried[0])
        text.set(ha=aside, va=up)
        taken.append(box)
