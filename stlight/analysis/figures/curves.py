"""Learning curves."""

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stlight.analysis.figures.style import COLOURS, LINES, MARKERS, write_out_numbers
from stlight.analysis.text import axis_text, field_label
from stlight.analysis.values import Values
from stlight.experiments.figure_types import CurvesFigure
from stlight.registry.metric_specs import METRICS


def draw_curves(options: CurvesFigure, values: Values) -> Figure:
    """Draw every seed faint, their mean, and the band from minimum to maximum."""
    hue, metric, evidence = options.hue, options.y, values.evidence
    figure, ax = plt.subplots(figsize=(8, 4.8), constrained_layout=True)
    for i, variant in enumerate(values.experiment.variants):
        runs = evidence.recorded(variant)
        if not runs:
            continue
        curves = pd.DataFrame({seed: run.history.set_index("epoch")[f"test_{metric}"] for seed, run in runs.items()})
        style: dict[str, Any] = {"color": COLOURS[i % 4]}
        ax.plot(curves.index, curves, linewidth=0.7, alpha=0.45, **style)
        ax.fill_between(curves.index, curves.min(axis=1), curves.max(axis=1), alpha=0.15, **style)
        diverged = [seed for seed, run in runs.items() if run.record.status == "diverged"]
        for seed in diverged:
            # Its curve ends here; neither the mean nor the band contains it from there on.
            ending = curves[seed].dropna().tail(1)
            ax.plot(ending.index, ending, "x", markersize=9, **style)
        count = f"n = {len(runs)}" + (f", {len(diverged)} diverged ×" if diverged else "")
        label = f"{axis_text(variant.axes[hue])} ({count})"
        ax.plot(curves.index, curves.mean(axis=1), LINES[i % 4], marker=MARKERS[i % 4], markevery=0.2, label=label, **style)
    spec = METRICS[metric]
    for record in list(evidence.records.values())[:1]:
        scores = [score for trivial in record.trivial.values() if (score := trivial.get(metric)) is not None]
        baseline = max(scores) if spec.higher_is_better else min(scores)
        ax.axhline(baseline, color="grey", linewidth=1, linestyle=(0, (1, 3)), label="better trivial predictor")
    ax.set(xlabel="epoch", ylabel=f"test {spec.arrow_label}", yscale="log")
    write_out_numbers(ax.yaxis)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(title=f"{field_label(hue)}; band: minimum to maximum", frameon=False)
    sns.despine(ax=ax)
    return figure
