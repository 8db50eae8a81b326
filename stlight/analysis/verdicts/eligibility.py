"""Decide whether runs may decide a sentence: have cells learnt, have models the paper's sizes, say curves what they are to?"""

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from stlight.analysis.evidence import key
from stlight.analysis.protocol import protocol_of
from stlight.analysis.text import settings_text
from stlight.analysis.values import Values
from stlight.experiments import Variant
from stlight.experiments.claim_types import ComparisonClaim
from stlight.experiments.grid_cells import GridCell
from stlight.registry.metric_specs import METRICS

Remedy = Literal[
    "",
    "more seeds",
    "more than 1000 seeds",
    "training until every cell learns",
    "longer curves",
    "a larger scale",
    "training without divergence",
]
"""Remedies: the change after which an undecided sentence could be decided."""

LEAST_NOISE = 0.5
"""Share of a dispersion that must be noise, on average over the compared cells."""

MOST_RELATIVE_SIZE = 2.0
"""Factor by which the ratio of two models' parameters may differ from the paper's."""

FEWEST_EVALUATIONS = 20
"""Evaluations that a curve needs before a metric that compares them may decide, unless the run is the paper's own."""

_BEGINNING = 0.2
"""Share of a curve in which it moves steeply."""

DISPERSIONS = ("dispersion", "late_dispersion", "loss_dispersion", "late_loss_dispersion")

PREDICTORS = {
    "all_zeros": "a black frame (all zeros)",
    "repeat_last_frame": "the last frame repeated",
    "mean_of_context": "the mean of the context",
}
"""Readers' names for the trivial predictors."""


@dataclass(frozen=True)
class Bar:
    """Why runs that exist may not decide a sentence, and what would change that."""

    why: str
    remedy: Remedy


def find_bar(values: Values, claim: ComparisonClaim, cells: list[GridCell]) -> Bar | None:
    """Return why these cells may not decide a claim; None if they may."""
    ours = {cell.label: (cell, cell.variant) for cell in cells if cell.variant}
    # The steps that a cell takes to learn are infinite if it does not: that is a measurement.
    metrics = [metric for metric in claim.metrics if metric != "steps_to_learn"]
    found = [(cell, v, metric) for metric in metrics for cell, v in ours.values() if values.learnt(v, metric) is False]
    if found:
        cell, variant, metric = found[0]
        axes = values.experiment.axes
        name = str(cell.coordinates["model"]) if "model" in axes else settings_text(cell.coordinates, axes)
        others = len({cell.label for cell, *_ in found}) - 1
        more = f", and {others} more of the {len(ours)} cells" if others else ""
        why = f"not learnt at this scale: {describe_unlearnt(values, variant, metric)} ({name}){more}"
        return Bar(why, "training until every cell learns")
    if why := _other_sizes(values, [variant for _, variant in ours.values()]):
        return Bar(why, "a larger scale")
    for metric in (metric for metric in metrics if METRICS[metric].origin == "curve"):
        shortest = min((n for _, variant in ours.values() for n in _evaluations(values, variant, metric)), default=math.inf)
        if shortest < FEWEST_EVALUATIONS:
            why = f"{METRICS[metric].label}: the curve has {shortest} evaluations; at least {FEWEST_EVALUATIONS} are needed"
            return Bar(why, "longer curves")
    for metric in (metric for metric in metrics if metric in DISPERSIONS):
        shares = [share for _, variant in ours.values() for share in _noise_shares(values, variant, metric)]
        if shares and not np.mean(shares) >= LEAST_NOISE:
            share = f"{np.mean(shares):.0%} of it is noise" if np.isfinite(shares).all() else "too short to tell it from noise"
            return Bar(f"{METRICS[metric].label} measures the fall of these curves: {share}", "longer curves")
    return None


def describe_unlearnt(values: Values, variant: Variant, metric: str) -> str:
    """Return how a cell compares with the best trivial predictor: "MAE 1.10 × that of a black frame (all zeros)"."""
    mean, best = values.finished_mean(variant, metric), values.best_trivial(variant, metric)
    assert best is not None, "only a cell that was compared with a trivial predictor can be called unlearnt"
    predictor, score = best
    spec = METRICS[values.learning_metric(metric)]
    times = f"{mean / score:.2f} ×" if score and math.isfinite(mean) else f"{spec.format(mean)} beside"
    return f"{spec.label} {times} that of {PREDICTORS.get(predictor, predictor.replace('_', ' '))}"


def noise_share(curve: np.ndarray) -> float:
    """Return the share of a curve's dispersion that is noise: near 1 for white noise around a level, near 0 for a smooth fall.

    It is a third of the variance of the second differences after the first fifth of the curve, over the variance of all first
    differences. White noise of variance s² has 6 s² and 2 s². The first fifth is no measure of noise, because short curves rise
    and fall steeply there. NaN below six points, or if the curve is a straight line.
    """
    if len(curve) < 6:
        return math.nan
    second = float(np.diff(curve[math.ceil(len(curve) * _BEGINNING) :], 2).var(ddof=1))
    first = float(np.diff(curve).var(ddof=1))
    return second / 3 / first if first else math.nan


def _other_sizes(values: Values, variants: list[Variant]) -> str:
    """Return which two models do not have the paper's relative sizes; empty if all have, or if no models are compared."""
    found = {}
    for variant in variants:
        runs, counts = values.evidence.recorded(variant).values(), values.evidence.counts.get(key(variant))
        if runs and counts:
            here = next(iter(runs)).record.num_params
            found[variant.config.model.model] = here, counts["parameters"]["total"]
    for (one, (here, paper)), (other, (here_other, paper_other)) in itertools.combinations(found.items(), 2):
        ratio, published = here_other / here, paper_other / paper
        if not 1 / MOST_RELATIVE_SIZE <= ratio / published <= MOST_RELATIVE_SIZE:
            return (
                f"not the paper's comparison at this scale: {other} has {ratio:.2g} times the parameters of {one} here,"
                f" {published:.2g} times in the paper"
            )
    return ""


def _evaluations(values: Values, variant: Variant, metric: str) -> list[int]:
    """Return the evaluations of each finished run of a cell; none if the runs are the paper's own, whatever their length."""
    return [] if protocol_of(variant) == "exact" else [len(curve) for curve in _curves(values, variant, metric)]


def _noise_shares(values: Values, variant: Variant, metric: str) -> list[float]:
    """Return the share of noise of each finished run of a cell."""
    late = metric.startswith("late_")
    return [noise_share(curve[math.ceil(len(curve) / 10) :] if late else curve) for curve in _curves(values, variant, metric)]


def _curves(values: Values, variant: Variant, metric: str) -> list[np.ndarray]:
    """Return the curve of each finished run of a cell; a diverged run is the worst in any case."""
    runs = [run for run in values.evidence.recorded(variant).values() if run.record.status != "diverged"]
    return [run.history[METRICS[metric].source].to_numpy(float) for run in runs]
