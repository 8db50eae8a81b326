"""Figures of an experiment, raster and vector. One function for each kind; meaning is never carried by colour alone."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")  # Before pyplot: jobs have no display.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Annotation
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox

from stlight.analysis.aggregate import (
    best_variants,
    load_counts,
    load_history,
    load_records,
    values_by_seed,
)
from stlight.analysis.tables import as_shown, is_best
from stlight.analysis.text import METRIC_LABELS, axis_text, field_label, is_higher_better, number
from stlight.experiments import Experiment, Scale
from stlight.registry.metric_specs import COUNTED_METRICS
from stlight.registry.model_specs import OURS

# Distinct in hue (for the colour-blind), in lightness (for greyscale), in marker and in line.
COLOURS = ["#0b3c5d", "#d1662b", "#5aa469", "#a05195"]
MARKERS = ["o", "s", "^", "D"]
LINES = ["-", "--", ":", "-."]

_STRIP_FRAMES = 20


def write_figures(experiment: Experiment, scale: Scale, table: pd.DataFrame, folder: Path, into: Path | None = None) -> None:
    """Draw figures/<item> (PNG, SVG, PDF) and, for an experiment that trains, examples/<item> (PNG, SVG), under the results."""
    # Fonts go into the files: as outlines into SVG, as TrueType into PDF.
    fonts = {"svg.fonttype": "path", "pdf.fonttype": 42}
    # Names within an SVG come from here, so that drawing the same numbers twice gives the same file.
    sns.set_theme(context="notebook", style="ticks", font_scale=0.9, rc=fonts | {"svg.hashsalt": experiment.name})
    figure = KINDS[experiment.figure["kind"]](experiment, table, folder)
    stand_in = any(variant.config.data.source == "stand_in" for variant in experiment.variants)
    note = f"scale {scale.name}, with stand-in data" if experiment.train and stand_in else f"scale {scale.name}"
    figure.suptitle(f"{experiment.item}: {experiment.title} ({note})", fontsize="large")
    _save(figure, (into or folder) / "figures" / experiment.name, (".png", ".svg", ".pdf"))
    if experiment.train:
        _save(_examples(experiment, table, folder), (into or folder) / "examples" / experiment.name, (".png", ".svg"))


def _save(figure: Figure, path: Path, suffixes: tuple[str, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.canvas.draw()
    # Laid out once: both files look alike, and the second costs half.
    figure.set_layout_engine("none")
    dates: dict[str, dict[str, Any]] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    for suffix in suffixes:
        # No date in the file: drawing the same numbers twice gives the same picture.
        metadata = dates.get(suffix)
        figure.savefig(path.with_name(path.name + suffix), dpi=130, metadata=metadata)
    plt.close(figure)


def _heatmap(experiment: Experiment, table: pd.DataFrame, folder: Path) -> Figure:
    """Published and measured side by side, each with its own colour range; the best cell framed."""
    x, y, metric = (experiment.figure[key] for key in ("x", "y", "metric"))
    cells = table[table["metric"] == metric]
    figure, axes = plt.subplots(1, 2, figsize=(11, 1.6 + 0.62 * cells[y].nunique()), constrained_layout=True)
    for ax, source in zip(axes, ("published", "measured"), strict=True):
        grid = cells.pivot(index=y, columns=x, values=source)
        # Ranks, so that one huge value does not wash out all others; the numbers are written in the cells.
        shown = as_shown(grid.stack(), metric)
        ranks = shown.rank(ascending=not is_higher_better(metric)).unstack().reindex_like(grid)
        text = (
            cells.pivot(index=y, columns=x, values="printed")
            if source == "published"
            else grid.map(lambda v: number(v, metric))
        )
        shades = {"cmap": "cividis_r", "vmin": 1, "vmax": ranks.size, "cbar": False, "linewidths": 1}
        sns.heatmap(ranks, annot=text, fmt="", annot_kws={"fontsize": 9}, ax=ax, **shades)
        best, tied = is_best(cells[source], metric), cells["standing"] == "tie"
        if source == "measured":
            best = cells["standing"] == "best"
        for index in cells.index[best | (tied & (source == "measured") & ~tied.all())]:
            row, column = list(grid.index).index(cells.loc[index, y]), list(grid.columns).index(cells.loc[index, x])
            style: dict[str, Any] = {
                "edgecolor": "#d1662b",
                "linewidth": 3.5 if best[index] else 2,
                "linestyle": "-" if best[index] else ":",
            }
            ax.add_patch(Rectangle((column, row), 1, 1, fill=False, clip_on=False, **style))
        ax.set(title=f"{source}: {METRIC_LABELS[metric]}", xlabel=field_label(x), ylabel=field_label(y))
        ax.set_xticklabels([axis_text(x, value) for value in grid.columns])
        ax.set_yticklabels([axis_text(y, value) for value in grid.index], rotation=0)
    none = cells["standing"].eq("tie").all()
    frames = (
        "frame: best; measured, no cell can be told from the best" if none else "frame: best; dotted: cannot be told from it"
    )
    figure.supxlabel(f"shade: rank within each grid, darker is worse; {frames}", fontsize="small")
    return figure


def _lines(experiment: Experiment, table: pd.DataFrame, folder: Path) -> Figure:
    """A row for each metric; for each axis, the others held at one value, a panel published and a panel measured."""
    metrics = list(dict.fromkeys(table["metric"]))
    figure, axes = plt.subplots(
        len(metrics),
        2 * len(experiment.axes),
        figsize=(3.4 * 2 * len(experiment.axes), 2.5 * len(metrics)),
        constrained_layout=True,
    )
    axes = np.atleast_2d(axes)
    for i, metric in enumerate(metrics):
        of_metric = table[table["metric"] == metric]
        for j, axis in enumerate(experiment.axes):
            line = _longest_line(of_metric, axis, experiment.axes)
            for k, source in enumerate(("published", "measured")):
                ax = axes[i, 2 * j + k]
                x = _places(ax, axis, line[axis])
                ax.plot(x, line[source], LINES[k], marker=MARKERS[k], color=COLOURS[k], clip_on=False)
                if source == "measured":
                    spread = [line["measured"] - line["low"], line["high"] - line["measured"]]
                    ax.errorbar(x, line["measured"], yerr=spread, fmt="none", color=COLOURS[k], capsize=3)
                best = is_best(line[source], metric) if source == "published" else line["standing"] == "best"
                ax.plot(x[best], line[source][best], "*", color="black", markersize=12, zorder=3)
                ax.set(xlabel=field_label(axis), title=f"{METRIC_LABELS[metric]}, {source}")
    return figure


def _bars(experiment: Experiment, table: pd.DataFrame, folder: Path) -> Figure:
    """A panel for each data set: every model's published number, and ours measured."""
    panels = list(experiment.metrics)
    figure, axes = plt.subplots(1, len(panels), figsize=(4.9 * len(panels), 5), constrained_layout=True, squeeze=False)
    for ax, dataset in zip(axes[0], panels, strict=True):
        metric = experiment.metrics[dataset][0]
        bars = []
        for _, row in table[table["dataset"] == dataset].iterrows():
            ours = row["model"] == OURS
            look = {"color": COLOURS[0], "hatch": "//"} if ours else {"color": "#b8c4cc"}
            bars.append((row["published"], row["printed"], f"{OURS}, published" if ours else row["model"], look))
            if ours and np.isfinite(row["measured"]):
                name = f"{OURS}, measured" + (" (stand-in)" if row["data"] == "stand-in" else "")
                bars.append((row["measured"], number(row["measured"], metric), name, {"color": COLOURS[1]}))
        bars.sort(key=lambda bar: bar[0], reverse=not is_higher_better(metric))
        for place, (value, text, _, look) in enumerate(bars):
            ax.barh(place, value, edgecolor="white", **look)
            ax.text(value, place, f" {text}", va="center", fontsize="x-small")
        ax.set_yticks(range(len(bars)), [name for _, _, name, _ in bars])
        values = [value for value, *_ in bars]
        if max(values) > 10 * min(values):
            ax.set(xscale="log", xlim=(min(values) / 2, max(values) * 4))
        else:
            ax.margins(x=0.2)
        ax.set(title=f"{dataset}: {METRIC_LABELS[metric]}")
        sns.despine(ax=ax)
    return figure


def _dots(experiment: Experiment, table: pd.DataFrame, folder: Path) -> Figure:
    """A panel for each data set and metric that is measured: each variant's mean with its interval, every seed beside it."""
    measured = {d: [m for m in metrics if m not in COUNTED_METRICS] for d, metrics in experiment.metrics.items()}
    panels = [(dataset, metric) for dataset, metrics in measured.items() for metric in metrics]
    rows = {dataset: [v for v in experiment.variants if v.dataset == dataset] for dataset in experiment.metrics}
    datasets, metrics = list(rows), max(len(names) for names in measured.values())
    figure, axes = plt.subplots(
        len(datasets),
        metrics,
        figsize=(4.8 * metrics, 1.1 + sum(0.45 * len(of_dataset) + 0.7 for of_dataset in rows.values())),
        height_ratios=[len(of_dataset) + 1.5 for of_dataset in rows.values()],
        constrained_layout=True,
        squeeze=False,
    )
    for dataset, metric in panels:
        ax = axes[datasets.index(dataset), measured[dataset].index(metric)]
        of_metric = table[table["metric"] == metric]
        for place, variant in enumerate(rows[dataset]):
            row = of_metric[(of_metric[experiment.axes] == pd.Series(variant.axes)).all(axis=1)].iloc[0]
            seeds = [float(text) for text in row["values"].split(";") if text]
            ax.plot(seeds, [place + 0.18] * len(seeds), "|", color=COLOURS[0], alpha=0.6, markersize=7)
            ax.plot(row["measured"], place, MARKERS[0], color=COLOURS[0])
            ax.hlines(place, row["low"], row["high"], color=COLOURS[0], linewidth=1.5)
            ax.plot(row["published"], place, MARKERS[3], color=COLOURS[1], fillstyle="none")
        first = ax is axes[datasets.index(dataset), 0]
        ax.set_yticks(range(len(rows[dataset])), [v.name if first else "" for v in rows[dataset]])
        stand_in = ", stand-in" if rows[dataset][0].config.data.source == "stand_in" else ""
        ax.set(title=f"{dataset}{stand_in}: {METRIC_LABELS[metric]}", ylim=(len(rows[dataset]) - 0.5, -0.5))
        ax.grid(axis="y", linewidth=0.4)
        sns.despine(ax=ax, left=True)
    for ax in axes.flat:
        ax.set_visible(ax.has_data())
    figure.supxlabel("dot: mean; line: 95 % interval; ticks: seeds", fontsize="small")
    return figure


def _curves(experiment: Experiment, table: pd.DataFrame, folder: Path) -> Figure:
    """Learning curves: every seed faint, their mean, and the band from minimum to maximum."""
    hue, metric = experiment.figure["hue"], experiment.figure["y"]
    records = load_records(experiment, folder)
    figure, ax = plt.subplots(figsize=(8, 4.8), constrained_layout=True)
    for i, variant in enumerate(experiment.variants):
        names = [variant.run_name(seed) for seed in range(experiment.seeds)]
        histories = {name: load_history(records[name], folder).set_index("epoch") for name in names if name in records}
        if not histories:
            continue
        curves = pd.DataFrame({name: history[f"test_{metric}"] for name, history in histories.items()})
        style: dict[str, Any] = {"color": COLOURS[i % 4]}
        ax.plot(curves.index, curves, linewidth=0.7, alpha=0.45, **style)
        ax.fill_between(curves.index, curves.min(axis=1), curves.max(axis=1), alpha=0.15, **style)
        diverged = [name for name in histories if records[name].status == "diverged"]
        for name in diverged:
            # Where its curve ends: from there on it is in neither the mean nor the band.
            ending = curves[name].dropna().tail(1)
            ax.plot(ending.index, ending, "x", markersize=9, **style)
        count = f"n = {len(histories)}" + (f", {len(diverged)} diverged ×" if diverged else "")
        label = f"{axis_text(hue, variant.axes[hue])} ({count})"
        ax.plot(curves.index, curves.mean(axis=1), LINES[i % 4], marker=MARKERS[i % 4], markevery=0.2, label=label, **style)
    for record in list(records.values())[:1]:
        values = [value for scores in record.trivial.values() if (value := scores.get(metric)) is not None]
        baseline = max(values) if is_higher_better(metric) else min(values)
        ax.axhline(baseline, color="grey", linewidth=1, linestyle=(0, (1, 3)), label="better trivial predictor")
    ax.set(xlabel="epoch", ylabel=f"test {METRIC_LABELS[metric]}", yscale="log")
    _plain_numbers(ax.yaxis)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(title=f"{field_label(hue)}; band: minimum to maximum", frameon=False)
    sns.despine(ax=ax)
    return figure


def _scatter(experiment: Experiment, table: pd.DataFrame, folder: Path) -> Figure:
    """A metric against the number of parameters, by a field, with equal sizes joined (Figure 2)."""
    hue, y = experiment.figure["hue"], experiment.figure["y"]
    records = load_records(experiment, folder)
    rows = []
    for variant in experiment.variants:
        names = [name for seed in range(experiment.seeds) if (name := variant.run_name(seed)) in records]
        values = values_by_seed(experiment, variant, y, records, folder)
        place = {"hue": variant.axes[hue], "size": tuple(variant.axes[a] for a in experiment.axes if a != hue)}
        rows += [place | {"num_params": records[n].num_params, "y": v} for n, v in zip(names, values, strict=True)]
    points = pd.DataFrame(rows, columns=["hue", "size", "num_params", "y"]).dropna()
    figure, ax = plt.subplots(figsize=(8, 4.8), constrained_layout=True)
    if points.empty:
        ax.text(0.5, 0.5, "no finite value (dispersion needs three epochs or more)", ha="center", transform=ax.transAxes)
        return figure
    means = points.groupby(["size", "hue"], sort=False)[["num_params", "y"]].mean()
    for size in points["size"].unique():
        pair = means.loc[size]
        ax.plot(pair["num_params"], pair["y"], color="grey", linewidth=0.8, zorder=1)
        text = " × ".join(axis_text("", value) for value in size)
        ax.annotate(text, pair.iloc[0], xytext=(4, 6), textcoords="offset points", fontsize="x-small")
    for i, value in enumerate(points["hue"].unique()):
        of_hue = points[points["hue"] == value]
        ax.scatter(of_hue["num_params"], of_hue["y"], s=14, alpha=0.4, color=COLOURS[i % 4], marker=MARKERS[i % 4])
        of_means = means.xs(value, level="hue")
        ax.scatter(
            of_means["num_params"], of_means["y"], s=70, color=COLOURS[i % 4], marker=MARKERS[i % 4], label=value, zorder=2
        )
    ax.set(xlabel="parameters at this scale", ylabel=METRIC_LABELS[y], xscale="log", ylim=(0, None))
    _plain_numbers(ax.xaxis)
    others = " × ".join(field_label(axis) for axis in experiment.axes if axis != hue)
    ax.legend(title=f"{field_label(hue)}; numbers: {others}", frameon=False)
    sns.despine(ax=ax)
    return figure


# What a model costs, for the panels of a trade-off. Time is that of an epoch, measured side by side, where the item has it.
_COSTS = {"num_params": "parameters", "benchmark_flops": "FLOPs", "seconds": "seconds of training"}


def _tradeoff(experiment: Experiment, table: pd.DataFrame, folder: Path) -> Figure:
    """A metric against what a model costs, published above and measured below, for each data set; front members filled."""
    y, datasets = experiment.figure["y"], list(experiment.metrics)
    figure, axes = plt.subplots(2 * len(datasets), 3, figsize=(15, 9 * len(datasets)), constrained_layout=True, squeeze=False)
    for row, (dataset, source) in enumerate((d, s) for d in datasets for s in ("published", "measured")):
        of_dataset = table[table["dataset"] == dataset] if "dataset" in table else table
        points = _costs_and_values(experiment, dataset, of_dataset, source, folder)
        for ax, (cost, name) in zip(axes[row], _COSTS.items(), strict=True):
            shown = points[np.isfinite(points[[cost, "y"]]).all(axis=1)]
            ax.set_visible(not shown.empty)
            if shown.empty:
                continue
            front = pareto_front(shown[cost].to_numpy(), shown["y"].to_numpy(), is_higher_better(y))
            _draw_tradeoff(ax, shown[cost], shown["y"], shown["model"], front)
            size = "" if source == "published" else " at this scale"
            name = (
                "seconds of an epoch's steps" if cost == "seconds" and "epoch_seconds" in experiment.metrics[dataset] else name
            )
            place = f"{dataset}, {source}" if len(datasets) > 1 else source
            ax.set(title=f"{place}: {METRIC_LABELS[y]} against {name}", xlabel=f"{name}{size}", ylabel=METRIC_LABELS[y])
            _few_numbers(ax.xaxis, shown[cost], cost)
    if not any(ax.get_visible() for ax in axes.flat):
        axes[0, 0].set_visible(True)
        axes[0, 0].axis("off")
        axes[0, 0].text(0.5, 0.5, "no model with both a metric and a cost yet", ha="center")
    figure.supxlabel(
        f"filled, on the dashed line: no other is at most as costly and at least as good; diamond: {OURS}", fontsize="small"
    )
    # Where names find room is known once the panels have their places.
    figure.draw_without_rendering()
    for ax in axes.flat:
        if ax.lines:
            _name_points(ax)
    return figure


def pareto_front(costs: np.ndarray, values: np.ndarray, higher_is_better: bool = False) -> np.ndarray:
    """Which points (N,) no other beats: none is at most as costly and at least as good, and one of both strictly.

    Of points alike, all are on the front or none. A point with a NaN is not on it and beats none.
    """
    losses = -values if higher_is_better else values
    front = np.zeros(len(costs), bool)
    there = np.flatnonzero(~(np.isnan(costs) | np.isnan(losses)))
    least = np.inf
    for cost in np.unique(costs[there]):
        alike = there[costs[there] == cost]
        best = losses[alike].min()
        # The cheapest has no rival, even where it is infinitely bad.
        if best < least or not front.any():
            front[alike[losses[alike] == best]] = True
        least = min(least, best)
    return front


def _costs_and_values(experiment: Experiment, dataset: str, table: pd.DataFrame, source: str, folder: Path) -> pd.DataFrame:
    """A row for each model, quoted ones too: its name, the figure's metric as `y`, and each cost; NaN where there is none."""
    records = load_records(experiment, folder)
    rows = []
    places = list(dict.fromkeys(["model", *experiment.axes]))
    for place, cells in table.groupby(places, sort=False, dropna=False):
        of_metric = cells.set_index("metric")[source].astype(float)
        of_place = dict(zip(places, place, strict=True))
        row = {"model": of_place["model"], "y": of_metric.get(experiment.figure["y"])}
        row |= {cost: of_metric.get(cost) for cost in _COSTS}
        if source == "published" and row["benchmark_flops"] == row["num_params"]:
            # A misprint (errata), which would be the front all by itself.
            row["benchmark_flops"] = None
        for variant in experiment.variants if source == "measured" else ():
            if variant.dataset == dataset and variant.axes.items() <= of_place.items():
                # Of the models whose metric it is: at a smaller scale they are not of the paper's size.
                ran = [records[n] for seed in range(experiment.seeds) if (n := variant.run_name(seed)) in records]
                row["num_params"] = np.mean([r.num_params for r in ran]) if ran else None
                row["benchmark_flops"] = np.mean([r.prediction_flops for r in ran]) if ran else None
                seconds = values_by_seed(experiment, variant, "seconds", records, folder)
                row["seconds"] = of_metric.get("epoch_seconds", np.mean(seconds) if seconds else None)
        rows.append(row)
    return pd.DataFrame(rows, columns=["model", "y", *_COSTS]).astype(dict.fromkeys(["y", *_COSTS], float))


def _draw_tradeoff(ax: Axes, x: "pd.Series[float]", y: "pd.Series[float]", names: "pd.Series[str]", front: np.ndarray) -> None:
    """Markers on a logarithmic axis and the front as a line; names stand on the points, to be moved."""
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


# Where a name may stand beside its point, the best first: offset in points, and how the text is aligned.
_ASIDE = {1: "left", 0: "center", -1: "right"}
_UP = {1: "bottom", 0: "center", -1: "top"}
_BESIDE = [
    ((radius * x, radius * y), _ASIDE[x], _UP[y])
    for radius in (9, 16, 26, 38)
    for x, y in ((1, 0), (0, 1), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))
]


def _name_points(ax: Axes) -> None:
    """Move each name to the first place beside its point where it covers no point, name or line, if there is one."""
    texts = [text for text in ax.texts if isinstance(text, Annotation)]
    points = ax.transData.transform([text.xy for text in texts])
    # Half a marker's width in pixels, about.
    taken = [Bbox.from_extents(x - 6, y - 6, x + 6, y + 6) for x, y in points]
    # The front's steps: to the right, then up or down. Three pixels to either side.
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


def _few_numbers(axis: Axis, values: "pd.Series[float]", metric: str) -> None:
    """A few numbers along a logarithmic axis, with the unit that its metric is read in."""
    span = values.max() / values.min()
    steps = (1,) if span > 30 else (1, 2, 5) if span > 4 else (1, 1.5, 2, 3, 4, 5, 6, 8)
    axis.set_major_locator(LogLocator(base=10, subs=steps, numticks=12))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: f"{value:,.6g}" if metric == "seconds" else number(value, metric))


def _growth(experiment: Experiment, table: pd.DataFrame, folder: Path) -> Figure:
    """Counted parameters of each component as markers on the lines of their closed forms."""
    counts = load_counts(experiment, folder)
    figure, axes = plt.subplots(1, len(experiment.axes), figsize=(5.2 * len(experiment.axes), 4.6), constrained_layout=True)
    for ax, axis in zip(np.atleast_1d(axes), experiment.axes, strict=True):
        line = _longest_line(table[table["metric"] == "num_params"], axis, experiment.axes)
        chosen = [
            v
            for value in line[axis]
            for v in experiment.variants
            if v.axes == line[line[axis] == value].iloc[0][experiment.axes].to_dict()
        ]
        of_line = [counts[f"{v.dataset}/{v.name}"] for v in chosen]
        for i, component in enumerate(("mixers", "patch_encoder", "patch_reassemble")):
            ax.plot(line[axis], [c["closed_forms"][component] for c in of_line], LINES[i], color=COLOURS[i])
            counted = [c["parameters"][component] for c in of_line]
            ax.plot(line[axis], counted, MARKERS[i], color=COLOURS[i], label=component.replace("_", " "))
        held = ", ".join(f"{field_label(a)} {axis_text(a, line.iloc[0][a])}" for a in experiment.axes if a != axis)
        ax.set(xlabel=field_label(axis), ylabel="parameters", xscale="log", yscale="log", title=held)
        ax.set_xticks(line[axis], [axis_text(axis, value) for value in line[axis]])
        ax.minorticks_off()
        sns.despine(ax=ax)
    ax.legend(title="markers: counted\nlines: closed form", frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _examples(experiment: Experiment, table: pd.DataFrame, folder: Path) -> Figure:
    """Context, truth and prediction of a few fixed test clips, by the best run for each data set."""
    strips = []
    for dataset, variant in best_variants(experiment, table).items():
        with np.load(folder / "runs" / variant.run_name(0) / "examples.npz", allow_pickle=False) as stored:
            clips = {name: stored[name] for name in ("context", "truth", "prediction")}
        stand_in = ", stand-in" if variant.config.data.source == "stand_in" else ""
        strips += [
            (f"{dataset}{stand_in}, clip {i}: {variant.name}", *(clips[k][i] for k in clips))
            for i in range(len(clips["truth"]))
        ]
    figure, axes = plt.subplots(
        max(1, len(strips)), 1, figsize=(13, 0.6 + 1.55 * len(strips)), constrained_layout=True, squeeze=False
    )
    for ax, strip in zip(axes[:, 0], strips, strict=False):
        _draw_strip(ax, *strip)
    if not strips:
        axes[0, 0].text(0.5, 0.5, "no run with a finite result", ha="center")
        axes[0, 0].axis("off")
    figure.suptitle(f"{experiment.item}: predictions of the best run", fontsize="large")
    return figure


def _draw_strip(ax: Axes, title: str, context: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> None:
    """Two rows of frames: context then truth above, prediction under the truth. First channel only, twenty frames at most."""
    frames = np.concatenate([context, truth])[:, 0]
    below = np.concatenate([np.full_like(context, 255), prediction])[:, 0]
    shown = np.linspace(0, len(frames) - 1, min(_STRIP_FRAMES, len(frames))).round().astype(int)
    height, width = frames.shape[1:]
    gap = np.full((height, 2), 255, np.uint8)
    rows = [np.concatenate([part for i in shown for part in (images[i], gap)], axis=1) for images in (frames, below)]
    picture = np.concatenate([rows[0], np.full((2, rows[0].shape[1]), 255, np.uint8), rows[1]])
    # Short clips are filled up, so that frames are of one size in all strips.
    picture = np.pad(picture, ((0, 0), (0, _STRIP_FRAMES * (width + 2) - picture.shape[1])), constant_values=255)
    ax.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    ax.axvline(np.searchsorted(shown, len(context)) * (width + 2) - 1.5, color="#d1662b", linewidth=1.5)
    ax.set_yticks([height / 2, 1.5 * height + 2], ["context | truth", "prediction"])
    ax.set_xticks([])
    ax.set_title(title, fontsize="small", loc="left")
    sns.despine(ax=ax, left=True, bottom=True)
    ax.tick_params(length=0)


def _plain_numbers(axis: Axis) -> None:
    """A few numbers written out along a logarithmic axis, instead of powers of ten."""
    axis.set_major_locator(LogLocator(base=10, subs=(1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 4, 5, 6, 8), numticks=12))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: f"{value:,.6g}")


def _places(ax: Axes, axis: str, values: "pd.Series[Any]") -> "pd.Series[Any]":
    """Where the values of an axis stand, with their ticks: numbers on a logarithmic scale, anything else side by side."""
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values) and (values > 0).all():
        places = values
        ax.set_xscale("log")
    else:
        places = pd.Series(range(len(values)), values.index)
        ax.margins(x=0.25)
    ax.set_xticks(places, [axis_text(axis, value) for value in values])
    ax.minorticks_off()
    return places


def _longest_line(table: pd.DataFrame, axis: str, axes: list[str]) -> pd.DataFrame:
    """The points that differ along one axis only, for the setting of the others that has most of them."""
    others = [a for a in axes if a != axis]
    groups = [group for _, group in table.groupby(others, sort=False)] if others else [table]
    line = max(groups, key=lambda group: group[axis].nunique())
    # Numbers in their order; names in the order of the experiment's file.
    return line.sort_values(axis) if pd.api.types.is_numeric_dtype(line[axis]) else line


KINDS: dict[str, Callable[[Experiment, pd.DataFrame, Path], Figure]] = {
    "heatmap": _heatmap,
    "lines": _lines,
    "bars": _bars,
    "dots": _dots,
    "curves": _curves,
    "scatter": _scatter,
    "growth": _growth,
    "tradeoff": _tradeoff,
}
