"""Verdicts on the numbers that the paper prints: plain arithmetic, because a single number has no known spread."""

from collections.abc import Mapping
from dataclasses import replace

from stlight.analysis.errata import different_results
from stlight.analysis.verdicts.comparisons import Comparer, build_test, compared_cells
from stlight.analysis.verdicts.findings import Finding, label
from stlight.analysis.verdicts.judging import Test, arithmetic
from stlight.experiments import Experiment, Plan
from stlight.experiments.claim_types import Claim, ComparisonClaim, SmallerSpreadClaim, UntestedClaim
from stlight.experiments.grid_cells import GridCell, cells_of
from stlight.registry.metric_specs import METRICS


def printed_repeats(plan: Plan) -> dict[str, float]:
    """Return for each metric by how much the paper's numbers for one configuration differ at most between its tables."""
    most: dict[str, float] = {}
    for case in different_results(plan):
        most[case.metric] = max(most.get(case.metric, 0.0), round(max(case.values) - min(case.values), 9))
    return most


def on_published(experiment: Experiment, claim: Claim, repeats: Mapping[str, float]) -> Finding:
    """Return the verdict on the printed numbers. `repeats` is the result of `printed_repeats`."""
    blank, cells = Finding(claim, experiment.name, "published"), cells_of(experiment)
    why = _cannot(claim, cells)
    if why or not isinstance(claim, ComparisonClaim):
        return replace(blank, why=why)
    return by_arithmetic(blank, build_test(Comparer(experiment, claim), cells), repeats)


def by_arithmetic(blank: Finding, test: Test, repeats: Mapping[str, float]) -> Finding:
    """Return the verdict on exact numbers: printed ones, or counts of our own."""
    verdict = arithmetic(test)
    deciding, parts = test.deciding(verdict), test.for_it()
    how = "arithmetic on printed numbers" if deciding.resolution else "counted here, exact"
    if verdict == "undecided" and deciding.resolution:
        how = "no more apart than the printed digits are rounded" if deciding.estimate else "printed alike"
    why = f"{how}: {label(deciding)}"
    against = [label(part) for part in parts if part.margin <= 0]
    if verdict == "contradicted" and against:
        more = [f"and {len(against) - 4} more"] if len(against) > 4 else []
        more += [f"as stated for {len(parts) - len(against)} of {len(parts)}"] if len(parts) > 1 else []
        why = f"{how}: not so for {'; '.join([*against[:4], *more])}"
    repeat = repeats.get(deciding.metric, 0.0)
    if verdict != "undecided" and not deciding.threshold and abs(deciding.estimate) <= repeat:
        why += f"; no more than the {repeat:g} by which the paper's own repeats of one configuration differ"
    return blank.decided(test, verdict, deciding, why=why)


def _cannot(claim: Claim, cells: list[GridCell]) -> str:
    """Return why printed numbers say nothing about a claim; empty if they do."""
    if isinstance(claim, UntestedClaim):
        return claim.untested
    if claim.not_on_published:
        return claim.not_on_published
    if not isinstance(claim, ComparisonClaim):
        return "a formula, of which the supplement prints no value"
    if isinstance(claim, SmallerSpreadClaim):
        return "the supplement prints no results of single seeds"
    compared = compared_cells(claim, cells)
    lacking = [metric for metric in claim.metrics if any(metric not in cell.printed for cell in compared)]
    return f"the supplement prints no {METRICS[lacking[0]].label} here" if lacking else ""
