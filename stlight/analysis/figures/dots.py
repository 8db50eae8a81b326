"""Dots: each variant's mean with its interval and seeds."""

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.figure import Figure

from stlight.analysis.figures.style import COLOURS, MARKERS
from stlight.analysis.values import Values
from stlight.experiments.figure_types import DotsFigure
from stlight.registry.metric_specs import COUNTED_METRICS, METRICS


def draw_dots(_: DotsFigure, values: Values) -> Figure:
    """Draw a panel per data set and metric that is measured: each variant's mean with its interval and every seed."""
    measured = {d: [m for m in metrics if m not in COUNTED_METRICS] for d, metrics in values.experiment.metrics.items()}
    variants = {dataset: values.variants_of(dataset) for dataset in measured}
    columns = max(map(len, measured.values()))
    figure, axes = plt.subplots(
        len(measured),
        columns,
        figsize=(4.8 * columns, 1.1 + sum(0.45 * len(names) + 0.7 for names in variants.values())),
        height_ratios=[len(names) + 1.5 for names in variants.values()],
        constrained_layout=True,
        squeeze=False,
    )
    cells = {(cell["dataset"], cell["variant"], cell["metric"]): cell for _, cell in values.cells.iterrows()}
    for row, (dataset, metrics) in enumerate(measured.items()):
        stand_in = ", stand-in" if variants[dataset][0].config.data.source == "stand_in" else ""
        for column, metric in enumerate(metrics):
            ax = axes[row, column]
            for place, variant in enumerate(variants[dataset]):
                cell = cells[dataset, variant.name, metric]
                ax.plot(cell["values"], [place + 0.18] * cell["n"], "|", color=COLOURS[0], alpha=0.6, markersize=7)
                ax.plot(cell["measured"], place, MARKERS[0], color=COLOURS[0])
                ax.hlines(place, cell["low"], cell["high"], color=COLOURS[0], linewidth=1.5)
                ax.plot(cell["published"], place, MARKERS[3], color=COLOURS[1], fillstyle="none")
            names = [v.name if column == 0 else "" for v in variants[dataset]]
            ax.set_yticks(range(len(names)), names)
            title = f"{dataset}{stand_in}: {METRICS[metric].arrow_label}"
            ax.set(title=title, ylim=(len(names) - 0.5, -0.5))
            ax.grid(axis="y", linewidth=0.4)
            sns.despine(ax=ax, left=True)
    for ax in axes.flat:
        ax.set_visible(ax.has_data())
    figure.supxlabel("dot: mean; line: 95 % interval; ticks: seeds", fontsize="small")
    return figure
