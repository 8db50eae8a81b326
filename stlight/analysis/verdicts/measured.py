"""Verdicts on runs, by the decision rule of docs/statistics.md, beside those on printed numbers."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
import pandas as pd

from stlight.analysis.evidence import Evidence
from stlight.analysis.protocol import Protocol, least_exact, protocol_of
from stlight.analysis.values import Values
from stlight.analysis.verdicts.comparisons import DEVIATIONS_BY_KIND, Comparer, build_test, compared_cells, looks_of
from stlight.analysis.verdicts.differences import Difference, seeds_needed
from stlight.analysis.verdicts.eligibility import Remedy, find_bar
from stlight.analysis.verdicts.findings import Finding, Part, label
from stlight.analysis.verdicts.judging import LEVEL, Judgement, Reading, Test, judge
from stlight.analysis.verdicts.looks import shares
from stlight.analysis.verdicts.published import by_arithmetic, on_published
from stlight.analysis.verdicts.repeats import PaperNoise
from stlight.experiments import Plan
from stlight.experiments.claim_base import BaseClaim, ComparisonClaim
from stlight.experiments.claim_types import UntestedClaim
from stlight.experiments.grid_cells import GridCell, cells_of
from stlight.registry.metric_specs import COUNTED_METRICS, METRICS


def all_findings(plan: Plan, values: Mapping[str, Values]) -> list[tuple[Finding, Finding]]:
    """Return the published and the measured finding of every claim, in the order of the files."""
    spread, noise = seed_spread(values), PaperNoise(plan.experiments.values())
    found = []
    for name, experiment in plan.experiments.items():
        measured = Measured(values[name], spread, plan.scale.looks).findings()
        found += [(on_published(experiment, claim, noise), measured[claim.id]) for claim in experiment.claims]
    return found


def seed_spread(values: Mapping[str, Values]) -> "pd.Series[float]":
    """Return the seeds' spread as a share of the mean, by data set and metric. It plans seeds; no verdict depends on it."""
    frames = [one.by_seed[one.by_seed["selection"] == one.experiment.selection] for one in values.values()]
    rows = pd.concat(frames).drop_duplicates(["run", "metric"])
    # A cell with an infinite value has no spread, and one with a single seed has none either.
    finite = rows["value"].where(np.isfinite(rows["value"]) & ~rows["diverged"], np.inf)
    cells = finite.groupby([rows["dataset"], rows["variant"], rows["metric"]])
    with np.errstate(invalid="ignore"):
        shares = cells.std() / cells.mean().abs()
    return shares[np.isfinite(shares)].groupby(["dataset", "metric"]).median()


class Measured:
    """The measured findings of one experiment."""

    def __init__(self, values: Values, spread: "pd.Series[float]", looks: tuple[int, ...] = ()) -> None:
        self.values, self.spread, self.looks = values, spread, looks
        self.evidence, self.experiment = values.evidence, values.experiment
        self.lowest_level = LEVEL / max(1, sum(claim.statistical for claim in self.experiment.claims))
        """The lowest level that a reading can get."""

    def findings(self) -> dict[str, Finding]:
        """Return one finding per claim by its id. The item's sentences share one error budget."""
        cells = cells_of(self.experiment)
        compared = {c.id: compared_cells(c, cells) for c in self.experiment.claims if isinstance(c, ComparisonClaim)}
        found: dict[str, Finding] = {}
        readings: dict[str, Reading] = {}
        looks: dict[str, dict[int, float]] = {}
        for claim in self.experiment.claims:
            protocol = self._protocol(claim, compared.get(claim.id, []))
            blank = found[claim.id] = Finding(claim, self.experiment.name, "measured", protocol)
            if isinstance(claim, UntestedClaim):
                found[claim.id] = replace(blank, why=claim.untested)
            elif not isinstance(claim, ComparisonClaim):
                found[claim.id] = _judge_counts(blank, self.evidence)
            elif why := self._cannot(claim, compared[claim.id]):
                found[claim.id] = replace(blank, why=why)
                if claim.statistical and not self.never(claim, compared[claim.id]):
                    # Runs may still come, so that the sentence keeps its part of the error budget.
                    readings[claim.id] = Reading(claim.sentence)
            elif not claim.statistical:
                found[claim.id] = by_arithmetic(blank, self._test(claim, cells))
            elif barred := self._barred(blank, claim, self._test(claim, cells), compared[claim.id]):
                found[claim.id] = barred
            else:
                looks[claim.id] = self._shares(claim, cells)
                readings[claim.id] = self._reading(claim, cells, compared[claim.id], looks[claim.id])
        for name, judgement in judge(readings).items():
            levels = [judgement.full_level * share for share in looks[name].values()] or [judgement.full_level]
            found[name] = replace(self._judged(found[name], compared[name], judgement), levels=tuple(levels))
        return found

    def _test(self, claim: ComparisonClaim, cells: list[GridCell], seeds: int | None = None) -> Test:
        """Return a claim's test on the first seeds of each cell; on all of them by default."""
        return build_test(Comparer(self.experiment, claim, lambda v, metric: self.values.losses(v, metric)[:seeds]), cells)

    def _reading(
        self, claim: ComparisonClaim, cells: list[GridCell], compared: list[GridCell], shares: dict[int, float]
    ) -> Reading:
        """Return a claim's test at each look that its cells have the seeds for. Without looks, they are looked at once."""
        counts = [
            len(self.values.losses(cell.variant, metric)) for cell in compared if cell.variant for metric in claim.metrics
        ]
        if not shares:
            return Reading(claim.sentence, ((self._test(claim, cells), 1.0),))
        # Before the first look nothing may be spent.
        looks = {n: share for n, share in shares.items() if n <= min(counts)} or {min(counts): 0.0}
        return Reading(claim.sentence, tuple((self._test(claim, cells, n), share) for n, share in looks.items()))

    def _shares(self, claim: ComparisonClaim, cells: list[GridCell]) -> dict[int, float]:
        """Return the share of the level that each look of a claim may spend, by its number of seeds; empty without looks."""
        looks = looks_of(self.experiment, claim, cells, self.looks)
        return dict(zip(looks, shares(looks, self.lowest_level), strict=True)) if looks else {}

    def _cannot(self, claim: ComparisonClaim, cells: list[GridCell]) -> str:
        """Return why the runs say nothing about a claim; empty if they do."""
        if set(claim.named_metrics) & COUNTED_METRICS and not self.evidence.counts:
            return "waiting for the counts"
        return (self.never(claim, cells) or self._not_yet(claim, cells)) if claim.statistical else ""

    def never(self, claim: ComparisonClaim, cells: list[GridCell]) -> str:
        """Return why no runs of this plan will say anything about a claim; empty if they may."""
        if claim.absolute and (protocol := self._protocol(claim, cells)) != "exact":
            return f"the sentence states a value that only the paper's own size and data have; these runs are {protocol}"
        if quoted := list(dict.fromkeys(cell.label for cell in cells if cell.quoted)):
            names = ", ".join(quoted[:3]) + (" and others" if len(quoted) > 3 else "")
            return f"{names}: quoted, not trained for this item; a single number of another training is nothing to test against"
        models = {(c.variant.config.model.model, c.variant.dataset) for c in cells if c.variant}
        if untrained := sorted({name for name, dataset in models if not self.evidence.scale.trains(name, dataset)}):
            return (
                f"{', '.join(untrained)}: not trained at scale {self.evidence.scale.name}, which states no learning rate of it"
            )
        return ""

    def _not_yet(self, claim: ComparisonClaim, cells: list[GridCell]) -> str:
        """Return which runs or metrics a claim lacks; empty if there are all."""
        if unplanned := [c.label for c in cells if c.variant and not self.experiment.seeds_of(c.variant)]:
            return f"no run of {unplanned[0]} fits into the budget so far"
        runs = self._runs(cells)
        if waiting := {run: why for run, why in self.evidence.missing.items() if run in runs}:
            run, why = next(iter(waiting.items()))
            return f"waiting: {len(waiting)} of its {len(runs)} runs are not there ({run}: {why})"
        for metric in claim.metrics:
            if any(np.isnan(self.values.losses(cell.variant, metric)).any() for cell in cells if cell.variant):
                return f"{METRICS[metric].label} cannot be computed from curves this short"
        return ""

    def _protocol(self, claim: BaseClaim, cells: list[GridCell]) -> Protocol | Literal[""]:
        """Return the least exact protocol of a claim's runs; counts are exact."""
        if isinstance(claim, UntestedClaim):
            return ""
        return least_exact(protocol_of(cell.variant) for cell in cells if cell.variant and claim.statistical)

    def _runs(self, cells: list[GridCell]) -> list[str]:
        """Return the names of all runs of some cells."""
        return list(dict.fromkeys(name for c in cells if c.variant for name in self.experiment.runs_of(c.variant)))

    def _judged(self, blank: Finding, cells: list[GridCell], judgement: Judgement) -> Finding:
        deciding, names = judgement.deciding, self._runs(cells)
        words: list[str] = [label(deciding)]
        remedy: Remedy = ""
        if judgement.verdict == "undecided":
            what, remedy = self._what_would_decide(judgement)
            words.append(what)
        else:
            over = f" after Holm over {judgement.sentences} sentences" if judgement.sentences > 1 else ""
            by = "by ranks" if deciding.by_ranks else "paired by seed" if deciding.paired else "by a t test"
            words.append(f"p = {judgement.p:.2g}{over}, {by}")
        diverged = [name for name in names if self.evidence.runs[name].record.status == "diverged"]
        words += [f"{len(diverged)} of {len(names)} runs diverged and count as the worst"] if diverged else []
        words += ["on stand-in data"] if any(c.variant and c.variant.config.data.source == "stand_in" for c in cells) else []
        why, detectable = "; ".join(words), deciding.detectable(judgement.level)
        test = judgement.test
        more = {"why": why, "remedy": remedy, "detectable": detectable, "runs": names}
        more |= {"sides": (test.p(False), test.p(True))}
        return blank.decided(test, judgement.verdict, deciding, **more)

    def _barred(self, blank: Finding, claim: ComparisonClaim, test: Test, cells: list[GridCell]) -> Finding | None:
        """Return the finding if these runs may not decide the claim; None if they may."""
        if (bar := find_bar(self.values, claim, cells)) is None:
            return None
        return blank.decided(
            test, "undecided", test.deciding("undecided"), why=bar.why, remedy=bar.remedy, runs=self._runs(cells)
        )

    def _what_would_decide(self, judgement: Judgement) -> tuple[str, Remedy]:
        """Return what would decide a sentence: the seeds, by the spread of these or of other cells' seeds, or what else."""
        deciding, n = judgement.deciding, f"n = {judgement.deciding.n}"
        runs = {cell.variant.run_name(0) for cell in deciding.cells if cell.variant}
        if isinstance(deciding, Difference) and len(runs) < len(deciding.cells) and not deciding.threshold:
            return "equal by design: both cells are one configuration at this scale", "a larger scale"
        if math.isnan(deciding.estimate):
            return f"{n}: runs of both cells diverged, and more seeds would not order them", "training without divergence"
        if deciding.margin == 0:
            remedy: Remedy = "longer curves" if METRICS[deciding.metric].origin == "curve" else "a larger scale"
            return f"{n}: equal to the last digit, so no number of seeds tells them apart", remedy
        if math.isinf(deciding.estimate) or (deciding.testable and deciding.by_ranks):
            # The most extreme order of n seeds against n has this probability.
            least = next(count for count in range(2, 100) if 1 / math.comb(2 * count, count) <= judgement.level)
            return f"{n}: only ranks can be compared, which decide from {max(least, deciding.n + 1)} seeds on", "more seeds"
        borrowed = not deciding.testable
        sd = math.nan if borrowed else deciding.error()[0] * math.sqrt(deciding.n / 2)
        if borrowed and (variant := deciding.cells[0].variant):
            sd = float(self.spread.get((variant.dataset, deciding.metric), math.nan)) * abs(float(deciding.b.mean()))
        if math.isnan(sd):
            return f"{n}: one seed shows no spread, so more seeds are needed, and how many is not known", "more seeds"
        needed = seeds_needed(deciding.margin, sd, judgement.level)
        if needed is None:
            return f"{n}: even 1000 seeds would not tell a difference as small as this", "more than 1000 seeds"
        seeds, whose = max(needed, deciding.n + 1), "other cells" if borrowed else "these cells"
        return f"{n}: about {seeds} seeds would tell a difference of this size, by the spread of {whose}", "more seeds"


def _judge_counts(blank: Finding, evidence: Evidence) -> Finding:
    """Return the verdict on a claim of Section B: the counts may deviate from it by as much as it allows."""
    if not evidence.counts:
        return replace(blank, why="waiting for the counts")
    deviations, words = DEVIATIONS_BY_KIND[blank.claim.kind](blank.claim, evidence.experiment, evidence.counts)
    most, within = max(deviations.values()), blank.claim.terms.within
    return replace(
        blank,
        verdict="reproduced" if most <= within else "contradicted",
        effect=most,
        n=1,
        why=f"counted, exact: {words.format(most=most)}",
        parts=[Part(label, deviation, deviation <= within, "") for label, deviation in deviations.items()],
    )
