"""Records and published numbers of an experiment as one tidy table: a line for each cell and metric."""

import json
import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from stlight.analysis import curves
from stlight.analysis.text import is_higher_better
from stlight.analysis.verdicts import statistics
from stlight.config import DataConfig
from stlight.experiments import Experiment, Variant
from stlight.experiments.yaml_files import quantity
from stlight.registry.metric_specs import COUNTED_METRICS, TIMED_METRICS
from stlight.registry.model_specs import OURS
from stlight.runs.record import RecordError, RunRecord, read_history, read_record, read_state

CONFIDENCE = 0.95

SOURCE_LABELS = {"embedded": "embedded digits", "files": "benchmark files", "stand_in": "stand-in"}


def source_label(data: DataConfig) -> str:
    """What a reader calls the source of a run's clips."""
    return "own files" if data.own_shape else SOURCE_LABELS[data.source]


CURVE_METRICS = {"dispersion": "train_loss", "onset": "test_mse", "instability": "test_mse"}
"""Metrics of a whole run, and the column of its history that they are of."""

COSTS = (*sorted(COUNTED_METRICS), *TIMED_METRICS, "seconds")
"""What a variant takes: counted, measured side by side, or recorded with its training."""

UNRANKED = (*COSTS, *CURVE_METRICS)
"""Metrics that say nothing of how good a prediction is."""


class MixedVersionsError(ValueError):
    """Records of an experiment that different versions of the code have made; the message says which to train again."""


def load_records(experiment: Experiment, folder: Path) -> dict[str, RunRecord]:
    """The records there are under a scale's results, by run name; damaged ones and those of another configuration are none."""
    records = {}
    for name, config_hash in _runs(experiment):
        path = folder / "runs" / name / "record.json"
        with suppress(FileNotFoundError, RecordError):
            if (record := read_record(path)).config_hash == config_hash:
                read_history(path.parent, record)
                records[name] = record
    return records


def missing_runs(experiment: Experiment, folder: Path) -> dict[str, str]:
    """Why each run without a record is not there, by its name: waiting, running, interrupted or failed, and what stopped it.

    Just "waiting" is one that has not been begun.
    """
    reasons = {}
    for name, config_hash in _runs(experiment):
        try:
            state = read_state(folder / "runs" / name, config_hash)
            if state["status"] in ("done", "diverged"):
                read_history(folder / "runs" / name, read_record(folder / "runs" / name / "record.json"))
        except RecordError as error:
            state = {"status": "damaged", "error": str(error)}
        if state["status"] not in ("done", "diverged"):
            words = [state["status"], state.get("error") or state.get("why") or _last_words(folder, name)]
            dataset = name.partition("/")[0]
            if not words[1] and dataset in experiment.waits_for:
                words[1] = f"{dataset} waits for {experiment.waits_for[dataset]}"
            reasons[name] = ": ".join(str(word) for word in words if word)
    return reasons


def _last_words(folder: Path, name: str) -> str:
    """What a run's process said last that has left no state: nothing if it has not been started."""
    if (folder / "runs" / name / "record.json").exists():
        return "its record is of another configuration"
    log = folder / "logs" / "train" / f"{name}.log"
    with suppress(OSError):
        lines = log.read_text(errors="replace").splitlines()
        return next((line for line in reversed(lines) if line.strip()), f"ended without a word in {log}")
    return ""


def versions(records: dict[str, RunRecord]) -> dict[str, list[str]]:
    """The runs that each version of the code and of torch has made, by what a reader calls it."""
    labels: dict[tuple[str, str], str] = {}
    found: dict[str, list[str]] = {}
    for name, record in records.items():
        facts = record.provenance
        torch = str(facts.get("libraries", {}).get("torch", "?")).partition("+")[0]
        source = str(facts.get("source", "?"))
        # Commits that make the same numbers are one version; the first one names it.
        label = labels.setdefault((source, torch), f"{source} (commit {facts.get('code', '?')}, torch {torch})")
        found.setdefault(label, []).append(name)
    return found


def check_versions(experiment: Experiment, records: dict[str, RunRecord]) -> None:
    """Raise `MixedVersionsError` unless all records were made by the same version of the code and of torch."""
    found = versions(records)
    if len(found) > 1:
        words = [f"{len(names)} of {label}, {names[0]} the first" for label, names in found.items()]
        raise MixedVersionsError(
            f"{experiment.name}: its records come from {len(found)} versions of the code: {'; '.join(words)}. Delete the"
            " records of all but one and start again, or ask for them together with --config mixed_versions=yes"
        )


def _runs(experiment: Experiment) -> Iterator[tuple[str, str]]:
    """Names of an experiment's runs and hashes of their configurations."""
    for variant in experiment.variants if experiment.train else ():
        for seed in range(experiment.seeds):
            yield variant.run_name(seed), variant.run_config(seed).hash


def load_counts(experiment: Experiment, folder: Path) -> dict[str, dict[str, Any]]:
    """Parameters and FLOPs at the paper's size, by `<dataset>/<variant>`; empty if the experiment counts nothing.

    Raises `FileNotFoundError` if they are not counted yet, `ValueError` if those there are damaged or of another grid.
    """
    if not experiment.counts:
        return {}
    path = folder / "complexity" / f"{experiment.name}.json"
    again = f"python -m stlight count {experiment.name}"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: {again}")
    try:
        counts = json.loads(path.read_bytes())
        # An older count may lack a metric that is named since.
        named = {metric for names in experiment.metrics.values() for metric in names} & COUNTED_METRICS - {"num_params"}
        kinds = {"parameters", "benchmark_flops"} | named
        whole = all(kinds <= counts[f"{v.dataset}/{v.name}"].keys() for v in experiment.variants)
    except (ValueError, TypeError, KeyError, AttributeError):
        whole = False
    if not whole:
        raise ValueError(f"{path} is damaged or of another grid: {again}")
    return dict(counts)


def counts_there(experiment: Experiment, folder: Path) -> dict[str, dict[str, Any]]:
    """The same, empty while there are none that fit."""
    with suppress(FileNotFoundError, ValueError):
        return load_counts(experiment, folder)
    return {}


def load_speeds(experiment: Experiment, folder: Path) -> dict[str, Any]:
    """What was measured side by side: device, threads, and `variants` by `<dataset>/<variant>`; empty if nothing is asked for.

    Raises `FileNotFoundError` if it is not measured yet, `ValueError` if what there is is damaged or of other configurations.
    """
    if not experiment.timed:
        return {}
    path = folder / "speed" / f"{experiment.name}.json"
    again = f"python -m stlight measure {experiment.name}"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: {again}")
    try:
        speeds = dict(json.loads(path.read_bytes()))
        whole = {"device", "threads"} <= speeds.keys() and all(
            (found := speeds["variants"][f"{v.dataset}/{v.name}"])["config_hash"] == v.config.hash
            and all(math.isfinite(found[metric]) for metric in TIMED_METRICS)
            for v in experiment.variants
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        whole = False
    if not whole:
        raise ValueError(f"{path} is damaged or of another grid: {again}")
    return speeds


def speeds_there(experiment: Experiment, folder: Path) -> dict[str, Any]:
    """The same, empty while there are none that fit."""
    with suppress(FileNotFoundError, ValueError):
        return load_speeds(experiment, folder)
    return {}


def missing_speeds(experiment: Experiment, folder: Path) -> str:
    """What to do about times and memory that are asked for and not there; empty where nothing is missing."""
    try:
        load_speeds(experiment, folder)
    except (FileNotFoundError, ValueError) as error:
        return str(error)
    return ""


def load_history(record: RunRecord, folder: Path) -> pd.DataFrame:
    """A run's history, one row for each epoch. Raises `RecordError` if it is not the one that was recorded."""
    rows = read_history(folder / "runs" / record.run, record)
    # Empty is what could not be measured any more.
    return pd.DataFrame({name: [float(row[name] or "nan") for row in rows] for name in (rows[0] if rows else ())})


def aggregate(experiment: Experiment, folder: Path) -> pd.DataFrame:
    """The tidy table: the grid's columns, data, metric, then these.

    `published` is the paper's number and `printed` its digits there, 21.80 where `published` is 21.8.
    `measured` is the mean over seeds, `low` and `high` its 95 % t interval (from two seeds on), `values` each seed's. A seed
    that diverged keeps its last metrics; where they are not finite, neither is the mean. status: done, diverged (at least one
    seed), counted, measured (side by side with the others, in one process), waiting (not there yet) or quoted (another model's
    published number). standing, among the measured cells of the metric: best, tie (cannot be told from the best) or worse;
    p_best: probability to be the best one.
    """
    counted = any(metric in COUNTED_METRICS for names in experiment.metrics.values() for metric in names)
    counts = counts_there(experiment, folder) if counted else {}
    records, speeds = load_records(experiment, folder), speeds_there(experiment, folder)

    def cell(variant: Variant, metric: str) -> dict[str, Any]:
        if metric in COUNTED_METRICS:
            return _found(_count(counts, variant, metric), "counted")
        if metric in TIMED_METRICS:
            return _found(_speed(speeds, variant, metric), "measured")
        return _measure(experiment, variant, metric, records, folder)

    rows = []
    for variant in experiment.variants:
        for metric in experiment.metrics[variant.dataset]:
            place = ({"model": OURS} if experiment.quoted else {}) | variant.axes
            printed = published_text(experiment, variant, metric)
            source = source_label(variant.config.data) if experiment.train else "none"
            rows.append(
                place
                | {
                    "data": source,
                    "metric": metric,
                    "published": quantity(printed) if printed else math.nan,
                    "printed": printed,
                }
                | cell(variant, metric)
            )
    for entry in experiment.quoted:
        rows += _quoted_rows(experiment, entry)
    first = list(dict.fromkeys([*(["model"] if experiment.quoted else []), *experiment.axes]))
    columns = ["data", "metric", "printed", "published", "measured", "low", "high", "n", "selection", "status", "runs"]
    table = pd.DataFrame(rows).reindex(columns=[*first, *columns, "values", "standing", "p_best"])
    _add_standing(experiment, table)
    # Where quoted rows leave an axis empty, whole numbers stay whole.
    whole = [a for a in experiment.axes if all(type(v.axes[a]) is int for v in experiment.variants)]
    return table.astype(dict.fromkeys(whole, "Int64"))


def published_text(experiment: Experiment, variant: Variant, metric: str) -> str:
    """The paper's number for a cell as it prints it, empty where it prints none."""
    for entry in experiment.published:
        place = {axis: entry[axis] for axis in experiment.axes if axis in entry}
        if metric in entry and place.items() <= variant.axes.items():
            return str(entry[metric])
    return ""


def values_by_seed(
    experiment: Experiment,
    variant: Variant,
    metric: str,
    records: dict[str, RunRecord],
    folder: Path,
    selection: str | None = None,
) -> list[float]:
    """One number for each recorded seed, in the order of the seeds; NaN where a diverged run has none.

    `selection`: which epoch's, if not the one that the experiment reports.
    """
    names = [variant.run_name(seed) for seed in range(experiment.seeds)]
    return [_value(metric, records[name], selection or experiment.selection, folder) for name in names if name in records]


def interval(values: list[float]) -> tuple[float, float]:
    """95 % t interval of the mean; NaN below two values or where a value is not finite."""
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return math.nan, math.nan
    half = stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2) * np.std(values, ddof=1) / math.sqrt(len(values))
    return float(np.mean(values) - half), float(np.mean(values) + half)


def best_variants(experiment: Experiment, table: pd.DataFrame) -> dict[str, Variant]:
    """For each data set the variant whose first measured metric is best; nothing where none is finite."""
    best = {}
    ours = table[table["status"] != "quoted"]
    for dataset, metrics in experiment.metrics.items():
        metric = next((m for m in metrics if m not in UNRANKED), metrics[0])
        variants = {
            tuple(row[axis] for axis in experiment.axes): row["measured"]
            for _, row in ours[ours["metric"] == metric].iterrows()
            if math.isfinite(row["measured"])
        }
        scored = [
            (variants[place], v) for v in experiment.variants if v.dataset == dataset and (place := _place(v)) in variants
        ]
        if scored:
            pick = max if is_higher_better(metric) else min
            best[dataset] = pick(scored, key=lambda entry: entry[0])[1]
    return best


def _place(variant: Variant) -> tuple[Any, ...]:
    return tuple(variant.axes.values())


def _count(counts: dict[str, dict[str, Any]], variant: Variant, metric: str) -> float | None:
    count = counts.get(f"{variant.dataset}/{variant.name}", {})
    return count.get("parameters", {}).get("total") if metric == "num_params" else count.get(metric)


def _speed(speeds: dict[str, Any], variant: Variant, metric: str) -> float | None:
    return speeds["variants"][f"{variant.dataset}/{variant.name}"][metric] if speeds else None


def _found(value: float | None, status: str) -> dict[str, Any]:
    """The columns of a number that no run gives, and that has no spread."""
    if value is None:
        value, status = math.nan, "waiting"
    n = int(status != "waiting")
    return {"measured": value, "n": n, "selection": "-", "status": status, "runs": "", "values": ""}


def _measure(
    experiment: Experiment,
    variant: Variant,
    metric: str,
    records: dict[str, RunRecord],
    folder: Path,
) -> dict[str, Any]:
    values = values_by_seed(experiment, variant, metric, records, folder)
    names = [name for seed in range(experiment.seeds) if (name := variant.run_name(seed)) in records]
    diverged = any(records[name].status == "diverged" for name in names)
    low, high = interval(values)
    return {
        "measured": float(np.mean(values)) if values else math.nan,
        "low": low,
        "high": high,
        "n": len(values),
        "selection": experiment.selection,
        "status": "diverged" if diverged else "done" if len(names) == experiment.seeds else "waiting",
        "runs": ";".join(names),
        "values": ";".join(f"{value:.10g}" for value in values),
    }


def _add_standing(experiment: Experiment, table: pd.DataFrame) -> None:
    """Fill in `standing` and `p_best`, and keep the rankings with the table."""
    table["standing"] = ""
    table.attrs["rankings"] = {}
    datasets = [v.dataset for v in experiment.variants for _ in experiment.metrics[v.dataset]]
    ours = table.index[table["status"] != "quoted"]
    for (dataset, metric), rows in pd.Series(ours, ours).groupby([pd.Series(datasets, ours), table.loc[ours, "metric"]]):
        if metric in UNRANKED or len(rows) < 2:
            continue
        ranking = statistics.rank([_losses(table.loc[i], str(metric)) for i in rows])
        table.attrs["rankings"][dataset, metric] = ranking
        for i, tie, p_best in zip(rows, ranking.ties, ranking.p_best, strict=True):
            if table.loc[i, "n"] and any(ranking.ties):
                table.loc[i, "standing"] = ("best" if sum(ranking.ties) == 1 else "tie") if tie else "worse"
            table.loc[i, "p_best"] = p_best


def _losses(row: "pd.Series[Any]", metric: str) -> np.ndarray:
    """A cell's values, lower being better; where a seed diverged to no number, the worst."""
    values = np.array([float(text) for text in str(row["values"]).split(";") if text])
    return np.where(np.isnan(values), math.inf, -values if is_higher_better(metric) else values)


def noise_floor(experiment: Experiment, table: pd.DataFrame) -> list[dict[str, Any]]:
    """For each metric that is ranked, what a difference between two cells must exceed, and how far the seeds agree."""
    rows = []
    for (dataset, metric), ranking in table.attrs["rankings"].items():
        noise = ranking.noise
        ns = table.loc[(table["metric"] == metric) & (table["status"] != "quoted"), "n"]
        rows.append(
            {
                "experiment": experiment.name,
                "dataset": dataset,
                "metric": metric,
                "n": int(ns.min()),
                "paired": ranking.paired,
                "sd": noise.sd,
                "smallest_difference": ranking.smallest_difference,
                "ties": sum(ranking.ties),
                "cells": len(ranking.ties),
                "stability": ranking.stability,
                "why": noise.why,
            }
        )
    return rows


def _value(metric: str, record: RunRecord, selection: str, folder: Path) -> float:
    if metric in CURVE_METRICS:
        return getattr(curves, metric)(load_history(record, folder)[CURVE_METRICS[metric]].to_numpy(float))
    if metric == "seconds":
        return record.seconds["training"]
    scale, name = (100, "mse") if metric == "mse_x100" else (1, metric)
    value = record.metrics[selection][name]  # type: ignore[index]
    return math.nan if value is None else scale * value


def _quoted_rows(experiment: Experiment, entry: dict[str, Any]) -> list[dict[str, Any]]:
    place = {key: entry[key] for key in ("model", *experiment.axes) if key in entry}
    metrics = dict.fromkeys(metric for names in experiment.metrics.values() for metric in names if metric in entry)
    fixed = {"data": entry.get("source", ""), "n": 0, "selection": "-", "status": "quoted", "runs": ""}
    return [
        place | fixed | {"metric": metric, "published": quantity(entry[metric]), "printed": entry[metric]} for metric in metrics
    ]
