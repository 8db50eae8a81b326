"""Verdicts on claims about parameter counts (Section B): exact, without statistics."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from scipy.stats import linregress

from stlight.analysis.evidence import Evidence, key
from stlight.analysis.text import axis_text
from stlight.analysis.verdicts.finding import Finding, Part
from stlight.experiments import Experiment
from stlight.experiments.claim_types import CountGrowsClaim, CountsEqualClaim


def judge_counts(blank: Finding, evidence: Evidence) -> Finding:
    """Return the verdict on a claim of Section B: the counts may deviate from it by as much as it allows."""
    if not evidence.counts:
        return replace(blank, why="waiting for the counts")
    deviations, within, words = COUNT_KINDS[blank.claim.kind](blank.claim, evidence.experiment, evidence.counts)
    most = max(deviations.values())
    return replace(
        blank,
        verdict="reproduced" if most <= within else "contradicted",
        effect=most,
        n=1,
        why=f"counted, exact: {words.format(most=most)}",
        parts=[Part(label, deviation, deviation <= within, "") for label, deviation in deviations.items()],
    )


Deviations = tuple[dict[str, float], float, str]
"""The deviation of each part by its label, how much is allowed, and a sentence about the largest, `most`."""


def _counts_equal(claim: CountsEqualClaim, experiment: Experiment, counts: dict[str, Any]) -> Deviations:
    terms, deviations = claim.counts_equal, {}
    for variant in experiment.variants:
        count = counts[key(variant)]
        counted, formula = (count[kind][terms.component] for kind in ("parameters", "closed_forms"))
        deviations[f"{_settings(variant.axes)}: {counted:,} against {formula:,}"] = abs(counted / formula - 1)
    words = f"counted parameters are at most {{most:.1%}} from the formula (allowed: {terms.within:.0%})"
    return deviations, terms.within, words


def _count_grows(claim: CountGrowsClaim, experiment: Experiment, counts: dict[str, Any]) -> Deviations:
    terms = claim.count_grows
    lines: dict[str, list[tuple[float, float]]] = {}
    for variant in experiment.variants:
        others = _settings({axis: value for axis, value in variant.axes.items() if axis != terms.axis})
        count = counts[key(variant)]["parameters"][terms.component]
        lines.setdefault(others, []).append((math.log(variant.axes[terms.axis]), math.log(count)))
    exponents = {name: float(linregress(*zip(*line, strict=True)).slope) for name, line in lines.items() if len(line) > 1}
    deviations = {f"{name}: exponent {found:.3f}": abs(found - terms.exponent) for name, found in exponents.items()}
    words = f"the exponent is at most {{most:.3f}} from {terms.exponent} (allowed: {terms.within:g})"
    return deviations, terms.within, words


def _settings(axes: dict[str, Any]) -> str:
    return ", ".join(f"{axis} = {axis_text(value)}" for axis, value in axes.items())


COUNT_KINDS: dict[str, Callable[..., Deviations]] = {"counts_equal": _counts_equal, "count_grows": _count_grows}
"""For each kind of claim about counts: claim, experiment and counts to the deviations from it."""
