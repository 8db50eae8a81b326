"""Figures of runs: learning curves, a metric against the number of parameters, and example predictions of the best run."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stlight.analysis.figures.style import COLOURS, LINES, MARKERS, write_out_numbers
from stlight.analysis.text import axis_text, field_label
from stlight.analysis.values import Values
from stlight.experiments.figure_types import CurvesFigure, ScatterFigure
from stlight.registry.metric_specs import METRICS

_STRIP_FRAMES = 20


def draw_curves(options: CurvesFigure, values: Values) -> Figure:
    """Draw every seed faint, their mean, and the band from minimum to maximum."""
    figure, ax = plt.subplots(figsize=(8, 4.8), constrained_layout=True)
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
    spec = METRICS[options.y]
    for record in list(values.evidence.records.values())[:1]:
        scores = [score for trivial in record.trivial.values() if (score := trivial.get(options.y)) is not None]
        baseline = max(scores) if spec.higher_is_better else min(scores)
        ax.axhline(baseline, color="grey", linewidth=1, linestyle=(0, (1, 3)), label="better trivial predictor")
    ax.set(xlabel="epoch", ylabel=f"test {spec.arrow_label}", yscale="log")
    write_out_numbers(ax.yaxis)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(title=f"{field_label(options.hue)}; band: minimum to maximum", frameon=False)
    sns.despine(ax=ax)
    return figure


def draw_scatter(options: ScatterFigure, values: Values) -> Figure:
    """Draw every run by a field, with the means of equal sizes joined."""
    experiment, runs = values.experiment, values.evidence.runs
    others = [axis for axis in experiment.axes if axis != options.hue]
    points = values.by_seed.query("metric == @options.y and selection == @experiment.selection").dropna(subset="value")
    points = points.assign(
        num_params=[runs[name].record.num_params for name in points["run"]],
        size=[" × ".join(map(axis_text, size)) for size in points[others].itertuples(index=False)],
    )
    figure, ax = plt.subplots(figsize=(8, 4.8), constrained_layout=True)
    if points.empty:
        ax.text(0.5, 0.5, "no finite value (dispersion needs three epochs or more)", ha="center", transform=ax.transAxes)
        return figure
    means = points.groupby(["size", options.hue], sort=False)[["num_params", "value"]].mean().reset_index()
    for size, pair in means.groupby("size", sort=False):
        ax.plot(pair["num_params"], pair["value"], color="grey", linewidth=0.8, zorder=1)
        start = pair.iloc[0]
        ax.annotate(
            str(size), (start["num_params"], start["value"]), xytext=(4, 6), textcoords="offset points", fontsize="x-small"
        )
    for i, value in enumerate(points[options.hue].unique()):
        look: dict[str, Any] = {"color": COLOURS[i % 4], "marker": MARKERS[i % 4]}
        for table, style in ((points, {"s": 14, "alpha": 0.4}), (means, {"s": 70, "label": axis_text(value), "zorder": 2})):
            of_hue = table[table[options.hue] == value]
            ax.scatter(of_hue["num_params"], of_hue["value"], **style, **look)
    ax.set(xlabel="parameters at this scale", ylabel=METRICS[options.y].arrow_label, xscale="log", ylim=(0, None))
    write_out_numbers(ax.xaxis)
    ax.legend(title=f"{field_label(options.hue)}; numbers: {' × '.join(map(field_label, others))}", frameon=False)
    sns.despine(ax=ax)
    return figure


def draw_examples(values: Values) -> Figure:
    """Draw context, truth and prediction of a few fixed test clips, by the best run on each data set."""
    strips = []
    for dataset, variant in values.best_variants().items():
        clips = values.evidence.examples(variant.run_name(0))
        stand_in = ", stand-in" if variant.config.data.source == "stand_in" else ""
        strips += [(f"{dataset}{stand_in}, clip {i}: {variant.name}", *clip) for i, clip in enumerate(zip(*clips, strict=True))]
    size = (13, 0.6 + 1.55 * len(strips))
    figure, axes = plt.subplots(max(1, len(strips)), 1, figsize=size, constrained_layout=True, squeeze=False)
    for ax, strip in zip(axes[:, 0], strips, strict=False):
        _draw_strip(ax, *strip)
    if not strips:
        axes[0, 0].text(0.5, 0.5, "no run with a finite result", ha="center")
        axes[0, 0].axis("off")
    figure.suptitle(f"{values.experiment.item}: predictions of the best run", fontsize="large")
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
