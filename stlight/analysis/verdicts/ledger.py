"""Verdicts on the claims of the experiments: on the numbers that the paper prints, and on the runs there are."""

import itertools
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import linregress

from stlight.analysis.aggregate import (
    counts_there,
    load_records,
    missing_runs,
    values_by_seed,
)
from stlight.analysis.errata import different_results
from stlight.analysis.text import axis_text, is_higher_better, number
from stlight.analysis.verdicts import statistics
from stlight.analysis.verdicts.comparisons import build_test, claimed_cells, compared_cells, metric_name
from stlight.analysis.verdicts.statistics import Difference, Test
from stlight.experiments import Experiment, Plan, Variant
from stlight.experiments.claims import COUNT_KINDS, Cell, Claim, groups
from stlight.registry.metric_specs import COUNTED_METRICS

VERDICTS = ("reproduced", "contradicted", "undecided", "untested")
COLUMNS = (
    *("id", "experiment", "section", "sentence", "source", "verdict"),
    *("effect", "low", "high", "n", "detectable", "why"),
)


@dataclass(frozen=True)
class Part:
    """One comparison of a claim: what is compared, and by how much it is as the sentence says."""

    label: str
    effect: float
    as_stated: bool
    values: str
    """Every seed's value on both sides."""


@dataclass(frozen=True)
class Finding:
    """A claim's verdict on one source, with all that a reader may want to know of it."""

    claim: Claim
    experiment: str
    source: str
    verdict: str
    why: str
    effect: float = math.nan
    low: float = math.nan
    high: float = math.nan
    n: int = 0
    detectable: float = math.nan
    parts: list[Part] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)


def ledger(plan: Plan, folder: Path) -> list[Finding]:
    """Both findings of every claim of every experiment, in the order of the files."""
    spread, repeats = seed_spread(plan, folder), printed_repeats(plan)
    found = []
    for experiment in plan.experiments.values():
        judged = _Measured(experiment, folder, spread).findings()
        for claim in experiment.claims:
            found += [on_published(experiment, claim, repeats), judged[claim.id]]
    return found


def as_table(findings: list[Finding]) -> pd.DataFrame:
    """`claims.csv`: a line for each claim and source."""
    rows = [
        {
            "id": f.claim.id,
            "experiment": f.experiment,
            "section": f.claim.section,
            "sentence": f.claim.sentence,
            **{name: getattr(f, name) for name in COLUMNS[4:]},
        }
        for f in findings
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def printed_repeats(plan: Plan) -> dict[str, float]:
    """By how much the paper's own numbers for one configuration differ at most between its tables, for each metric."""
    most: dict[str, float] = {}
    for case in different_results(plan):
        most[case.metric] = max(most.get(case.metric, 0.0), round(max(case.values) - min(case.values), 9))
    return most


def on_published(experiment: Experiment, claim: Claim, repeats: dict[str, float]) -> Finding:
    """Plain arithmetic on the printed numbers: each is one number, of which no spread is known."""
    blank = Finding(claim, experiment.name, "published", "untested", "")
    if claim.kind == "untested":
        return replace(blank, why=str(claim.terms))
    if claim.not_on_published:
        return replace(blank, why=claim.not_on_published)
    if claim.kind in COUNT_KINDS:
        return replace(blank, why="a formula, of which the supplement prints no value")
    if claim.kind == "smaller_spread":
        return replace(blank, why="the supplement prints no results of single seeds")
    cells = claimed_cells(experiment, claim)
    spoken_of = {id(cell): cell for group in groups(claim, cells) for side in compared_cells(claim, group) for cell in side}
    for metric in claim.metrics:
        for cell in spoken_of.values():
            if metric not in cell.published:
                return replace(blank, why=f"the supplement prints no {metric_name(metric)} here")

    def values(cell: Cell, metric: str) -> np.ndarray:
        return np.array([cell.published[metric]])

    test = build_test(experiment, claim, cells, values, lambda cell, metric: False, printed=True)
    verdict = statistics.arithmetic(test)
    deciding = test.deciding(verdict)
    parts = _parts(test)
    effect = -deciding.estimate if verdict == "contradicted" else deciding.estimate
    words = [_arithmetic_words(verdict, deciding, parts)]
    repeat = repeats.get(deciding.metric, 0.0)
    if verdict != "undecided" and not deciding.threshold and abs(effect) <= repeat:
        words.append(f"no more than the {repeat:g} by which the paper's own repeats of one configuration differ")
    return replace(blank, verdict=verdict, effect=effect, n=1, why="; ".join(words), parts=parts)


def _arithmetic_words(verdict: str, deciding: Difference, parts: list[Part]) -> str:
    if verdict == "undecided":
        alike = "printed alike" if not deciding.estimate else "no more apart than the printed digits are rounded"
        return f"{alike}: {deciding.label}"
    against = [part for part in parts if not part.as_stated]
    if verdict == "reproduced" or not against:
        return f"arithmetic on printed numbers: {deciding.label}"
    more = f"; as stated for {len(parts) - len(against)} of {len(parts)}" if len(parts) > 1 else ""
    shown = "; ".join(part.label for part in against[:4]) + (f"; and {len(against) - 4} more" if len(against) > 4 else "")
    return f"arithmetic on printed numbers: not so for {shown}{more}"


def _parts(test: Test) -> list[Part]:
    """The comparisons behind a verdict: those of the group that has most for it."""
    return [
        Part(
            d.label,
            d.estimate,
            bool(d.estimate - d.threshold > 0),
            " | ".join(_listing(side, d.metric) for side in d.shown or (d.a, d.b)),
        )
        for d in test.for_it()
    ]


def _listing(values: np.ndarray, metric: str) -> str:
    sign = -1 if is_higher_better(metric) else 1
    return ", ".join("diverged" if math.isinf(v) else number(sign * float(v), metric) for v in values)


class _Measured:
    """The measured findings of one experiment."""

    def __init__(self, experiment: Experiment, folder: Path, spread: "Spread") -> None:
        self.experiment, self.folder, self.spread = experiment, folder, spread
        self.records = load_records(experiment, folder)
        self.missing = missing_runs(experiment, folder)
        self.counts = counts_there(experiment, folder)
        self.known: dict[tuple[str, str], np.ndarray] = {}
        self.pairs: dict[tuple[str, str], bool] = {}

    def findings(self) -> dict[str, Finding]:
        found: dict[str, Finding] = {}
        tests: dict[str, Test] = {}
        cells_of_claims = {}
        for claim in self.experiment.claims:
            blank = Finding(claim, self.experiment.name, "measured", "untested", "")
            if claim.kind == "untested":
                found[claim.id] = replace(blank, why=str(claim.terms))
            elif claim.kind in COUNT_KINDS:
                found[claim.id] = self._count(blank)
            else:
                cells = claimed_cells(self.experiment, claim)
                spoken_of = [c for group in groups(claim, cells) for side in compared_cells(claim, group) for c in side]
                if why := self._cannot(claim, spoken_of):
                    found[claim.id] = replace(blank, why=why)
                    continue
                test = build_test(self.experiment, claim, cells, self._values, self._paired)
                if claim.statistical:
                    tests[claim.id] = test
                    cells_of_claims[claim.id] = spoken_of
                else:
                    found[claim.id] = self._counted(blank, test)
        family = sum(claim.statistical for claim in self.experiment.claims)
        for name, judgement in statistics.judge(tests, family).items():
            claim = next(c for c in self.experiment.claims if c.id == name)
            found[name] = self._judged(claim, tests[name], judgement, cells_of_claims[name], family)
        return found

    def _cannot(self, claim: Claim, cells: list[Cell]) -> str:
        """Why the runs there are say nothing of a claim."""
        if set(claim.metrics) <= COUNTED_METRICS:
            if not self.counts:
                return "waiting for the counts"
            quoted = [c for c in cells if c.quoted and not set(claim.metrics) <= c.published.keys()]
            return f"no number is quoted for {quoted[0].label}" if quoted else ""
        if quoted_names := list(dict.fromkeys(c.label for c in cells if c.quoted)):
            names = ", ".join(quoted_names[:3]) + (" and others" if len(quoted_names) > 3 else "")
            return f"{names}: quoted, not trained for this item; a single number of another training is nothing to test against"
        runs = {c.variant.run_name(seed) for c in cells for seed in range(self.experiment.seeds)}
        if waiting := {run: why for run, why in self.missing.items() if run in runs}:
            run, why = next(iter(waiting.items()))
            return f"waiting: {len(waiting)} of its {len(runs)} runs are not there ({run}: {why})"
        for metric in claim.metrics:
            for cell in cells:
                values = self._values(cell, metric)
                if np.isnan(values).any():
                    return f"{metric_name(metric)} cannot be had from curves this short"
        return ""

    def _values(self, cell: Cell, metric: str) -> np.ndarray:
        if cell.quoted:
            return np.array([cell.published[metric]])
        return self._seeds(cell.variant, metric)

    def _seeds(self, variant: Variant, metric: str) -> np.ndarray:
        key = (variant.run_name(0), metric)
        if key not in self.known:
            if metric in COUNTED_METRICS:
                count = self.counts[f"{variant.dataset}/{variant.name}"]
                number_of = float(count["parameters"]["total"] if metric == "num_params" else count[metric])
                self.known[key] = np.array([number_of])
            else:
                self.known[key] = seed_values(self.experiment, variant, metric, self.records, self.folder)
        return self.known[key]

    def _paired(self, cell: Cell, metric: str) -> bool:
        """Of all cells of the data set: the grid that a cell is one of."""
        if metric in COUNTED_METRICS:
            return False
        key = (cell.variant.dataset, metric)
        if key not in self.pairs:
            grid = [self._seeds(v, metric) for v in self.experiment.variants if v.dataset == cell.variant.dataset]
            self.pairs[key] = statistics.seeds_move_together(grid)
        return self.pairs[key]

    def _count(self, blank: Finding) -> Finding:
        if not self.counts:
            return replace(blank, why="waiting for the counts")
        deviation, parts = _deviation(self.experiment, blank.claim, self.counts)
        within = float(blank.claim.terms["within"])
        verdict = "reproduced" if deviation <= within else "contradicted"
        if blank.claim.kind == "counts_equal":
            words = f"counted parameters are at most {deviation:.1%} from the formula (allowed: {within:.0%})"
        else:
            words = f"the exponent is at most {deviation:.3f} from {blank.claim.terms['exponent']} (allowed: {within:g})"
        return replace(blank, verdict=verdict, effect=deviation, n=1, why=f"counted, exact: {words}", parts=parts)

    def _counted(self, blank: Finding, test: Test) -> Finding:
        verdict = statistics.arithmetic(test)
        deciding, parts = test.deciding(verdict), _parts(test)
        effect = -deciding.estimate if verdict == "contradicted" else deciding.estimate
        against = [part for part in parts if not part.as_stated]
        words = f"counted here, exact: {deciding.label}"
        if verdict == "contradicted" and len(parts) > 1:
            words = f"counted here, exact: not so for {'; '.join(part.label for part in against)}"
        return replace(blank, verdict=verdict, effect=effect, n=1, why=words, parts=parts)

    def _judged(self, claim: Claim, test: Test, judgement: statistics.Judgement, cells: list[Cell], family: int) -> Finding:
        deciding = judgement.deciding
        words = [deciding.label]
        if judgement.verdict == "undecided":
            words.append(self._what_it_would_take(deciding, judgement, cells[0].variant.dataset))
        else:
            over = f" after Holm over {family} sentences" if family > 1 else ""
            by = "by ranks" if deciding.by_ranks else "paired by seed" if deciding.paired else "by Welch's test"
            words.append(f"p = {judgement.p:.2g}{over}, {by}")
        names = dict.fromkeys(c.variant.run_name(seed) for c in cells for seed in range(self.experiment.seeds))
        diverged = [name for name in names if name in self.records and self.records[name].status == "diverged"]
        words += [f"{len(diverged)} of {len(names)} runs diverged and count as the worst"] if diverged else []
        stand_in = any(c.variant.config.data.source == "stand_in" for c in cells)
        words += ["on stand-in data"] if stand_in else []
        return Finding(
            claim,
            self.experiment.name,
            "measured",
            judgement.verdict,
            "; ".join(words),
            judgement.effect,
            judgement.low,
            judgement.high,
            judgement.n,
            judgement.detectable,
            _parts(test),
            list(names),
        )

    def _what_it_would_take(self, deciding: Difference, judgement: statistics.Judgement, dataset: str) -> str:
        have = f"n = {deciding.n}"
        distance = deciding.estimate - deciding.threshold
        if not np.isfinite(np.concatenate([deciding.a, deciding.b])).all():
            return f"{have}: a run diverged, so the order decides, and {statistics.seeds_for_order(judgement.level)} seeds may"
        if not distance or (deciding.by_ranks and deciding.n > 1):
            return f"{have}: no value differs from another, and more seeds would hardly change that"
        sd, where = self._planning_sd(deciding, dataset)
        if math.isnan(sd):
            return f"{have}: one seed shows no spread, and no other item has any to borrow"
        needed = statistics.seeds_needed(distance, sd, judgement.level)
        spread = f"spread between seeds {number(sd, deciding.metric)}{where}"
        what = f"a distance of {abs(distance):.3g} from the margin" if deciding.threshold else "a difference of this size"
        if needed is None:
            return f"{have}, {spread}: even 1000 seeds would hardly tell {what}"
        if needed <= deciding.n:
            return f"{have}, {spread}: this alone would do, the other sentences of the item do not let it count"
        return f"{have}, {spread}: about {needed} seeds would tell {what}"

    def _planning_sd(self, deciding: Difference, dataset: str) -> tuple[float, str]:
        if deciding.n > 1:
            error, _ = deciding.error()
            return error * math.sqrt(deciding.n / 2), ""
        share, cells = self.spread.get((dataset, deciding.metric), (math.nan, 0))
        return share * abs(float(deciding.b.mean())), f" (borrowed from {cells} cells with more seeds)"


Spread = dict[tuple[str, str], tuple[float, int]]
"""For a data set and a metric, the spread between seeds as a share of the mean, and from how many cells it was taken."""


def seed_spread(plan: Plan, folder: Path) -> Spread:
    """The median spread of the cells with two seeds or more. It only plans: no verdict rests on a borrowed spread."""
    shares: dict[tuple[str, str], dict[str, float]] = {}
    for experiment in plan.experiments.values():
        if not experiment.train or experiment.seeds < 2:
            continue
        records = load_records(experiment, folder)
        for variant, metric in itertools.product(experiment.variants, _planned_metrics(plan)):
            seeds = values_by_seed(experiment, variant, metric, records, folder)
            if len(seeds) > 1 and np.isfinite(seeds).all() and np.mean(seeds):
                share = float(np.std(seeds, ddof=1) / abs(np.mean(seeds)))
                shares.setdefault((variant.dataset, metric), {})[variant.name] = share
    return {key: (float(np.median(list(cells.values()))), len(cells)) for key, cells in shares.items()}


def _planned_metrics(plan: Plan) -> set[str]:
    named = {m for e in plan.experiments.values() for claim in e.claims for m in claim.metrics}
    return named - COUNTED_METRICS - {"mse_x100"}


def seed_values(experiment: Experiment, variant: Any, metric: str, records: dict[str, Any], folder: Path) -> np.ndarray:
    """A cell's values, one for each recorded seed, as printed; a run that diverged is infinitely bad."""
    values = values_by_seed(experiment, variant, metric, records, folder)
    names = [name for seed in range(experiment.seeds) if (name := variant.run_name(seed)) in records]
    worst = -math.inf if is_higher_better(metric) else math.inf
    return np.array([worst if records[n].status == "diverged" else v for n, v in zip(names, values, strict=True)], dtype=float)


def _deviation(experiment: Experiment, claim: Claim, counts: dict[str, dict[str, Any]]) -> tuple[float, list[Part]]:
    """How far counts are from what a claim of Section B says, at most."""
    terms = claim.terms
    if claim.kind == "counts_equal":
        parts = []
        for variant in experiment.variants:
            count = counts[f"{variant.dataset}/{variant.name}"]
            counted, formula = count["parameters"][terms["component"]], count["closed_forms"][terms["component"]]
            off = abs(counted / formula - 1)
            label = f"{', '.join(f'{a} = {axis_text(a, v)}' for a, v in variant.axes.items())}: {counted:,} against {formula:,}"
            parts.append(Part(label, off, off <= float(terms["within"]), ""))
        return max(part.effect for part in parts), parts
    lines: dict[str, list[tuple[float, float]]] = {}
    for variant in experiment.variants:
        others = ", ".join(f"{a} = {axis_text(a, v)}" for a, v in variant.axes.items() if a != terms["axis"])
        count = counts[f"{variant.dataset}/{variant.name}"]["parameters"][terms["component"]]
        lines.setdefault(others, []).append((math.log(variant.axes[terms["axis"]]), math.log(count)))
    parts = []
    for others, points in lines.items():
        if len(points) > 1:
            exponent = float(linregress(*zip(*points, strict=True)).slope)
            off = abs(exponent - float(terms["exponent"]))
            parts.append(Part(f"{others}: exponent {exponent:.3f}", off, off <= float(terms["within"]), ""))
    return max(part.effect for part in parts), parts
