"""What may decide a sentence: cells that have learnt the metric, and dispersions that measure noise (docs/statistics.md)."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

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
"""What would decide an undecided sentence."""

LEAST_NOISE = 0.5
"""Share of a dispersion that must be noise, on average over the compared cells."""

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
    variants = list({cell.variant.name: cell.variant for cell in cells if cell.variant}.values())
    # The steps that a cell takes to learn are infinite if it does not: that is a measurement.
    unlearnt = [(v, m) for m in claim.metrics for v in variants if m != "steps_to_learn" and values.learnt(v, m) is False]
    if unlearnt:
        others = len({variant.name for variant, _ in unlearnt}) - 1
        more = f", and {others} more of its {len(variants)} cells" if others else ""
        why = f"not learnt at this scale: {describe_unlearnt(values, *unlearnt[0])}{more}"
        return Bar(why, "training until every cell learns")
    for metric in (metric for metric in claim.metrics if metric in DISPERSIONS):
        share = float(np.mean([_noise_share(values, variant, metric) for variant in variants]))
        if not share >= LEAST_NOISE:
            found = f"{share:.0%} of it is noise" if math.isfinite(share) else "the curves are too short to tell it from noise"
            return Bar(f"{METRICS[metric].label} measures the fall of the curves here: {found}", "longer curves")
    return None


def describe_unlearnt(values: Values, variant: Variant, metric: str) -> str:
    """Return how a cell compares with the best trivial predictor: "lr=0.01: MAE 1.10 × that of a black frame (all zeros)"."""
    mean, best = values.finished_mean(variant, metric), values.best_trivial(variant, metric)
    assert best is not None, "only a cell that was compared with a trivial predictor can be called unlearnt"
    predictor, score = best
    spec = METRICS[values.learning_metric(metric)]
    times = f"{mean / score:.2f} ×" if score and math.isfinite(mean) else f"{spec.format(mean)} beside"
    return f"{variant.name}: {spec.label} {times} that of {PREDICTORS.get(predictor, predictor.replace('_', ' '))}"


def noise_share(curve: np.ndarray) -> float:
    """Return the share of a curve's dispersion that is noise: near 1 for white noise around a level, near 0 for a smooth fall.

    It is a third of the variance of the second differences over the variance of the first differences. White noise of variance
    s² has 6 s² and 2 s². NaN below four points, or if the curve is a straight line.
    """
    if len(curve) < 4:
        return math.nan
    first, second = (float(np.diff(curve, order).var(ddof=1)) for order in (1, 2))
    return second / 3 / first if first else math.nan


def _noise_share(values: Values, variant: Variant, metric: str) -> float:
    """Return the mean share of noise over the finished seeds of a cell; NaN if every run diverged or is too short."""
    shares = []
    for run in values.evidence.recorded(variant).values():
        if run.record.status != "diverged":
            curve = run.history[METRICS[metric].source].to_numpy(float)
            late = curve[math.ceil(len(curve) / 10) :] if metric.startswith("late_") else curve
            shares.append(noise_share(late))
    return float(np.mean(shares)) if shares else math.nan
