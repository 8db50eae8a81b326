"""Heatmaps of a metric by two axes: published and measured side by side."""

from typing import Any

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from stlight.analysis.tables import as_shown, is_best
from stlight.analysis.text import axis_text, field_label
from stlight.analysis.values import Values
from stlight.experiments.figure_types import HeatmapFigure
from stlight.registry.metric_specs import METRICS


def draw_heatmap(options: HeatmapFigure, values: Values) -> Figure:
    """Draw both grids, each with its own colour range; the best cell is framed, its ties dotted."""
    x, y, metric, spec = options.x, options.y, options.metric, METRICS[options.metric]
    cells = values.cells[values.cells["metric"] == metric]
    standing = cells["standing"]
    all_tied = standing.eq("tie").all()
    figure, axes = plt.subplots(1, 2, figsize=(11, 1.6 + 0.62 * cells[y].nunique()), constrained_layout=True)
    for ax, source in zip(axes, ("published", "measured"), strict=True):
        grid = cells.pivot(index=y, columns=x, values=source)
        # Ranks, so that one huge value does not wash out all others; the numbers are written in the cells.
        ranks = as_shown(grid.stack(), metric).rank(ascending=not spec.higher_is_better).unstack().reindex_like(grid)
        measured = source == "measured"
        text = grid.map(spec.format) if measured else cells.pivot(index=y, columns=x, values="printed")
        shades = {"cmap": "cividis_r", "vmin": 1, "vmax": ranks.size, "cbar": False, "linewidths": 1}
        sns.heatmap(ranks, annot=text, fmt="", annot_kws={"fontsize": 9}, ax=ax, **shades)
        best = standing == "best" if measured else is_best(cells[source], metric)
        tied = (standing == "tie") & (measured and not all_tied)
        for index in cells.index[best | tied]:
            row, column = list(grid.index).index(cells.loc[index, y]), list(grid.columns).index(cells.loc[index, x])
            frame: dict[str, Any] = {"edgecolor": "#d1662b", "linewidth": 2, "linestyle": ":"}
            if best[index]:
                frame |= {"linewidth": 3.5, "linestyle": "-"}
            ax.add_patch(Rectangle((column, row), 1, 1, fill=False, clip_on=False, **frame))
        ax.set(title=f"{source}: {spec.arrow_label}", xlabel=field_label(x), ylabel=field_label(y))
        ax.set_xticklabels([axis_text(value) for value in grid.columns])
        ax.set_yticklabels([axis_text(value) for value in grid.index], rotation=0)
    frames = "measured, no cell can be told from the best" if all_tied else "dotted: cannot be told from it"
    figure.supxlabel(f"shade: rank within each grid, darker is worse; frame: best; {frames}", fontsize="small")
    return figure
