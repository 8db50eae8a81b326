"""Figures of an experiment's cells: heatmap, lines, bars, dots, and the growth of its parameter counts."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from stlight.analysis.evidence import key
from stlight.analysis.figures.style import COLOURS, LINES, MARKERS, write_powers
from stlight.analysis.notes import UNLEARNT
from stlight.analysis.tables import as_shown, is_best
from stlight.analysis.text import axis_text, field_label, settings_text
from stlight.analysis.values import Values
from stlight.experiments.figure_types import BarsFigure, DotsFigure, GrowthFigure, HeatmapFigure, LinesFigure
from stlight.registry.metric_specs import COUNTED_METRICS, METRICS
from stlight.registry.model_specs import OURS


def draw_heatmap(options: HeatmapFigure, values: Values) -> Figure:
    """Draw the published and the measured grid, each with its own colour range; the best cell is framed, its ties dotted."""
    x, y, spec = options.x, options.y, METRICS[options.metric]
    cells = values.cells[values.cells["metric"] == options.metric]
    all_tied = cells["standing"].eq("tie").all()
    figure, axes = plt.subplots(1, 2, figsize=(11, 1.6 + 0.62 * cells[y].nunique()), constrained_layout=True)
    for ax, source in zip(axes, ("published", "measured"), strict=True):
        measured = source == "measured"
        # Ranks, so that one huge value does not wash out all others; the numbers are written in the cells.
        ranked = as_shown(cells[source], options.metric).rank(ascending=not spec.higher_is_better)
        words = cells[source].map(spec.format) + _unlearnt_marks(cells) if measured else cells["printed"]
        shown = cells.assign(rank=ranked, text=words)
        ranks, texts = (shown.pivot(index=y, columns=x, values=name) for name in ("rank", "text"))
        labels = {"xticklabels": [*map(axis_text, ranks.columns)], "yticklabels": [*map(axis_text, ranks.index)]}
        shades = {"cmap": "cividis_r", "vmin": 1, "vmax": ranks.size, "cbar": False, "linewidths": 1}
        sns.heatmap(ranks, annot=texts, fmt="", annot_kws={"fontsize": 9}, ax=ax, **shades, **labels)
        ax.tick_params(axis="y", rotation=0)
        learnt = ~cells["learnt"].eq(False)
        best = cells["standing"].eq("best") & learnt if measured else is_best(cells[source], options.metric)
        tied = cells["standing"].eq("tie") & learnt & (measured and not all_tied)
        for width, line, marked in ((3.5, "-", best), (2, ":", tied)):
            for column, row in zip(cells.loc[marked, x], cells.loc[marked, y], strict=True):
                place = (list(ranks.columns).index(column), list(ranks.index).index(row))
                frame = Rectangle(place, 1, 1, fill=False, clip_on=False, color=COLOURS[1], linewidth=width, linestyle=line)
                ax.add_patch(frame)
        ax.set(title=f"{source}: {spec.arrow_label}", xlabel=field_label(x), ylabel=field_label(y))
    frames = "measured, no cell can be told from the best" if all_tied else "dotted: cannot be told from it"
    figure.supxlabel(
        f"shade: rank within each grid, darker is worse; frame: best; {frames}{_unlearnt_words(cells)}", fontsize="small"
    )
    return figure


def draw_lines(_: LinesFigure, values: Values) -> Figure:
    """Draw a row per metric, with a published and a measured panel per axis; the other axes are held at one value."""
    table, grid_axes = values.cells, values.experiment.axes
    metrics = table["metric"].unique()
    rows, columns = len(metrics), 2 * len(grid_axes)
    size = (3.4 * columns, 2.5 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, constrained_layout=True, squeeze=False)
    for i, metric in enumerate(metrics):
        for j, axis in enumerate(grid_axes):
            line = _longest_line(table[table["metric"] == metric], axis, grid_axes)
            for k, source in enumerate(("published", "measured")):
                ax, numbers = axes[i, 2 * j + k], line[source]
                ax.plot(numbers, LINES[k], marker=MARKERS[k], color=COLOURS[k], clip_on=False)
                best = is_best(numbers, metric)
                if source == "measured":
                    spread = [numbers - line["low"], line["high"] - numbers]
                    ax.errorbar(line.index, numbers, yerr=spread, fmt="none", color=COLOURS[k], capsize=3)
                    best = line["standing"].eq("best") & ~line["learnt"].eq(False)
                    for place, (value, mark) in enumerate(zip(numbers, _unlearnt_marks(line), strict=True)):
                        ax.annotate(mark, (place, value), xytext=(4, 4), textcoords="offset points")
                ax.plot(numbers[best], "*", color="black", markersize=12, zorder=3)
                ax.set(xlabel=field_label(axis), title=f"{METRICS[metric].arrow_label}, {source}")
                ax.set_xticks(line.index, [axis_text(value) for value in line[axis]])
                ax.margins(x=0.15)
    if words := _unlearnt_words(table):
        figure.supxlabel(words.lstrip("; "), fontsize="small")
    return figure


def draw_bars(_: BarsFigure, values: Values) -> Figure:
    """Draw a panel per data set: every model's published number of the first metric, and the measured one if it is trained."""
    panels = list(values.experiment.metrics)
    # A data set's first metric. The others, such as parameters and seconds, have units of their own.
    shown = values.cells[values.cells["metric"] == values.cells["dataset"].map(lambda name: values.experiment.metrics[name][0])]
    most = max(shown.groupby("dataset")[["published", "measured"]].count().sum(axis=1))
    size = (4.9 * len(panels), max(5, 1 + 0.27 * most))
    figure, axes = plt.subplots(1, len(panels), figsize=size, constrained_layout=True, squeeze=False)
    for ax, dataset in zip(axes[0], panels, strict=True):
        spec = METRICS[values.experiment.metrics[dataset][0]]
        bars = []
        for row in shown[shown["dataset"] == dataset].to_dict("records"):
            name, ours = axis_text(row["model"]), row["model"] == OURS
            look: dict[str, Any] = {"color": COLOURS[0], "hatch": "//"} if ours else {"color": "#b8c4cc"}
            if np.isfinite(row["published"]):
                words = "" if row["status"] == "quoted" else ", published"
                bars.append((row["published"], row["printed"], name + words, look))
            if np.isfinite(row["measured"]):
                words = ", measured" + (" (stand-in)" if row["data"] == "stand-in" else "")
                text = spec.format(row["measured"]) + f" {UNLEARNT}, not learnt at this scale" * (row["learnt"] is False)
                bars.append((row["measured"], text, name + words, {"color": COLOURS[1], "alpha": 1 if ours else 0.45}))
        bars.sort(key=lambda bar: bar[0], reverse=not spec.higher_is_better)
        for place, (value, text, _name, look) in enumerate(bars):
            ax.bar_label(ax.barh(place, value, edgecolor="white", **look), [text], padding=3, fontsize="x-small")
        ax.set_yticks(range(len(bars)), [bar[2] for bar in bars])
        lengths = [bar[0] for bar in bars]
        if max(lengths) > 10 * min(lengths):
            ax.set(xscale="log", xlim=(min(lengths) / 2, max(lengths) * 4))
            write_powers(ax.xaxis)
        ax.margins(x=0.2)
        ax.set(title=f"{dataset}: {spec.arrow_label}")
        sns.despine(ax=ax)
    return figure


def draw_dots(_: DotsFigure, values: Values) -> Figure:
    """Draw a panel per data set and metric that is measured: each variant's mean with its interval and every seed."""
    cells = values.cells[~values.cells["metric"].isin(COUNTED_METRICS) & (values.cells["status"] != "quoted")]
    groups = list(cells.groupby("dataset", sort=False))
    heights = [of_dataset["variant"].nunique() + 1.5 for _, of_dataset in groups]
    columns = max(of_dataset["metric"].nunique() for _, of_dataset in groups)
    layout: dict[str, Any] = {"figsize": (4.8 * columns, 1.1 + 0.45 * sum(heights)), "height_ratios": heights}
    figure, axes = plt.subplots(len(groups), columns, constrained_layout=True, squeeze=False, **layout)
    for row, (dataset, of_dataset) in zip(axes, groups, strict=True):
        stand_in = ", stand-in" if of_dataset["data"].eq("stand-in").any() else ""
        for ax, (metric, of_metric) in zip(row, of_dataset.groupby("metric", sort=False), strict=False):
            for place, cell in enumerate(of_metric.to_dict("records")):
                ax.plot(cell["values"], [place + 0.18] * cell["n"], "|", color=COLOURS[0], alpha=0.6, markersize=7)
                filled = "none" if cell["learnt"] is False else "full"
                ax.plot(cell["measured"], place, MARKERS[0], color=COLOURS[0], fillstyle=filled)
                ax.hlines(place, cell["low"], cell["high"], color=COLOURS[0], linewidth=1.5)
                ax.plot(cell["published"], place, MARKERS[3], color=COLOURS[1], fillstyle="none")
            ax.set_yticks(range(len(of_metric)), of_metric["variant"] if ax is row[0] else [""] * len(of_metric))
            ax.set(title=f"{dataset}{stand_in}: {METRICS[str(metric)].arrow_label}", ylim=(len(of_metric) - 0.5, -0.5))
            ax.grid(axis="y", linewidth=0.4)
            sns.despine(ax=ax, left=True)
    for ax in axes.flat:
        ax.set_visible(ax.has_data())
    hollow = "; hollow: not learnt, no better than a trivial predictor" * bool(cells["learnt"].eq(False).any())
    figure.supxlabel(f"dot: mean; line: 95 % interval; ticks: seeds{hollow}", fontsize="small")
    return figure


def draw_growth(_: GrowthFigure, values: Values) -> Figure:
    """Draw the counted parameters of each component as markers on the lines of their closed forms (Section B)."""
    grid_axes = values.experiment.axes
    size = (5.2 * len(grid_axes), 4.6)
    figure, axes = plt.subplots(1, len(grid_axes), figsize=size, constrained_layout=True, squeeze=False)
    components = ("mixers", "patch_encoder", "patch_reassemble")
    table = pd.DataFrame(
        variant.axes | {"count": values.evidence.counts[key(variant)]} for variant in values.experiment.variants
    )
    for ax, axis in zip(axes[0], grid_axes, strict=True):
        line = _longest_line(table, axis, grid_axes)
        for i, component in enumerate(components):
            ax.plot(line[axis], [count["closed_forms"][component] for count in line["count"]], LINES[i], color=COLOURS[i])
            counted = [count["parameters"][component] for count in line["count"]]
            ax.plot(line[axis], counted, MARKERS[i], color=COLOURS[i], label=component.replace("_", " "))
        held = settings_text(line.iloc[0], [a for a in grid_axes if a != axis], equals=" ")
        ax.set(xlabel=field_label(axis), ylabel="parameters", xscale="log", yscale="log", title=held)
        ax.set_xticks(line[axis], [axis_text(value) for value in line[axis]])
        write_powers(ax.yaxis)
        ax.minorticks_off()
        sns.despine(ax=ax)
    ax.legend(title="markers: counted\nlines: closed form", frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _unlearnt_marks(cells: pd.DataFrame) -> "pd.Series[str]":
    """Return the mark of an unlearnt cell for each row that is one."""
    return cells["learnt"].map(lambda learnt: f" {UNLEARNT}" if learnt is False else "")


def _unlearnt_words(cells: pd.DataFrame) -> str:
    """Return what the mark means, if a row has it."""
    return f"; {UNLEARNT}: not learnt, no better than a trivial predictor" * bool(cells["learnt"].eq(False).any())


def _longest_line(table: pd.DataFrame, axis: str, axes: list[str]) -> pd.DataFrame:
    """Return the points that differ along one axis only, at the setting of the others that has most of them."""
    others = [a for a in axes if a != axis]
    groups = [group for _, group in table.groupby(others, sort=False)] if others else [table]
    line = max(groups, key=lambda group: group[axis].nunique())
    # Numbers in ascending order; names in the order of the experiment's file.
    numeric = pd.api.types.is_numeric_dtype(line[axis])
    return (line.sort_values(axis) if numeric else line).reset_index(drop=True)
