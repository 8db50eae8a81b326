"""Figures of runs: learning curves, a metric against the number of parameters, and example predictions of the best run."""

import math
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stlight.analysis.escaping import plain
from stlight.analysis.figures.style import COLOURS, LINES, MARKERS, write_out_numbers
from stlight.analysis.text import axis_text, field_label
from stlight.analysis.values import Values
from stlight.experiments.figure_types import CurvesFigure, ScatterFigure
from stlight.registry.metric_specs import METRICS

_STRIP_FRAMES = 20


def draw_curves(options: CurvesFigure, values: Values) -> Figure:
    """Draw every seed faint, their mean, and the band from minimum to maximum; the paper's bands, if any, beside them."""
    published = bool(values.experiment.curves)
    figure, axes = plt.subplots(1, 1 + published, figsize=(7 + 5 * published, 4.8), constrained_layout=True, squeeze=False)
    if published:
        _draw_published_bands(axes[0, 0], options, values)
    ax, spec = axes[0, -1], METRICS[options.y]
    for i, variant in enumerate(values.experiment.variants):
        runs = values.evidence.recorded(variant)
        if not runs:
            continue
        curves = pd.DataFrame({seed: run.history.set_index("epoch")[f"test_{options.y}"] for seed, run in runs.items()})
        style: dict[str, Any] = {"color": COLOURS[i % 4]}
        ax.plot(curves, linewidth=0.7, alpha=0.45, **style)
        ax.fill_between(curves.index, curves.min(axis=1), curves.max(axis=1), alpha=0.15, **style)
        diverged = [seed for seed, run in runs.items() if run.record.status == "diverged"]
        for seed in diverged:
            # Its curve ends here; neither the mean nor the band contains it from there on.
            ax.plot(curves[seed].dropna().tail(1), "x", markersize=9, **style)
        count = f"n = {len(runs)}" + (f", {len(diverged)} diverged ×" if diverged else "")
        label = f"{axis_text(variant.axes[options.hue])} ({count})"
        ax.plot(curves.mean(axis=1), LINES[i % 4], marker=MARKERS[i % 4], markevery=0.2, label=label, **style)
    for record in list(values.evidence.records.values())[:1]:
        scores = [score for trivial in record.trivial.values() if (score := trivial.get(options.y)) is not None]
        baseline = max(scores) if spec.higher_is_better else min(scores)
        ax.axhline(baseline, color="grey", linewidth=1, linestyle=(0, (1, 3)), label="best trivial predictor")
    ax.set_title("measured")
    for ax in axes[0]:
        ax.set(xlabel="epoch", ylabel=f"test {spec.arrow_label}")
        ax.set_yscale("log", base=2)
        write_out_numbers(ax.yaxis, base=2)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.legend(title=f"{field_label(options.hue)}; band: minimum to maximum", frameon=False)
        sns.despine(ax=ax)
    return figure


def _draw_published_bands(ax: Axes, options: CurvesFigure, values: Values) -> None:
    for i, variant in enumerate(values.experiment.variants):
        if band := values.experiment.band(variant):
            edges = pd.DataFrame({"low": band.low, "high": band.high}).sort_index()
            # Epochs count from 1, as in the runs' histories.
            edges.index += 1
            style: dict[str, Any] = {"color": COLOURS[i % 4]}
            ax.fill_between(edges.index, edges["low"], edges["high"], alpha=0.25, **style)
            ax.plot(edges["high"], LINES[i % 4], linewidth=1, **style)
            ax.plot(edges["low"], LINES[i % 4], linewidth=1, label=axis_text(variant.axes[options.hue]), **style)
    ax.set_title("published")


def draw_scatter(options: ScatterFigure, values: Values) -> Figure:
    """Draw a metric against the mean parameters of each size, one line for each value of an axis; the paper's beside it."""
    experiment, runs = values.experiment, values.evidence.runs
    others = [axis for axis in experiment.axes if axis != options.hue]
    cells = values.cells.query("metric == @options.y")
    counted = {(variant.dataset, variant.name): values.mean(variant, "num_params") for variant in experiment.variants}
    cells = cells.assign(
        size=[" × ".join(map(axis_text, size)) for size in cells[others].itertuples(index=False)],
        published_x=[counted.get(place, math.nan) for place in zip(cells["dataset"], cells["variant"], strict=True)],
        measured_x=[
            float(np.mean([runs[name].record.num_params for name in names])) if names else math.nan for names in cells["runs"]
        ],
    )
    sources = ["published", "measured"] if cells[["published", "published_x"]].notna().all(axis=1).any() else ["measured"]
    figure, axes = plt.subplots(1, len(sources), figsize=(2 + 5 * len(sources), 4.8), constrained_layout=True, squeeze=False)
    for ax, source in zip(axes[0], sources, strict=True):
        ax.set(title=source, ylabel=METRICS[options.y].arrow_label)
        ax.set_xlabel("mean parameters" if source == "published" else "mean parameters at this scale")
        known = cells.dropna(subset=[source, f"{source}_x"])
        if known.empty:
            ax.text(0.5, 0.5, "no finite value (dispersion needs three epochs or more)", ha="center", transform=ax.transAxes)
            continue
        # Values of the hue are compared at one place: the mean of their parameters, as the paper has it.
        places: pd.Series[float] = known.groupby("size", sort=False)[f"{source}_x"].mean()
        for i, value in enumerate(known[options.hue].unique()):
            style: dict[str, Any] = {"color": COLOURS[i % 4], "marker": MARKERS[i % 4]}
            line = known[known[options.hue] == value].drop_duplicates("size").set_index("size")
            line = line.loc[places.loc[line.index].sort_values().index]
            ax.plot(places[line.index], line[source], LINES[i % 4], label=axis_text(value), **style)
            for size, seeds in zip(line.index, line["values"], strict=True):
                if source == "measured" and len(seeds) > 1:
                    ax.scatter([places[size]] * len(seeds), seeds, s=14, alpha=0.4, **style)
        # Sizes that a scale makes equal have one place and one label, that of the first.
        labels = (
            known.assign(x=places.loc[known["size"]].to_numpy()).groupby("x", sort=False).agg({"size": "first", source: "max"})
        )
        for x, size, y in labels.itertuples():
            ax.annotate(size, (x, y), xytext=(0, 6), textcoords="offset points", fontsize="x-small", rotation=60)
        ax.set(xscale="log", ylim=(0, 1.35 * known[source].max()))
        write_out_numbers(ax.xaxis, METRICS["num_params"].format)
        ax.legend(title=f"{field_label(options.hue)}; numbers: {' × '.join(map(field_label, others))}", frameon=False)
        sns.despine(ax=ax)
    return figure


def draw_examples(values: Values) -> Figure:
    """Draw context, truth and prediction of a few fixed test clips, by the best run on each data set."""
    strips = []
    for dataset, variant in values.best_variants().items():
        first = min(values.evidence.recorded(variant))
        clips = values.evidence.examples(variant.run_name(first))
        stand_in = ", stand-in" if variant.config.data.source == "stand_in" else ""
        strips += [(f"{dataset}{stand_in}, clip {i}: {variant.name}", *clip) for i, clip in enumerate(zip(*clips, strict=True))]
    size = (13, 0.6 + 1.55 * len(strips))
    figure, axes = plt.subplots(max(1, len(strips)), 1, figsize=size, constrained_layout=True, squeeze=False)
    for ax, strip in zip(axes[:, 0], strips, strict=False):
        _draw_strip(ax, *strip)
    if not strips:
        axes[0, 0].text(0.5, 0.5, "no run with a finite result", ha="center")
        axes[0, 0].axis("off")
    figure.suptitle(plain(f"{values.experiment.item}: predictions of the best run"), fontsize="large")
    return figure


def _draw_strip(ax: Axes, title: str, context: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> None:
    """Draw two rows of frames: context and truth above, prediction under the truth. First channel, at most twenty frames."""
    above = np.concatenate([context, truth])[:, 0]
    below = np.concatenate([np.full_like(context, 255), prediction])[:, 0]
    shown = np.linspace(0, len(above) - 1, min(_STRIP_FRAMES, len(above))).round().astype(int)
    # Two white pixels right of and below each frame. Short clips are padded, so that frames have one size in all strips.
    frames = np.pad(
        np.stack([above, below])[:, shown], ((0, 0), (0, _STRIP_FRAMES - len(shown)), (0, 2), (0, 2)), constant_values=255
    )
    height, width = frames.shape[2:]
    ax.imshow(frames.transpose(0, 2, 1, 3).reshape(2 * height, -1), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    ax.axvline(np.searchsorted(shown, len(context)) * width - 1.5, color=COLOURS[1], linewidth=1.5)
    ax.set_yticks([height / 2, 1.5 * height], ["context | truth", "prediction"])
    ax.set_xticks([])
    ax.set_title(title, fontsize="small", loc="left")
    sns.despine(ax=ax, left=True, bottom=True)
    ax.tick_params(length=0)
