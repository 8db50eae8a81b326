"""Verdicts on the numbers that the paper publishes: arithmetic, against rounding and the noise of the paper's own repeats."""

from dataclasses import replace

from scipy import stats

from stlight.analysis.verdicts.comparisons import Comparer, band_edges, build_test, compared_cells
from stlight.analysis.verdicts.findings import Finding, label
from stlight.analysis.verdicts.judging import Comparison, Test, arithmetic
from stlight.analysis.verdicts.repeats import PaperNoise
from stlight.experiments import Experiment
from stlight.experiments.claim_base import ComparisonClaim
from stlight.experiments.claim_types import Claim, SmallerSpreadClaim, UntestedClaim
from stlight.experiments.grid_cells import GridCell, cells_of
from stlight.registry.metric_specs import METRICS


def on_published(experiment: Experiment, claim: Claim, noise: PaperNoise) -> Finding:
    """Return the verdict on the paper's numbers, judged against the noise of its own repeats."""
    blank, cells = Finding(claim, experiment.name, "published"), cells_of(experiment)
    why = _cannot(claim, cells)
    if why or not isinstance(claim, ComparisonClaim):
        return replace(blank, why=why)
    return by_arithmetic(blank, build_test(Comparer(experiment, claim, noise=noise), cells))


def by_arithmetic(blank: Finding, test: Test) -> Finding:
    """Return the verdict on exact numbers: printed ones, or counts of our own."""
    verdict = arithmetic(test)
    deciding, parts = test.deciding(verdict), test.for_it()
    how = "arithmetic on published numbers" if deciding.published else "counted here, exact"
    if verdict == "undecided" and deciding.published:
        how = _within(deciding) if deciding.estimate else "published alike"
    why = f"{how}: {label(deciding)}"
    against = [label(part) for part in parts if part.margin <= 0]
    if verdict == "contradicted" and against:
        more = [f"and {len(against) - 4} more"] if len(against) > 4 else []
        more += [f"as stated for {len(parts) - len(against)} of {len(parts)}"] if len(parts) > 1 else []
        why = f"{how}: not so for {'; '.join([*against[:4], *more])}"
    if verdict == "reproduced" and len(parts) > 1 and blank.claim.kind == "better":
        # Losses of metrics of which more is better are negative: their ratio is the other way round.
        ratios = [max(ratio, 1 / ratio) for ratio in (part.b.mean() / part.a.mean() for part in parts)]
        why += f"; on average over {len(parts)} comparisons by a factor of {float(stats.gmean(ratios)):.2f}"
    return blank.decided(test, verdict, deciding, why=why)


def _within(difference: Comparison) -> str:
    """Return why a difference of published numbers is too small to say anything."""
    if not all(difference.metric in cell.printed for cell in difference.cells):
        return "the published bands overlap"
    if difference.resolution > max(cell.printed[difference.metric].half_unit for cell in difference.cells):
        return f"within the noise of the paper's own repeats, which reaches {difference.resolution:.2g}"
    return "no more apart than the printed digits are rounded"


def _cannot(claim: Claim, cells: list[GridCell]) -> str:
    """Return why published numbers say nothing about a claim; empty if they do."""
    if isinstance(claim, UntestedClaim):
        return claim.untested
    if claim.not_on_published:
        return claim.not_on_published
    if not isinstance(claim, ComparisonClaim):
        return "a formula, of which the supplement prints no value"
    compared = compared_cells(claim, cells)
    for metric in claim.named_metrics:
        edges = [len(band_edges(cell.band, metric)) for cell in compared]
        if isinstance(claim, SmallerSpreadClaim) and not all(edges):
            return "the supplement prints no results of single seeds"
        if not all(metric in cell.printed or edge for cell, edge in zip(compared, edges, strict=True)):
            return f"the supplement prints no {METRICS[metric].label} here"
    return ""
