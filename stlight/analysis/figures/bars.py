"""Bars of every model's number on each data set."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from stlight.analysis.figures.style import COLOURS
from stlight.analysis.values import Values
from stlight.experiments.figure_types import BarsFigure
from stlight.registry.metric_specs import METRICS
from stlight.registry.model_specs import OURS


def draw_bars(_: BarsFigure, values: Values) -> Figure:
    """Draw a panel per data set: every model's published number, and ours measured."""
    panels = list(values.experiment.metrics)
    figure, axes = plt.subplots(1, len(panels), figsize=(4.9 * len(panels), 5), constrained_layout=True, squeeze=False)
    for ax, dataset in zip(axes[0], panels, strict=True):
        spec = METRICS[values.experiment.metrics[dataset][0]]
        bars = []
        for _, row in values.cells[values.cells["dataset"] == dataset].iterrows():
            ours = row["model"] == OURS
            look = {"color": COLOURS[0], "hatch": "//"} if ours else {"color": "#b8c4cc"}
            bars.append((row["published"], row["printed"], f"{OURS}, published" if ours else row["model"], look))
            if ours and np.isfinite(row["measured"]):
                name = f"{OURS}, measured" + (" (stand-in)" if row["data"] == "stand-in" else "")
                bars.append((row["measured"], spec.format(row["measured"]), name, {"color": COLOURS[1]}))
        bars.sort(key=lambda bar: bar[0], reverse=not spec.higher_is_better)
        for place, (value, text, _, look) in enumerate(bars):
            ax.barh(place, value, edgecolor="white", **look)
            ax.text(value, place, f" {text}", va="center", fontsize="x-small")
        ax.set_yticks(range(len(bars)), [name for _, _, name, _ in bars])
        lengths = [value for value, *_ in bars]
        if max(lengths) > 10 * min(lengths):
            ax.set(xscale="log", xlim=(min(lengths) / 2, max(lengths) * 4))
        else:
            ax.margins(x=0.2)
        ax.set(title=f"{dataset}: {spec.arrow_label}")
        sns.despine(ax=ax)
    return figure
