"""Decisions per run if a budget places seeds, beside equal seeds for all cells: the real code on numbers of known truth.

`python -m tests.analysis.seed_placement` prints the table of docs/statistics.md.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from types import SimpleNamespace

import numpy as np
from tabulate import tabulate

from stlight.analysis.allocation import Allocation, Question
from stlight.analysis.verdicts.comparisons import Comparer, build_test, compared_cells, looks_of
from stlight.analysis.verdicts.judging import LEVEL, Reading, judge
from stlight.analysis.verdicts.looks import shares
from stlight.experiments.field_types import PrintedNumber
from stlight.experiments.grid_cells import GridCell
from stlight.experiments.plan import LOOKS
from tests.analysis.verdicts.error_rates import claim

ITEMS = 6
EXPERIMENT = SimpleNamespace(quoted=[], axes=["x", "d"])
GRID = [{"x": x, "d": d} for x in range(6) for d in "ab"]
EFFECTS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
"""True differences that sentences are about, in standard deviations, all equally frequent."""
CLAIMS = [
    claim("better", {"this": {"d": "a"}, "than": {"d": "b"}}, 0, on_average=["x"]),
    claim("better", {"this": {"x": 0, "d": "a"}, "than": {"x": 5, "d": "a"}}, 1),
    claim("better", {"this": {"x": 1, "d": "a"}, "than": {"x": 4, "d": "a"}}, 2),
]
"""The sentences of each item: one about its whole grid of twelve cells, and two about a pair each, as in the supplement, where
a third of the sentences are about two cells and a third about ten or more."""


class Item:
    """One item: a grid of cells with known means, each with twelve runs to draw on, and its sentences."""

    def __init__(self, rng, number):
        self.number = number
        # Positive effects agree with the sentences.
        self.effects = rng.choice(EFFECTS, len(CLAIMS)) * rng.choice([-1, 1], len(CLAIMS))
        whole, first, second = self.effects
        lines = [0, 10, 20, 30, 10 + second, first]
        means = np.array([100 + lines[place["x"]] + whole * (place["d"] == "b") for place in GRID])
        self.values = means[:, None] + rng.standard_normal((len(GRID), LOOKS[-1]))
        printed = {"mse": PrintedNumber("100.0")}
        self.grid = [
            GridCell(str(i), place, SimpleNamespace(label=str(i), seed_group=str(i), row=i), printed)
            for i, place in enumerate(GRID)
        ]

    def cells(self, one):
        """Return the cells that a claim compares."""
        return frozenset((self.number, cell.variant.row) for cell in compared_cells(one, self.grid))

    def looks(self, one):
        """Return the looks at a claim."""
        return looks_of(EXPERIMENT, one, self.grid, LOOKS)

    def judged(self, seeds, equal=False):
        """Return the judgements by claim; with equal seeds, they are looked at once."""
        readings = {}
        for one in CLAIMS:
            fewest = min(seeds[cell] for cell in self.cells(one))
            looks = (fewest,) if equal else self.looks(one)
            parts = zip(looks, shares(looks, LEVEL / len(CLAIMS)), strict=True)
            readings[one.id] = Reading(one.sentence, tuple((self._test(one, n), part) for n, part in parts if n <= fewest))
        return judge(readings)

    def _test(self, one, n):
        return build_test(Comparer(EXPERIMENT, one, lambda variant, _: self.values[variant.row][:n]), self.grid)

    def score(self, judgements):
        """Return right decisions, and 1 if any decision is wrong."""
        truth = {0: None, 1: "reproduced", -1: "contradicted"}
        wanted = {one.id: truth[int(np.sign(effect))] for one, effect in zip(CLAIMS, self.effects, strict=True)}
        found = {name: j.verdict for name, j in judgements.items() if j.verdict != "undecided"}
        right = [found[name] == wanted[name] for name in found]
        return sum(right), int(not all(right))


def questions(items, seeds):
    """Yield the sentences of all items as a budget sees them."""
    for item in items:
        judgements = item.judged(seeds)
        for one in CLAIMS:
            found, name, looks = judgements.get(one.id), f"{item.number} {one.id}", item.looks(one)
            levels = tuple(found.full_level * part for part in shares(looks, LEVEL / len(CLAIMS))) if found else ()
            told = {"sides": (found.test.p(False), found.test.p(True)), "levels": levels} if found else {}
            settled = found is not None and found.verdict != "undecided"
            yield Question(name=name, cells=item.cells(one), looks=looks, settled=settled, **told)


def place(items, seconds, budget):
    """Return the seeds of each cell after all rounds of a budget."""
    seeds, spent = dict.fromkeys(seconds, 0), 0.0
    while True:
        choice = Allocation(questions(items, seeds), seeds, seconds).choose(budget - spent)
        if not choice.seeds:
            return seeds
        seeds |= choice.seeds
        spent += choice.seconds


def trial(equal, number):
    """Return right decisions, items with a wrong one, and runs: with equal seeds, and with as many core seconds placed."""
    rng = np.random.default_rng([equal, number])
    items = [Item(rng, k) for k in range(ITEMS)]
    seconds = {(k, row): float(rng.choice([20, 40, 80])) for k in range(ITEMS) for row in range(len(GRID))}
    same = dict.fromkeys(seconds, equal)
    placed = place(items, seconds, equal * sum(seconds.values()))
    scores = []
    for seeds, at_once in ((same, True), (placed, False)):
        right, wrong = np.sum([item.score(item.judged(seeds, at_once)) for item in items], axis=0)
        spent = sum(count * seconds[cell] for cell, count in seeds.items())
        scores.append([right, wrong, sum(seeds.values()), spent])
    return scores


def measure(trials, equal, processes=2):
    """Return the sums over all trials, shape (equal or placed, right · wrong · runs · seconds)."""
    with ProcessPoolExecutor(processes) as pool:
        return np.sum(list(pool.map(partial(trial, equal), range(trials), chunksize=4)), axis=0)


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.analysis.seed_placement", description=__doc__)
    parser.add_argument("--trials", type=int, default=60)
    options = parser.parse_args()
    rows = []
    for equal in (3, 5, 8, 12):
        found = measure(options.trials, equal)
        per_run = found[:, 0] / found[:, 2]
        for name, sums, rate in zip((f"{equal} each", "placed"), found / options.trials, per_run, strict=True):
            right, wrong, runs, seconds = sums
            shown = [right, f"{wrong / ITEMS:.1%}", runs, seconds / 3600]
            rows.append([name, *shown, 100 * rate, rate / per_run[0]])
    heads = ["seeds", "right decisions", "items with a wrong one", "runs", "core hours", "right per 100 runs", "ratio"]
    print(tabulate(rows, heads, tablefmt="github", floatfmt=(".0f", ".2f", "", ".0f", ".2f", ".2f", ".2f")))


if __name__ == "__main__":
    main()
