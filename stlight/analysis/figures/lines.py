"""Lines along each axis of a grid."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from stlight.analysis.figures.style import COLOURS, LINES, MARKERS, longest_line, place_along
from stlight.analysis.tables import is_best
from stlight.analysis.text import field_label
from stlight.analysis.values import Values
from stlight.experiments.figure_types import LinesFigure
from stlight.registry.metric_specs import METRICS


def draw_lines(_: LinesFigure, values: Values) -> Figure:
    """Draw a row per metric, with a published and a measured panel per axis; the other axes are held at one value."""
    table, grid_axes = values.cells, values.experiment.axes
    metrics = list(dict.fromkeys(table["metric"]))
    size = (2 * len(grid_axes), len(metrics))
    figure, axes = plt.subplots(*reversed(size), figsize=(3.4 * size[0], 2.5 * size[1]), constrained_layout=True)
    axes = np.atleast_2d(axes)
    for i, metric in enumerate(metrics):
        for j, axis in enumerate(grid_axes):
            line = longest_line(table[table["metric"] == metric], axis, grid_axes)
            for k, source in enumerate(("published", "measured")):
                ax = axes[i, 2 * j + k]
                x = place_along(ax, line[axis])
                ax.plot(x, line[source], LINES[k], marker=MARKERS[k], color=COLOURS[k], clip_on=False)
                best = is_best(line[source], metric)
                if source == "measured":
                    spread = [line["measured"] - line["low"], line["high"] - line["measured"]]
                    ax.errorbar(x, line["measured"], yerr=spread, fmt="none", color=COLOURS[k], capsize=3)
                    best = line["standing"] == "best"
                ax.plot(x[best], line[source][best], "*", color="black", markersize=12, zorder=3)
                ax.set(xlabel=field_label(axis), title=f"{METRICS[metric].arrow_label}, {source}")
    return figure
