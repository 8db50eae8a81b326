"""Two audits of the runs: the effect of choosing the epoch, and the noise between seeds."""

from typing import Any

import numpy as np
import pandas as pd

from stlight.analysis.values import Values
from stlight.registry.metric_specs import METRICS
from stlight.runs.record import SELECTIONS

AUDIT_COLUMNS = ("experiment", "dataset", "variant", "metric", "n", *SELECTIONS, "optimism")


def selection_audit(values: Values) -> pd.DataFrame:
    """Return the mean over seeds at each selected epoch, for each variant and ranked metric. Costs no extra training.

    `optimism` is by how much `best_on_test`, the benchmark's habit, is better than `best_on_validation`, which does not see
    the test clips.
    """
    experiment, rows = values.experiment, []
    for variant in experiment.variants:
        for metric in (m for m in experiment.metrics[variant.dataset] if METRICS[m].ranked):
            seeds = {selection: values.seeds(variant, metric, selection)["value"] for selection in SELECTIONS}
            if not len(seeds["last"]):
                continue
            means = {selection: float(np.mean(numbers)) for selection, numbers in seeds.items()}
            gain = means["best_on_test"] - means["best_on_validation"]
            rows.append(
                {"experiment": experiment.name, "dataset": variant.dataset, "variant": variant.name, "metric": metric}
                | {"n": len(seeds["last"])}
                | means
                | {"optimism": gain if METRICS[metric].higher_is_better else -gain}
            )
    return pd.DataFrame(rows, columns=list(AUDIT_COLUMNS))


def noise_floor(values: Values) -> list[dict[str, Any]]:
    """Return for each ranked metric which difference between two cells is distinguishable, and how far the seeds agree."""
    return [
        {
            "experiment": values.experiment.name,
            "dataset": dataset,
            "metric": metric,
            "n": min(len(values.seeds(variant, metric)) for variant in values.variants_of(dataset)),
            "paired": ranking.paired,
            "sd": ranking.noise[0],
            "smallest_difference": ranking.smallest_difference,
            "ties": sum(ranking.ties),
            "cells": len(ranking.ties),
            "stability": ranking.stability,
            "why": ranking.noise[1],
        }
        for (dataset, metric), ranking in values.rankings.items()
    ]
