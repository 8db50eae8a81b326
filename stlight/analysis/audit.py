"""Two audits of the runs: the effect of choosing the epoch, and the noise between seeds."""

from typing import Any

import numpy as np
import pandas as pd

from stlight.analysis.values import Values
from stlight.registry.metric_specs import METRICS
from stlight.runs.record import SELECTIONS


def selection_audit(values: Values) -> pd.DataFrame:
    """Return the mean over seeds at each selected epoch, for each variant and ranked metric. Costs no extra training.

    `optimism` is by how much `best_on_test`, the benchmark's habit, is better than `best_on_validation`, which does not see
    the test clips.
    """
    rows = []
    for variant in values.experiment.variants:
        for metric in (m for m in values.experiment.metrics[variant.dataset] if METRICS[m].ranked):
            seeds = [values.seeds(variant, metric, selection)["value"] for selection in SELECTIONS]
            if n := len(seeds[0]):
                place = (values.experiment.name, variant.dataset, variant.name, metric, n)
                rows.append((*place, *(float(np.mean(numbers)) for numbers in seeds)))
    table = pd.DataFrame(rows, columns=["experiment", "dataset", "variant", "metric", "n", *SELECTIONS])
    sign = table["metric"].map(lambda metric: 1 if METRICS[metric].higher_is_better else -1)
    return table.assign(optimism=sign * (table["best_on_test"] - table["best_on_validation"]))


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
