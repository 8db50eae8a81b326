"""Compare any two cells of an experiment by the suite's own tests, and summarize their curves, for the page's comparison."""

import itertools
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from stlight.analysis.text import settings_text
from stlight.analysis.values import Values
from stlight.analysis.verdicts.differences import Difference
from stlight.experiments import Variant
from stlight.registry.metric_specs import METRICS

Rows = dict[tuple[str, str], dict[Any, Any]]

MOST_CELLS = 40
"""Cells of an experiment and data set of which all pairs are on the page: 780 pairs for each metric."""

MOST_POINTS = 40
"""Points of a curve on the page. A longer curve shows the mean, the lowest and the highest value of equally many epochs."""


def comparisons(values: Iterable[Values]) -> dict[str, Any]:
    """Return all pairs of cells with a run, by experiment and data set, and the curves of these cells, ready for JSON.

    `sets` lists for each experiment and data set its cells and metrics. A metric lists its pairs in the order of
    `itertools.combinations`: the second value minus the first, the 95 % t interval, n, and 1 if they are paired by seed. What
    is not finite is null. `curves` holds mean, lowest and highest value over the seeds by cell and column of `history.csv`.
    """
    sets: list[dict[str, Any]] = []
    curves: dict[str, dict[str, Any]] = {}
    for one in values:
        for dataset, names in one.experiment.metrics.items():
            metrics = [name for name in names if METRICS[name].origin in ("frame", "curve")]
            variants = [v for v in one.variants_of(dataset) if one.evidence.recorded(v)]
            if metrics and 2 <= len(variants) <= MOST_CELLS:
                sets.append(_set(one, dataset, variants, metrics))
                for variant, metric in itertools.product(variants, metrics):
                    column, found = column_of(metric), curves.setdefault(runs_key(one, variant), {})
                    if column not in found:
                        found[column] = curve(one, variant, column)
    return {"sets": sets, "curves": curves}


def runs_key(values: Values, variant: Variant) -> str:
    """Return a name for the runs of a cell that an experiment has: experiments may use a cell with more or fewer seeds."""
    return f"{variant.cell} {' '.join(map(str, values.evidence.recorded(variant)))}"


def column_of(metric: str) -> str:
    """Return the column of a run's history that shows how a metric came about."""
    spec = METRICS[metric]
    return spec.source if spec.origin == "curve" else f"test_{spec.source or metric}"


def difference(values: Values, first: Variant, second: Variant, metric: str) -> dict[str, Any]:
    """Return the second cell's value minus the first's: estimate, 95 % t interval (NaN without one), n, and paired."""
    paired = first.seed_group == second.seed_group
    found = Difference(values.losses(first, metric), values.losses(second, metric), paired, metric=metric)
    # Losses of a metric whose higher values are better have the opposite sign.
    stated = found.reversed() if METRICS[metric].higher_is_better else found
    low, high = stated.interval()
    return {"estimate": stated.estimate, "low": low, "high": high, "n": found.n, "paired": paired}


def curve(values: Values, variant: Variant, column: str) -> dict[str, list[float | None]]:
    """Return epochs, and mean, lowest and highest value over the seeds of a cell, in at most `MOST_POINTS` points.

    A run that diverged has no values after its end. A cell with one run has no spread, and no lowest and highest value.
    """
    runs = values.evidence.recorded(variant)
    table = pd.DataFrame({k: r.history.set_index("epoch")[column] for k, r in runs.items() if column in r.history})
    table = table.where(np.isfinite(table)).dropna(how="all")
    if table.empty:
        return {"epoch": [], "mean": []}
    bins = np.arange(len(table)) * min(MOST_POINTS, len(table)) // len(table)
    shown = {
        "epoch": table.index.to_series().groupby(bins).max(),
        "mean": table.mean(axis=1).groupby(bins).mean(),
        "low": table.min(axis=1).groupby(bins).min(),
        "high": table.max(axis=1).groupby(bins).max(),
    }
    has_spread = len(table.columns) > 1 or len(table) > MOST_POINTS
    return {name: [_number(x) for x in found] for name, found in shown.items() if has_spread or name in ("epoch", "mean")}


def _set(values: Values, dataset: str, variants: list[Variant], metrics: list[str]) -> dict[str, Any]:
    experiment = values.experiment
    title = f"{experiment.item}: {experiment.title}" + (f" ({dataset})" if len(experiment.metrics) > 1 else "")
    shown = values.cells[values.cells["dataset"] == dataset]
    rows: Rows = {(row["variant"], row["metric"]): row for row in shown.to_dict("records")}
    labels = {v.name: settings_text(v.axes, experiment.axes) for v in variants}
    return {
        "name": f"{experiment.name}/{dataset}",
        "title": title,
        "cells": [{"name": v.name, "label": labels[v.name], "runs": runs_key(values, v)} for v in variants],
        "metrics": [_metric(values, metric, variants, rows) for metric in metrics],
    }


def _metric(values: Values, metric: str, variants: list[Variant], rows: Rows) -> dict[str, Any]:
    spec = METRICS[metric]
    pairs = [difference(values, one, other, metric) for one, other in itertools.combinations(variants, 2)]
    digits = None if spec.significant else 0 if spec.unit == "steps" else spec.digits
    numbers = {name: [_shown(metric, pair[name]) for pair in pairs] for name in ("estimate", "low", "high")}
    return {
        "name": metric,
        "label": spec.arrow_label,
        "digits": digits,
        "curve": column_of(metric),
        "curve_label": "training loss" if column_of(metric) == "train_loss" else f"test {METRICS[column_of(metric)[5:]].label}",
        "cells": [cell_text(metric, rows[v.name, metric]) for v in variants],
        "n": [pair["n"] for pair in pairs],
        "paired": [int(pair["paired"]) for pair in pairs],
        **{name: found for name, found in numbers.items() if any(x is not None for x in found)},
    }


def cell_text(metric: str, row: dict[Any, Any]) -> str:
    """Return what is known of a cell: "27.18 (26.90 to 27.46), n = 3; published 22.33; not learnt"."""
    show = METRICS[metric].format
    interval = f" ({show(row['low'])} to {show(row['high'])})" if math.isfinite(row["low"]) else ""
    words = [f"{show(row['measured'])}{interval}, n = {row['n']}", f"published {row['printed']}" if row["printed"] else ""]
    words += ["some runs diverged" if row["status"] == "diverged" else "", "not learnt" if row["learnt"] is False else ""]
    return "; ".join(filter(None, words))


def _shown(metric: str, value: float) -> float | None:
    """Return a number with the digits that the metric is printed with, and with more if these would all be zero."""
    if not math.isfinite(value):
        return None
    spec = METRICS[metric]
    rounded = float(f"{value:.3g}") if spec.significant or abs(value) < 0.005 else float(spec.format(value))
    return rounded or 0.0


def _number(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None
