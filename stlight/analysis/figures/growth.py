"""Growth of the parameter counts (Section B)."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from stlight.analysis.figures.style import COLOURS, LINES, MARKERS, longest_line
from stlight.analysis.text import axis_text, field_label, settings_text
from stlight.analysis.values import Values
from stlight.experiments.figure_types import GrowthFigure


def draw_growth(_: GrowthFigure, values: Values) -> Figure:
    """Draw the counted parameters of each component as markers on the lines of their closed forms."""
    grid_axes, counts = values.experiment.axes, values.evidence.counts
    figure, axes = plt.subplots(1, len(grid_axes), figsize=(5.2 * len(grid_axes), 4.6), constrained_layout=True)
    cells = values.cells[values.cells["metric"] == "num_params"]
    for ax, axis in zip(np.atleast_1d(axes), grid_axes, strict=True):
        line = longest_line(cells, axis, grid_axes)
        of_line = [counts[f"{cell['dataset']}/{cell['variant']}"] for _, cell in line.iterrows()]
        for i, component in enumerate(("mixers", "patch_encoder", "patch_reassemble")):
            ax.plot(line[axis], [c["closed_forms"][component] for c in of_line], LINES[i], color=COLOURS[i])
            counted = [c["parameters"][component] for c in of_line]
            ax.plot(line[axis], counted, MARKERS[i], color=COLOURS[i], label=component.replace("_", " "))
        held = settings_text(line.iloc[0], [a for a in grid_axes if a != axis], equals=" ")
        ax.set(xlabel=field_label(axis), ylabel="parameters", xscale="log", yscale="log", title=held)
        ax.set_xticks(line[axis], [axis_text(value) for value in line[axis]])
        ax.minorticks_off()
        sns.despine(ax=ax)
    ax.legend(title="markers: counted\nlines: closed form", frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
