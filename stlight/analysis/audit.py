"""What the choice of the epoch adds: `last`, `best_on_validation` and `best_on_test` side by side, at no extra training."""

from pathlib import Path

import numpy as np
import pandas as pd

from stlight.analysis.aggregate import UNRANKED, load_records, values_by_seed
from stlight.analysis.text import is_higher_better
from stlight.experiments import Experiment
from stlight.runs.record import SELECTIONS

COLUMNS = ("experiment", "dataset", "variant", "metric", "n", *SELECTIONS, "optimism")


def selection_audit(experiment: Experiment, folder: Path) -> pd.DataFrame:
    """Means over seeds for each variant and metric that is ranked.

    `optimism`: by how much `best_on_test`, the benchmark's habit, is better than `best_on_validation`, which may not look at
    the test clips.
    """
    records = load_records(experiment, folder)
    rows = []
    for variant in experiment.variants if experiment.train else ():
        for metric in experiment.metrics[variant.dataset]:
            if metric in UNRANKED:
                continue
            seeds = {s: values_by_seed(experiment, variant, metric, records, folder, s) for s in SELECTIONS}
            if not seeds["last"]:
                continue
            means = {selection: float(np.mean(values)) for selection, values in seeds.items()}
            gain = means["best_on_test"] - means["best_on_validation"]
            rows.append(
                {"experiment": experiment.name, "dataset": variant.dataset, "variant": variant.name, "metric": metric}
                | {"n": len(seeds["last"])}
                | means
                | {"optimism": gain if is_higher_better(metric) else -gain}
            )
    return pd.DataFrame(rows, columns=list(COLUMNS))
