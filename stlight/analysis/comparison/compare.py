"""Join two folders of results: what became of each cell, which verdicts flip, which causes differ, and what costs changed."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

from stlight.analysis.comparison.causes import Cause, causes, differing_setup
from stlight.analysis.comparison.cells import Decision, Outcome, Pair, decide
from stlight.analysis.comparison.folders import Claim, Key, Results, Row
from stlight.registry.metric_specs import METRICS

Status = Literal[Outcome, "configuration", "only in A", "only in B"]
"""configuration: both folders train different things under one name, so they are not tested."""

STATUSES: tuple[Status, ...] = ("same", "noise", "different", "undecided", "configuration", "only in A", "only in B")

_DIRECTION = {"reproduced": 1, "holds at this scale": 1, "contradicted": -1, "reversed at this scale": -1}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One metric of one variant of an experiment in both folders."""

    experiment: str
    variant: str
    metric: str
    status: Status
    n_a: int = 0
    """Number of runs; 0 for what is counted."""
    n_b: int = 0
    equal_seeds: int = 0
    """Number of seeds that have the same value in both folders, to the bit."""
    mean_a: float = math.nan
    mean_b: float = math.nan
    decision: Decision | None = None
    """The test; None if nothing was tested."""
    why: str = ""
    """Why it was not tested, or nothing could be decided."""
    causes: tuple[Cause, ...] = ()


@dataclass(frozen=True)
class Changed:
    """A verdict that the folders do not share."""

    experiment: str
    claim: str
    source: str
    a: str
    b: str

    @property
    def flipped(self) -> bool:
        """True if both verdicts are decided and opposite. A verdict that becomes undecided has not flipped."""
        return _DIRECTION.get(self.a, 0) * _DIRECTION.get(self.b, 0) < 0

    @property
    def decided_in_one(self) -> bool:
        """True if one of both verdicts is decided and the other is not."""
        return (self.a in _DIRECTION) != (self.b in _DIRECTION)


@dataclass(frozen=True)
class Comparison:
    """Everything that two folders of results have in common or not. A is usually the reference."""

    a: Results
    b: Results
    cells: tuple[Cell, ...]
    divergence: Decision | None
    """Whether runs diverge more often in one folder, over all tested cells; None if none diverged."""
    diverged: tuple[int, int]
    """Number of diverged runs of the tested cells in A and B."""
    costs: dict[str, float] = field(default_factory=dict)
    """Ratio of B's costs to A's by metric, the geometric mean over cells. Reported, not tested."""

    @cached_property
    def counts(self) -> dict[Status, int]:
        """Number of cells by status."""
        found = Counter(cell.status for cell in self.cells)
        return {status: found[status] for status in STATUSES}

    @cached_property
    def changed(self) -> tuple[Changed, ...]:
        """The claims that both folders judge, with different verdicts."""
        both = [claim for claim in self.a.verdicts if claim in self.b.verdicts]
        pairs = [(claim, self.a.verdicts[claim], self.b.verdicts[claim]) for claim in both]
        return tuple(Changed(*claim, a, b) for claim, a, b in pairs if _DIRECTION.get(a, a) != _DIRECTION.get(b, b))

    @property
    def unshared_claims(self) -> dict[str, list[Claim]]:
        """Claims that only one folder judges."""
        ours, theirs = self.a.verdicts, self.b.verdicts
        return {"A": [c for c in ours if c not in theirs], "B": [c for c in theirs if c not in ours]}

    @cached_property
    def causes(self) -> dict[Cause, int]:
        """Number of cells by cause, those of most cells first."""
        found = Counter(cause for cell in self.cells for cause in cell.causes)
        return dict(sorted(found.items(), key=lambda entry: (-entry[1], entry[0])))

    @property
    def comparable(self) -> bool:
        """True if at least one cell of both folders could be compared: a trained one, if either folder has trained any.

        Counts alone say nothing about runs, and they are the same at all scales.
        """
        compared = [cell for cell in self.cells if cell.status in ("same", "noise", "different", "undecided")]
        return any(cell.n_a for cell in compared) or (bool(compared) and not self.a.runs and not self.b.runs)

    @property
    def exit_status(self) -> int:
        """0: nothing is different. 1: a cell is different, or a verdict flipped. 2: nothing can be compared."""
        if not self.comparable:
            return 2
        diverges = self.divergence is not None and self.divergence.outcome == "different"
        return int(bool(self.counts["different"] or diverges or any(claim.flipped for claim in self.changed)))


def compare(a: Results, b: Results) -> Comparison:
    """Compare two folders cell by cell. Cells that several experiments share are tested once."""
    pairs: dict[tuple[str, ...], Pair] = {}
    pair_of: dict[Key, tuple[str, ...]] = {}
    untested: dict[Key, Cell] = {}
    tested_runs: dict[tuple[str, ...], Pair] = {}
    costs: dict[str, list[float]] = {}
    for key in [*a.rows, *(key for key in b.rows if key not in a.rows)]:
        ours, theirs = a.rows.get(key), b.rows.get(key)
        if METRICS[key[2]].origin in ("timed", "recorded"):
            if ours and theirs:
                costs.setdefault(key[2], []).append(_cost(b, theirs, key) / _cost(a, ours, key))
        elif not ours or not theirs:
            untested[key] = _cell(key, "only in A" if ours else "only in B")
        elif not ours.runs or not theirs.runs:
            untested[key] = _counted(key, ours, theirs)
        elif fields := differing_setup(a.records(ours).values(), b.records(theirs).values()):
            untested[key] = _cell(key, "configuration", a, b, why=f"different {', '.join(fields)}")
        elif ours.selection != theirs.selection:
            untested[key] = _cell(key, "configuration", a, b, why=f"{ours.selection} against {theirs.selection}")
        else:
            pair_of[key] = (key[2], ours.selection, *ours.runs, "", *theirs.runs)
            pairs[pair_of[key]] = _pair(a, b, key)
            tested_runs[*ours.runs, "", *theirs.runs] = Pair(_diverged(a, ours), _diverged(b, theirs))
    decisions, divergence = decide(list(pairs.values()), tested_runs.values())
    decided = dict(zip(pairs, zip(pairs.values(), decisions, strict=True), strict=True))
    cells = [untested[key] if key in untested else _tested(key, a, b, *decided[pair_of[key]]) for key in untested | pair_of]
    order = {key: place for place, key in enumerate([*a.rows, *b.rows])}
    cells.sort(key=lambda cell: order[cell.experiment, cell.variant, cell.metric])
    runs = {name: record for key in pair_of for name, record in a.records(a.rows[key]).items()}
    others = {name: record for key in pair_of for name, record in b.records(b.rows[key]).items()}
    diverged = tuple(sum(record.status == "diverged" for record in side.values()) for side in (runs, others))
    ratios = {metric: float(np.exp(np.mean(np.log(found)))) for metric, found in costs.items()}
    return Comparison(a, b, tuple(cells), divergence, (diverged[0], diverged[1]), ratios)


def _pair(a: Results, b: Results, key: Key) -> Pair:
    """Return both sides' losses of a cell by seed."""
    metric = key[2]
    values = [_values(side, side.rows[key], metric) for side in (a, b)]
    losses = [_losses(side, key, found) for side, found in zip((a, b), values, strict=True)]
    common = values[0].keys() & values[1].keys()
    unequal = frozenset(seed for seed in common if not _equal(values[0][seed], values[1][seed]))
    dataset = next(iter(a.rows[key].runs)).partition("/")[0]
    return Pair(losses[0], losses[1], alike=(dataset, metric, a.rows[key].selection), unequal=unequal)


def _values(side: Results, row: Row, metric: str) -> dict[int, float]:
    return {side.runs[name].record.config.seed: side.metrics[name][row.selection].get(metric, math.nan) for name in row.runs}


def _diverged(side: Results, row: Row) -> dict[int, float]:
    return {record.config.seed: float(record.status == "diverged") for record in side.records(row).values()}


def _losses(side: Results, key: Key, values: dict[int, float]) -> dict[int, float]:
    """Return values as losses. A run that diverged, or has no value, is the worst."""
    diverged, sign = _diverged(side, side.rows[key]), -1 if METRICS[key[2]].higher_is_better else 1
    return {seed: math.inf if diverged[seed] or math.isnan(value) else sign * value for seed, value in values.items()}


def _equal(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def _cost(side: Results, row: Row, key: Key) -> float:
    """Return what a cell takes: its timing, or the mean over its runs."""
    values = list(_values(side, row, key[2]).values())
    return float(np.mean(values)) if values else row.measured


def _counted(key: Key, ours: Row, theirs: Row) -> Cell:
    """Compare two counts, which have no noise."""
    same = ours.measured == theirs.measured
    cell = _cell(key, "same" if same else "different", why="" if same else "counts have no noise")
    return Cell(**{**cell.__dict__, "mean_a": ours.measured, "mean_b": theirs.measured})


def _tested(key: Key, a: Results, b: Results, pair: Pair, decision: Decision) -> Cell:
    cell = _cell(key, decision.outcome, a, b, why=decision.why)
    return Cell(**{**cell.__dict__, "decision": decision, "equal_seeds": pair.equal_seeds})


def _cell(key: Key, status: Status, a: Results | None = None, b: Results | None = None, why: str = "") -> Cell:
    """Return a cell with the means and causes of its runs, if it has runs on both sides."""
    experiment, variant, metric = key
    if not a or not b:
        return Cell(experiment=experiment, variant=variant, metric=metric, status=status, why=why)
    means = [_cost(side, side.rows[key], key) for side in (a, b)]
    ours, theirs = a.records(a.rows[key]), b.records(b.rows[key])
    # Runs of the same place in both folders, the first ones if there is none.
    places = [(ours[name], theirs[name]) for name in ours if name in theirs]
    places = places or [(next(iter(ours.values())), next(iter(theirs.values())))]
    return Cell(
        experiment=experiment,
        variant=variant,
        metric=metric,
        status=status,
        n_a=len(ours),
        n_b=len(theirs),
        mean_a=means[0],
        mean_b=means[1],
        why=why,
        causes=_distinct(cause for one, other in places for cause in causes(one, other)),
    )


def _distinct(found: Iterable[Cause]) -> tuple[Cause, ...]:
    """Return the first cause of each kind and name: a cell of many seeds has as many seeds that differ."""
    first: dict[tuple[str, str], Cause] = {}
    for cause in found:
        first.setdefault((cause.kind, cause.name), cause)
    return tuple(first.values())
