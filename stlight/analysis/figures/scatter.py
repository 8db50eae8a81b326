"""A metric against the number of parameters (Figure 2)."""

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from stlight.analysis.figures.style import COLOURS, MARKERS, write_out_numbers
from stlight.analysis.text import axis_text, field_label
from stlight.analysis.values import Values
from stlight.experiments.figure_types import ScatterFigure
from stlight.registry.metric_specs import METRICS


def draw_scatter(options: ScatterFigure, values: Values) -> Figure:
    """Draw every run by a field, with the means of equal sizes joined."""
    hue, y, experiment = options.hue, options.y, values.experiment
    others = [axis for axis in experiment.axes if axis != hue]
    rows = []
    for variant in experiment.variants:
        place = {"hue": variant.axes[hue], "size": tuple(variant.axes[axis] for axis in others)}
        for _, row in values.seeds(variant, y).iterrows():
            rows.append(place | {"num_params": values.evidence.runs[row["run"]].record.num_params, "y": row["value"]})
    points = pd.DataFrame(rows, columns=["hue", "size", "num_params", "y"]).dropna()
    figure, ax = plt.subplots(figsize=(8, 4.8), constrained_layout=True)
    if points.empty:
        ax.text(0.5, 0.5, "no finite value (dispersion needs three epochs or more)", ha="center", transform=ax.transAxes)
        return figure
    means = points.groupby(["size", "hue"], sort=False)[["num_params", "y"]].mean()
    for size in points["size"].unique():
        pair = means.loc[size]
        ax.plot(pair["num_params"], pair["y"], color="grey", linewidth=0.8, zorder=1)
        text = " × ".join(map(axis_text, size))
        ax.annotate(text, pair.iloc[0], xytext=(4, 6), textcoords="offset points", fontsize="x-small")
    for i, value in enumerate(points["hue"].unique()):
        look: dict[str, Any] = {"color": COLOURS[i % 4], "marker": MARKERS[i % 4]}
        of_hue, of_means = points[points["hue"] == value], means.xs(value, level="hue")
        ax.scatter(of_hue["num_params"], of_hue["y"], s=14, alpha=0.4, **look)
        ax.scatter(of_means["num_params"], of_means["y"], s=70, label=value, zorder=2, **look)
    ax.set(xlabel="parameters at this scale", ylabel=METRICS[y].arrow_label, xscale="log", ylim=(0, None))
    write_out_numbers(ax.xaxis)
    ax.legend(title=f"{field_label(hue)}; numbers: {' × '.join(map(field_label, others))}", frameon=False)
    sns.despine(ax=ax)
    return figure
