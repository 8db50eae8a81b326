"""A metric against what models cost, with the Pareto front."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.cbook import pts_to_poststep
from matplotlib.figure import Figure
from matplotlib.path import Path
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from stlight.analysis.figures.style import COLOURS, write_out_numbers
from stlight.analysis.text import axis_text
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
    for row, (dataset, source) in zip(axes, itertools.product(metrics, ("published", "measured")), strict=True):
        points = (_published if source == "published" else _measured)(options, values, dataset)
        for ax, (cost, name) in zip(row, COSTS.items(), strict=True):
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
            write_out_numbers(ax.xaxis, "{:,.6g}".format if cost == "seconds" else METRICS[cost].format)
    if not any(ax.get_visible() for ax in axes.flat):
        axes[0, 0].set_visible(True)
        axes[0, 0].axis("off")
        axes[0, 0].text(0.5, 0.5, "no model with both a metric and a cost yet", ha="center")
    words = f"filled, on the dashed line: no other is at most as costly and at least as good; diamond: {OURS}"
    figure.supxlabel(f"{words}; not drawn: models with a diverged run", fontsize="small")
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
    as_good = (costs[:, None] <= costs) & (losses[:, None] <= losses)
    beats = as_good & ((costs[:, None] < costs) | (losses[:, None] < losses))
    return ~(np.isnan(costs) | np.isnan(losses) | beats.any(axis=0))


def _published(options: TradeoffFigure, values: Values, dataset: str) -> pd.DataFrame:
    """Return a row per model: its name, the figure's metric as `y`, and each cost; NaN if unknown."""
    cells = values.cells[values.cells["dataset"] == dataset]
    points = cells.pivot(index=values.coordinates, columns="metric", values="published").reindex(columns=[options.y, *COSTS])
    # A misprint (see the errata) that would be the front all by itself.
    points.loc[points["benchmark_flops"] == points["num_params"], "benchmark_flops"] = np.nan
    return points.rename(columns={options.y: "y"}).reset_index()


def _measured(options: TradeoffFigure, values: Values, dataset: str) -> pd.DataFrame:
    """Return the columns of `_published` for the sizes that ran: at a smaller scale the metric is not of the paper's size."""
    seconds = "epoch_seconds" if "epoch_seconds" in values.experiment.metrics[dataset] else "seconds"
    rows = []
    for variant in values.variants_of(dataset):
        # A diverged model has no place on the axis, and must not push others off the front.
        diverged = not np.isfinite(values.losses(variant, options.y)).all()
        y = np.nan if diverged else values.mean(variant, options.y)
        row = {"model": variant.axes["model"], "y": y, "seconds": values.mean(variant, seconds)}
        for run in values.evidence.recorded(variant).values():
            row |= {"num_params": run.record.num_params, "benchmark_flops": run.record.prediction_flops}
        rows.append(row)
    return pd.DataFrame(rows, columns=["model", "y", *COSTS])


def _draw_panel(ax: Axes, x: "pd.Series[float]", y: "pd.Series[float]", names: "pd.Series[str]", front: np.ndarray) -> None:
    """Draw markers on a logarithmic axis and the front as a line. Names stand on the points until `_name_points` moves them."""
    ax.set_xscale("log")
    order = x[front].sort_values(kind="stable").index
    ax.plot(x[order], y[order], linestyle="--", drawstyle="steps-post", color=COLOURS[1], linewidth=1.2, zorder=1)
    for at_x, at_y, name, member in zip(x, y, names, front, strict=True):
        ours = name == OURS
        colour = COLOURS[0] if ours else COLOURS[1] if member else "#5d6a72"
        marker, size = ("D", 90) if ours else ("o", 45)
        face = colour if member else "white"
        ax.scatter(at_x, at_y, s=size, marker=marker, facecolor=face, edgecolor=colour, linewidth=1.5, zorder=2)
        text = ax.annotate(axis_text(name), (at_x, at_y), (8, 0), textcoords="offset points", fontsize="x-small", color=colour)
        text.set(in_layout=False, fontweight="bold" if ours or member else "normal")
    ax.margins(x=0.15, y=0.12)
    sns.despine(ax=ax)


# Where a name may stand beside its point, the best first: offset in points, and how the text is aligned.
_BESIDE = [
    ((radius * x, radius * y), ("center", "left", "right")[x], ("center", "bottom", "top")[y])
    for radius in (9, 16, 26, 38)
    for x, y in ((1, 0), (0, 1), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))
]


def _name_points(ax: Axes) -> None:
    """Move each annotation to the first place beside its point where it covers no point, name or line, or the fewest."""
    texts = [text for text in ax.texts if isinstance(text, Annotation)]
    # About half a marker's width in pixels.
    taken = [Bbox.from_extents(x - 6, y - 6, x + 6, y + 6) for x, y in ax.transData.transform([text.xy for text in texts])]
    line = Path(ax.transData.transform(pts_to_poststep(*ax.lines[0].get_data()).T))
    inside = ax.get_window_extent()
    for text in texts:
        tries = []
        for place in _BESIDE:
            box = _move(text, *place)
            outside = not (inside.contains(*box.min) and inside.contains(*box.max))
            covered = box.count_overlaps(taken) + line.intersects_bbox(box.padded(3), filled=False)
            tries.append((covered + 2 * outside, place))
            if not tries[-1][0]:
                break
        taken.append(_move(text, *min(tries, key=lambda tried: tried[0])[1]))


def _move(text: Annotation, offset: tuple[float, float], across: str, up: str) -> Bbox:
    text.xyann = offset
    text.set(ha=across, va=up)
    return text.get_window_extent()
