"""Rows of the page's tables: runs, the paper's recipe beside ours, and verdicts at other scales."""

import io
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from stlight.analysis.evidence import Recorded
from stlight.analysis.values import Values, beats_trivial, best_trivial_of
from stlight.analysis.verdicts.eligibility import PREDICTORS
from stlight.config import RunConfig
from stlight.experiments import Experiment
from stlight.experiments.loading import BASE
from stlight.registry.metric_specs import METRICS
from stlight.runs.record import RunRecord

LEARNING_METRICS = ("mse", "mae", "ssim")
"""Metrics by which the table of runs says whether a run has learnt."""

MOST_DETAILED = 200
"""Runs whose records are all on the page, which would not stay below two megabytes with more."""

Facts: TypeAlias = dict[str, dict[str, str]]
"""Parts of a record, each with its entries and their values as text."""

_SPARK_POINTS = 60
_MOST_VALUES = 8

_RECIPE: dict[str, Callable[[RunConfig], float]] = {
    "learning rate": lambda config: config.training.max_lr,
    "batch": lambda config: config.training.batch_size,
    "steps": lambda config: config.num_steps,
}


def run_rows(values: Iterable[Values]) -> list[dict[str, Any]]:
    """Return one row for each run, by name: test MSE, that of the best trivial predictor, and what the run has learnt.

    `detailed` is True if the page has room for the run's record and curve: of many runs, only for the first of each cell.
    """
    runs: dict[str, Recorded] = {}
    items: defaultdict[str, list[str]] = defaultdict(list)
    for one in values:
        runs |= one.evidence.runs
        for name in one.evidence.runs:
            items[name].append(one.experiment.item)
    few = len(runs) <= MOST_DETAILED
    rows: list[dict[str, Any]] = []
    for dataset, names in groupby(sorted(runs), key=lambda name: name.partition("/")[0]):
        ordered = list(names)
        # One run of each data set shows all of its record, the others what differs from it.
        first = next((name for name in ordered if name.startswith(f"{dataset}/{BASE}/")), ordered[0])
        everything = facts(runs[first].record)
        for _, of_cell in by_cell(ordered):
            for place, name in enumerate(of_cell):
                own = everything if name == first else differing(facts(runs[name].record), everything)
                row = {"name": name, "used_by": "; ".join(items[name]), "detailed": few or not place}
                rows.append(row | {"first": first, "facts": own} | _run_row(runs[name]))
    return rows


def by_cell(runs: Iterable[str]) -> list[tuple[str, list[str]]]:
    """Return each cell in order with its runs; runs of a cell stand one after another."""
    return [(cell, list(of)) for cell, of in groupby(runs, key=lambda run: run.rpartition("/")[0])]


def _run_row(run: Recorded) -> dict[str, Any]:
    record, best = run.record, best_trivial_of(run.record, "mse")
    mse = record.metrics["last"].get("mse")
    row = {"run": run, "mse": math.nan if mse is None else mse, "trivial": best[1] if best else math.nan}
    row |= {"predictor": PREDICTORS.get(best[0], best[0]) if best else "", "learnt": learnt(record)}
    return row | {"spark": spark(run.history["test_mse"].dropna().to_numpy())}


def learnt(record: RunRecord) -> list[str] | None:
    """Return the labels of the metrics on which a run beats every trivial predictor by 1 %; None if it diverged."""
    if record.status == "diverged":
        return None
    scores = {m: (record.metrics["last"].get(m), best_trivial_of(record, m)) for m in LEARNING_METRICS}
    return [METRICS[m].label for m, (v, best) in scores.items() if v is not None and best and beats_trivial(v, best[1], m)]


def spark(curve: np.ndarray) -> dict[str, Any]:
    """Return the heights of a small curve, the highest of equally many evaluations each, so that no spike is lost."""
    bins = np.arange(len(curve)) * min(_SPARK_POINTS, len(curve)) // max(1, len(curve))
    heights = pd.Series(curve, dtype=float).groupby(bins).max()
    return {"heights": list(heights), "low": heights.min(), "high": heights.max()}


def facts(record: RunRecord) -> Facts:
    """Return the parts of a record and what they hold, numbers with six digits: "config.model", {"hidden_dim": "24"}."""
    return dict(_facts(record.model_dump(mode="json", exclude={"files", "checksum"}), ""))


def differing(own: Facts, other: Facts) -> Facts:
    """Return those of a run's facts that another run does not share; "–" for what only the other has."""
    parts: Facts = {}
    for part in own | other:
        texts, others = own.get(part, {}), other.get(part, {})
        if found := {key: texts.get(key, "–") for key in texts | others if texts.get(key) != others.get(key)}:
            parts[part] = found
    return parts


def _facts(part: Mapping[str, Any], name: str) -> Iterator[tuple[str, dict[str, str]]]:
    inner = {key: value for key, value in part.items() if isinstance(value, Mapping) and value}
    texts = {key: f"{value:g}" if isinstance(value, float) else str(value) for key, value in part.items() if key not in inner}
    if texts:
        yield name or "record", texts
    for key, value in inner.items():
        yield from _facts(value, f"{name}.{key}" if name else key)


def recipe_rows(experiment: Experiment) -> list[dict[str, str]]:
    """Return the paper's learning rate, batch and steps beside those of this scale, by data set; none if nothing is trained."""
    rows = []
    for dataset in experiment.metrics if experiment.train else ():
        variants = [variant for variant in experiment.variants if variant.dataset == dataset]
        paper, here = [variant.paper for variant in variants], [variant.config for variant in variants]
        for label, field in _RECIPE.items():
            texts = {"paper": _values_text(field, paper), "here": _values_text(field, here)}
            rows.append({"dataset": dataset, "what": label} | texts)
    return rows


def _values_text(field: Callable[[RunConfig], float], configs: Iterable[RunConfig]) -> str:
    """Return the different values of a field in the order of the grid; only the range of many."""
    found = list(dict.fromkeys(map(field, configs)))
    many = len(found) > _MOST_VALUES
    texts = [
        f"{value:g}" if isinstance(value, float) else f"{value:,}" for value in ((min(found), max(found)) if many else found)
    ]
    return f"{texts[0]} to {texts[1]} ({len(found)} values)" if many else ", ".join(texts)


def other_scales(results: Path) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Return the verdicts on runs at the other scales whose results lie beside these, and a line for each unreadable file.

    Args:
        results: The scale's folder of results.

    Returns:
        For each scale by name, the outcome of each claim by its id, as its `claims.csv` says.
    """
    found: dict[str, dict[str, str]] = {}
    problems = []
    for path in sorted(results.absolute().parent.glob("*/claims.csv")):
        if path.parent.name == results.absolute().name:
            continue
        try:
            table = pd.read_csv(io.BytesIO(path.read_bytes()), keep_default_na=False, dtype=str)
            measured = table[(table["source"] == "measured") & (table["protocol"] != "")]
            found[path.parent.name] = dict(zip(measured["id"], measured["verdict"], strict=True))
        except (OSError, ValueError, KeyError) as error:
            problems.append(f"{path.parent.name}: claims.csv cannot be read ({error})")
    return found, problems


def scale_rows(here: Mapping[str, str], others: Mapping[str, Mapping[str, str]]) -> list[dict[str, Any]]:
    """Return one row for each sentence that at least one other scale has a verdict on, with its outcome at each scale."""
    scales = [here, *others.values()]
    rows = [{"claim": claim, "outcomes": [scale.get(claim, "") for scale in scales]} for claim in here]
    found = [row for row in rows if any(row["outcomes"][1:])]
    return [row | {"differs": len(set(filter(None, row["outcomes"]))) > 1} for row in found]
