"""The numbers of an experiment: one row per seed, metric and selection, and from these one row per cell and metric."""

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from stlight.analysis import curves
from stlight.analysis.evidence import Evidence, Recorded, key
from stlight.analysis.verdicts import ranking
from stlight.analysis.verdicts.comparisons import band_edges
from stlight.analysis.verdicts.differences import CONFIDENCE
from stlight.experiments import Variant
from stlight.registry.metric_specs import COUNTED_METRICS, METRICS, TIMED_METRICS
from stlight.registry.model_specs import OURS, loss_is_mse
from stlight.runs.record import SELECTIONS, RunRecord

SOURCES = {"embedded": "embedded digits", "files": "benchmark files", "stand_in": "stand-in"}
"""Readers' names for the sources of clips."""

TIDY = ("metric", "printed", "published", "measured", "low", "high", "n", "selection", "status", "runs", "values")
"""Columns of the tidy table after the coordinates and the source of the data, before standing, p_best and learnt."""

LEAST_GAIN = 0.01
"""Share of the best trivial predictor's score by which a cell that has learnt is better."""


def interval(values: np.ndarray) -> tuple[float, float]:
    """Return the 95 % t interval of the mean; NaN below two values or if a value is not finite."""
    if len(values) < 2 or not np.isfinite(values).all():
        return math.nan, math.nan
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * stats.sem(values))
    return float(values.mean()) - half, float(values.mean()) + half


def best_trivial_of(record: RunRecord, metric: str) -> tuple[str, float] | None:
    """Return the best trivial predictor of a run's test clips on a metric, and its score; None if none is scored on it."""
    spec = METRICS[metric]
    if spec.origin != "frame":
        return None
    scores = {name: scored.get(spec.source or metric) for name, scored in record.trivial.items()}
    found = [(name, spec.factor * score) for name, score in scores.items() if score is not None]
    better = max if spec.higher_is_better else min
    return better(found, key=lambda entry: entry[1]) if found else None


def beats_trivial(value: float, score: float, metric: str) -> bool:
    """Return True if a value is better than a trivial predictor's score by at least 1 % of it; False if it is NaN."""
    gain = value - score if METRICS[metric].higher_is_better else score - value
    return gain >= LEAST_GAIN * abs(score)


class Values:
    """The numbers of one experiment, computed from its evidence."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.experiment = evidence.experiment
        columns = ["seed", "run", "metric", "selection", "value", "diverged"]
        columns = list(dict.fromkeys(["dataset", "variant", *self.experiment.axes, *columns]))
        frame = pd.DataFrame(_rows(evidence), columns=columns)
        self.by_seed = frame.astype({"value": float, "diverged": bool})
        """One row per dataset, variant, seed, metric and selection. Metrics of a whole run repeat for each selection; counts
        and timings have neither seed nor selection (-1 and "-")."""
        self._groups = dict(iter(self.by_seed.groupby(["dataset", "variant", "metric", "selection"], sort=False)))

    def seeds(self, variant: Variant, metric: str, selection: str | None = None) -> pd.DataFrame:
        """Return the rows of one cell and metric in the order of the seeds. By default the experiment's selection."""
        if metric in COUNTED_METRICS | TIMED_METRICS:
            selection = "-"
        place = (variant.dataset, variant.name, metric, selection or self.experiment.selection)
        return self._groups.get(place, self.by_seed.iloc[:0])

    def mean(self, variant: Variant, metric: str) -> float:
        """Return the mean over the recorded seeds of one cell; NaN without any, or if a value is not finite."""
        rows = self.seeds(variant, metric)
        return float(np.mean(rows["value"].to_numpy(float))) if len(rows) else math.nan

    def losses(self, variant: Variant, metric: str) -> np.ndarray:
        """Return the values of one cell as losses, lower being better, as every comparison of cells needs them.

        A diverged run is the worst: its loss is infinite, whatever metrics it recorded last. A table still prints these.
        """
        rows = self.seeds(variant, metric)
        values = rows["value"].to_numpy(float)
        return np.where(rows["diverged"], math.inf, -values if METRICS[metric].higher_is_better else values)

    @staticmethod
    def learning_metric(metric: str) -> str:
        """Return the metric that shows whether a cell has learnt: the metric itself, or the MSE for those of a curve."""
        return "mse" if METRICS[metric].origin == "curve" else metric

    def learnt(self, variant: Variant, metric: str) -> bool | None:
        """Return True if the mean over the finished seeds of a cell is better than every trivial predictor on a metric.

        It must be better by at least 1 % of the score: a model that predicts black to the last digit has not learnt. None if no
        run has finished without diverging, or if the metric is not scored for trivial predictors, as counts are not.
        """
        best = self.best_trivial(variant, metric)
        if best is None:
            return None
        return beats_trivial(self.finished_mean(variant, metric), best[1], self.learning_metric(metric))

    def finished_mean(self, variant: Variant, metric: str) -> float:
        """Return the mean of a cell's learning metric over the seeds that did not diverge; NaN without any."""
        rows = self.seeds(variant, self.learning_metric(metric))
        return float(rows.loc[~rows["diverged"], "value"].mean())

    def best_trivial(self, variant: Variant, metric: str) -> tuple[str, float] | None:
        """Return the best trivial predictor of a cell's test clips on its learning metric, and its score; None without any."""
        records = [run.record for run in self.evidence.recorded(variant).values() if run.record.status != "diverged"]
        return best_trivial_of(records[0], self.learning_metric(metric)) if records else None

    @cached_property
    def rankings(self) -> dict[tuple[str, str], ranking.Ranking]:
        """The order of the cells by data set and ranked metric; a single cell has no order."""
        found = {}
        for dataset, metrics in sorted(self.experiment.metrics.items()):
            for metric in sorted(m for m in metrics if METRICS[m].ranked):
                variants = self.variants_of(dataset)
                if len(variants) > 1:
                    found[dataset, metric] = ranking.rank(
                        [self.losses(v, metric) for v in variants], [v.seed_group for v in variants]
                    )
        return found

    def variants_of(self, dataset: str) -> list[Variant]:
        """Return the variants that use a data set, in the order of the grid."""
        return [variant for variant in self.experiment.variants if variant.dataset == dataset]

    @cached_property
    def cells(self) -> pd.DataFrame:
        """One row per cell and metric: dataset, variant, the grid's coordinates, data, metric, then these.

        `published` is the paper's number and `printed` its digits: 21.80 if `published` is 21.8. Of a published band, `printed`
        is the range of both edges.
        `measured` is the mean over seeds, `low` and `high` its 95 % t interval (from two seeds on), `values` each seed's value
        and `runs` their names. A diverged seed keeps its last metrics; if these are not finite, the mean is not either.
        status: done, diverged (at least one seed), counted, measured (timed side by side in one process), waiting, not trained
        (at this scale) or quoted (the published number of another model). standing among the measured cells: best, tie (cannot
        be distinguished from the best) or worse. p_best: probability of being the best. learnt: True if the finished seeds are
        better than every trivial predictor on the metric; missing if that cannot be told.
        """
        experiment = self.experiment
        rows = [self._cell(v, metric) for v in experiment.variants for metric in experiment.metrics[v.dataset]]
        for entry in experiment.quoted:
            place = {"dataset": next(iter(experiment.metrics)), "variant": ""} | {"model": entry.model} | entry.coordinates
            for metric in dict.fromkeys(m for names in experiment.metrics.values() for m in names if m in entry.numbers):
                number = entry.numbers[metric]
                fixed = {"data": entry.source, "metric": metric, "printed": number.text, "published": number.value}
                fixed |= {"n": 0, "selection": "-", "status": "quoted", "runs": [], "values": [], "standing": ""}
                rows.append(place | fixed)
        columns = [*dict.fromkeys(["dataset", "variant", *self.coordinates]), "data", *TIDY, "standing", "p_best", "learnt"]
        table = pd.DataFrame(rows, columns=columns)
        # Quoted rows leave axes empty. A nullable type keeps whole numbers whole.
        whole = [a for a in experiment.axes if all(type(v.axes[a]) is int for v in experiment.variants)]
        return table.astype({"learnt": object} | dict.fromkeys(whole, "Int64"))

    @property
    def coordinates(self) -> list[str]:
        """The columns that tell cells apart: the axes, and the model if some are quoted."""
        return list(dict.fromkeys([*(["model"] if self.experiment.quoted else []), *self.experiment.axes]))

    def _cell(self, variant: Variant, metric: str) -> dict[str, Any]:
        experiment, data = self.experiment, variant.config.data
        rows, printed = self.seeds(variant, metric), experiment.all_printed(variant).get(metric)
        values, selection, runs = rows["value"].to_numpy(float), experiment.selection, rows
        if METRICS[metric].origin in ("counted", "timed"):
            done = "counted" if metric in COUNTED_METRICS else "measured"
            status, selection, runs = done if len(rows) else "waiting", "-", rows.iloc[:0]
        elif rows["diverged"].any():
            status = "diverged"
        else:
            trained = self.evidence.scale.trains(variant.config.model.model, variant.dataset)
            status = "not trained" if not trained else "waiting" if len(rows) < max(1, experiment.seeds_of(variant)) else "done"
        source = "custom files" if data.custom_shape else SOURCES[data.source]
        low, high = interval(values)
        cell = ({"model": OURS} if experiment.quoted else {}) | variant.axes
        cell |= {"dataset": variant.dataset, "variant": variant.name}
        cell |= {"data": source if experiment.train else "none", "metric": metric}
        edges = band_edges(experiment.band(variant), metric)
        text = printed.text if printed else " to ".join(METRICS[metric].format(edge) for edge in edges)
        cell |= {"published": printed.value if printed else math.nan, "printed": text}
        cell |= {"measured": self.mean(variant, metric), "low": low, "high": high, "n": len(values)}
        cell |= {"selection": selection, "status": status, "runs": list(runs["run"]), "values": list(runs["value"])}
        cell |= {"standing": "", "p_best": math.nan, "learnt": self.learnt(variant, metric)}
        if order := self.rankings.get((variant.dataset, metric)):
            place = self.variants_of(variant.dataset).index(variant)
            cell |= {"standing": order.standing(place) if len(values) else "", "p_best": order.p_best[place]}
        return cell

    def best_variants(self) -> dict[str, Variant]:
        """Return for each data set the variant with the best mean of the first ranked metric; none if no mean is finite."""
        best = {}
        for dataset, metrics in self.experiment.metrics.items():
            metric = next((m for m in metrics if METRICS[m].ranked), metrics[0])
            found = [(v, losses) for v in self.variants_of(dataset) if len(losses := self.losses(v, metric))]
            means = [(float(losses.mean()), v) for v, losses in found if np.isfinite(losses).all()]
            if means:
                best[dataset] = min(means, key=lambda entry: entry[0])[1]
        return best


def _rows(evidence: Evidence) -> Iterator[dict[str, Any]]:
    """Yield the rows of the long frame."""
    for variant in evidence.experiment.variants:
        place = variant.axes | {"dataset": variant.dataset, "variant": variant.name}
        whole = evidence.counts.get(key(variant), {}) | evidence.timings.get("variants", {}).get(key(variant), {})
        whole |= {"num_params": whole["parameters"]["total"]} if "parameters" in whole else {}
        for metric in (m for m in METRICS if m in whole.keys() & (COUNTED_METRICS | TIMED_METRICS)):
            yield place | {"seed": -1, "run": "", "metric": metric, "selection": "-", "value": whole[metric], "diverged": False}
        for seed, run in evidence.recorded(variant).items():
            fixed = place | {"seed": seed, "run": run.record.run, "diverged": run.record.status == "diverged"}
            for selection, metrics in metrics_of(run).items():
                for metric, value in metrics.items():
                    yield fixed | {"metric": metric, "selection": selection, "value": value}


def metrics_of(run: Recorded) -> dict[str, dict[str, float]]:
    """Return the metrics of a run by selection. Those of the whole run, be it a curve's or seconds, repeat for each."""
    whole_run = _metrics_of_curves(run) | {"seconds": run.record.seconds["training"]}
    return {selection: _metrics(run, selection) | whole_run for selection in SELECTIONS}


def _metrics(run: Recorded, selection: str) -> dict[str, float]:
    """Return the frame metrics of a run at the epoch that a selection picks; NaN for those that are not finite."""
    found = {name: math.nan if value is None else value for name, value in run.record.metrics[selection].items()}  # type: ignore[index]
    sources = {metric: spec.source or metric for metric, spec in METRICS.items() if spec.origin == "frame"}
    return {metric: METRICS[metric].factor * found[source] for metric, source in sources.items() if source in found}


def _metrics_of_curves(run: Recorded) -> dict[str, float]:
    """Return the metrics of a run's test error and training loss over the whole training."""
    config, trivial = run.record.config, run.record.trivial
    curve_of = {spec.source: run.history[spec.source].to_numpy(float) for spec in METRICS.values() if spec.origin == "curve"}
    found = {
        metric: curves.BY_EVALUATION[metric](curve_of[spec.source])
        for metric, spec in METRICS.items()
        if metric in curves.BY_EVALUATION
    }
    error = min((score for scores in trivial.values() if (score := scores.get("mse")) is not None), default=math.nan)
    # The loss is a mean over pixels, the test MSE a sum over a frame's. Other losses have no unit in common with it.
    shape = config.clip_shape
    factor = shape.channels * shape.height * shape.width if loss_is_mse(config.model.model) else math.nan
    steps, losses = run.losses["step"].to_numpy(), factor * run.losses["train_loss"].to_numpy(float)
    return found | {"steps_to_learn": curves.steps_to_learn(steps, losses, error, config.num_steps)}
