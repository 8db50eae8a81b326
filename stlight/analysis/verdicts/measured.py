"""Verdicts on runs, by the decision rule of docs/statistics.md, beside those on printed numbers."""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from stlight.analysis.evidence import Evidence
from stlight.analysis.values import Values
from stlight.analysis.verdicts.comparisons import COUNT_KINDS, Comparer, build_test, compared_cells
from stlight.analysis.verdicts.difference import Difference, seeds_for_order, seeds_needed
from stlight.analysis.verdicts.findings import Finding, Part, as_loss, label, parts_of, subject
from stlight.analysis.verdicts.judging import Judgement, Test, judge
from stlight.analysis.verdicts.published import by_arithmetic, on_published, printed_repeats
from stlight.analysis.verdicts.ranking import seeds_move_together
from stlight.experiments import Plan
from stlight.experiments.claim_types import ComparisonClaim, CountClaim, UntestedClaim
from stlight.experiments.grid_cells import GridCell, cells_for, cells_of
from stlight.registry.metric_specs import COUNTED_METRICS, METRICS

Spread = Mapping[tuple[str, str], tuple[float, int]]
"""For a data set and metric: the standard deviation between seeds as a share of the mean, and how many cells gave it."""


def all_findings(plan: Plan, values: Mapping[str, Values]) -> list[tuple[Finding, Finding]]:
    """Return the published and the measured finding of every claim, in the order of the files."""
    spread, repeats = seed_spread(values), printed_repeats(plan)
    found = []
    for name, experiment in plan.experiments.items():
        measured = Measured(values[name], spread).findings()
        found += [(on_published(experiment, claim, repeats), measured[claim.id]) for claim in experiment.claims]
    return found


def seed_spread(values: Mapping[str, Values]) -> dict[tuple[str, str], tuple[float, int]]:
    """Return the median spread over the cells with two seeds or more. It only plans seeds: no verdict depends on it."""
    claimed = {metric for one in values.values() for claim in one.experiment.claims for metric in claim.metrics}
    planned = {metric for metric in claimed - COUNTED_METRICS if METRICS[metric].factor == 1}
    shares: dict[tuple[str, str], dict[str, float]] = {}
    for one in values.values():
        for variant in one.experiment.variants if one.experiment.seeds > 1 else ():
            for metric in planned:
                rows = one.seeds(variant, metric)
                seeds = rows["value"].to_numpy(float)
                if len(seeds) > 1 and np.isfinite(seeds).all() and not rows["diverged"].any() and seeds.mean():
                    share = float(np.std(seeds, ddof=1) / abs(seeds.mean()))
                    shares.setdefault((variant.dataset, metric), {})[variant.name] = share
    return {place: (float(np.median(list(cells.values()))), len(cells)) for place, cells in shares.items()}


class Measured:
    """The measured findings of one experiment."""

    def __init__(self, values: Values, spread: Spread) -> None:
        self.values, self.spread = values, spread
        self.evidence, self.experiment = values.evidence, values.experiment
        self.family = sum(claim.statistical for claim in self.experiment.claims)
        self._pairs: dict[tuple[str, str], bool] = {}

    def findings(self) -> dict[str, Finding]:
        """Return one finding per claim by its id. The item's sentences are corrected together (Holm)."""
        found: dict[str, Finding] = {}
        tests: dict[str, tuple[ComparisonClaim, Test, list[GridCell]]] = {}
        for claim in self.experiment.claims:
            blank = Finding(claim, self.experiment.name, "measured")
            if isinstance(claim, UntestedClaim):
                found[claim.id] = replace(blank, why=claim.untested)
            elif isinstance(claim, CountClaim):
                found[claim.id] = _judge_counts(blank, self.evidence)
            else:
                cells = cells_for(claim, cells_of(self.experiment))
                compared = compared_cells(claim, cells)
                if why := self._cannot(claim, compared):
                    found[claim.id] = replace(blank, why=why)
                    continue
                test = build_test(Comparer(self.experiment, claim, self._losses, self._paired), cells)
                if claim.statistical:
                    tests[claim.id] = claim, test, compared
                else:
                    found[claim.id] = by_arithmetic(blank, test, {})
        judgements = judge({name: test for name, (_, test, _) in tests.items()}, self.family)
        return found | {name: self._judged(*tests[name], judgement) for name, judgement in judgements.items()}

    def _cannot(self, claim: ComparisonClaim, cells: list[GridCell]) -> str:
        """Return why the runs say nothing about a claim; empty if they do."""
        if set(claim.metrics) <= COUNTED_METRICS:
            if not self.evidence.counts:
                return "waiting for the counts"
            quoted = [c for c in cells if c.quoted and not set(claim.metrics) <= c.printed.keys()]
            return f"no number is quoted for {quoted[0].label}" if quoted else ""
        if quoted_names := list(dict.fromkeys(c.label for c in cells if c.quoted)):
            names = ", ".join(quoted_names[:3]) + (" and others" if len(quoted_names) > 3 else "")
            return f"{names}: quoted, not trained for this item; a single number of another training is nothing to test against"
        runs = self._runs(cells)
        if waiting := {run: why for run, why in self.evidence.missing.items() if run in runs}:
            run, why = next(iter(waiting.items()))
            return f"waiting: {len(waiting)} of its {len(runs)} runs are not there ({run}: {why})"
        for metric in claim.metrics:
            if any(np.isnan(self._losses(cell, metric)).any() for cell in cells):
                return f"{METRICS[metric].label} cannot be computed from curves this short"
        return ""

    def _runs(self, cells: list[GridCell]) -> list[str]:
        """Return the names of all runs of some cells."""
        seeds = range(self.experiment.seeds)
        return list(dict.fromkeys(c.variant.run_name(seed) for c in cells if c.variant for seed in seeds))

    def _losses(self, cell: GridCell, metric: str) -> np.ndarray:
        if cell.variant is None:
            return as_loss(cell.printed[metric].value, metric)
        return self.values.losses(cell.variant, metric)

    def _paired(self, cell: GridCell, metric: str) -> bool:
        """Return True if seeds shift all cells of the data set alike."""
        if metric in COUNTED_METRICS or cell.variant is None:
            return False
        place = (cell.variant.dataset, metric)
        if place not in self._pairs:
            grid = [self.values.losses(v, metric) for v in self.values.variants_of(cell.variant.dataset)]
            self._pairs[place] = seeds_move_together(grid)
        return self._pairs[place]

    def _judged(self, claim: ComparisonClaim, test: Test, cells: list[GridCell], judgement: Judgement) -> Finding:
        deciding, names = judgement.deciding, self._runs(cells)
        words = [label(deciding)]
        if judgement.verdict == "undecided":
            words.append(self._what_it_would_take(judgement))
        else:
            over = f" after Holm over {self.family} sentences" if self.family > 1 else ""
            by = "by ranks" if deciding.by_ranks else "paired by seed" if deciding.paired else "by Welch's test"
            words.append(f"p = {judgement.p:.2g}{over}, {by}")
        diverged = [name for name in names if self.evidence.runs[name].record.status == "diverged"]
        words += [f"{len(diverged)} of {len(names)} runs diverged and count as the worst"] if diverged else []
        words += ["on stand-in data"] if any(c.variant and c.variant.config.data.source == "stand_in" for c in cells) else []
        return Finding(
            claim,
            self.experiment.name,
            "measured",
            judgement.verdict,
            "; ".join(words),
            judgement.effect,
            judgement.low,
            judgement.high,
            deciding.n,
            deciding.detectable(judgement.level),
            parts_of(test),
            names,
        )

    def _what_it_would_take(self, judgement: Judgement) -> str:
        """Return how many seeds could decide, or why none can."""
        deciding = judgement.deciding
        have = f"n = {deciding.n}"
        if not deciding.finite:
            return f"{have}: a run diverged, so the order decides, and {seeds_for_order(judgement.level)} seeds may"
        if not deciding.margin or (deciding.by_ranks and deciding.n > 1):
            return f"{have}: no value differs from another, and more seeds would hardly change that"
        sd, where = self._planning_sd(deciding)
        if math.isnan(sd):
            return f"{have}: one seed shows no spread, and no other item has any to borrow"
        needed = seeds_needed(deciding.margin, sd, judgement.level)
        spread = f"spread between seeds {METRICS[subject(deciding).metric].format(sd)}{where}"
        what = (
            f"a distance of {abs(deciding.margin):.3g} from the margin" if deciding.threshold else "a difference of this size"
        )
        if needed is None:
            return f"{have}, {spread}: even 1000 seeds would hardly tell {what}"
        if needed <= deciding.n:
            return f"{have}, {spread}: this alone would do, the other sentences of the item do not let it count"
        return f"{have}, {spread}: about {needed} seeds would tell {what}"

    def _planning_sd(self, deciding: Difference) -> tuple[float, str]:
        if deciding.n > 1:
            error, _ = deciding.error()
            return error * math.sqrt(deciding.n / 2), ""
        about = subject(deciding)
        dataset = about.better.variant.dataset if about.better.variant else ""
        share, cells = self.spread.get((dataset, about.metric), (math.nan, 0))
        return share * abs(float(deciding.b.mean())), f" (borrowed from {cells} cells with more seeds)"


def _judge_counts(blank: Finding, evidence: Evidence) -> Finding:
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
