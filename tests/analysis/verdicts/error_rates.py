"""How often a verdict is wrong: the real verdict code on numbers whose truth is known.

`python -m tests.analysis.verdicts.error_rates` prints the table of docs/statistics.md; `--quick` runs fewer trials.
"""

import argparse
import math
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from types import SimpleNamespace

import numpy as np
from pydantic import TypeAdapter
from scipy import stats
from tabulate import tabulate

from stlight.analysis.values import interval
from stlight.analysis.verdicts.comparisons import Comparer, build_test
from stlight.analysis.verdicts.judging import LEVEL, judge
from stlight.analysis.verdicts.ranking import seeds_move_together
from stlight.experiments.claim_types import Claim
from stlight.experiments.field_types import PrintedNumber
from stlight.experiments.grid_cells import GridCell

EFFECTS = (0.0, 0.5, 1.0, 2.0, 4.0)
SEEDS = (1, 3, 5, 10)
NOISES = ("normal", "heavy")


def draw(rng, noise, shape):
    """Numbers of mean 0; heavy tails: Student's t with three degrees of freedom. Standard deviation 1 in either case."""
    return rng.standard_normal(shape) if noise == "normal" else rng.standard_t(3, shape) / math.sqrt(3)


def claim(kind, terms, number=0):
    return TypeAdapter(Claim).validate_python({"id": f"claim{number}", "sentence": "It is so.", "metric": "mse", kind: terms})


def at(*places):
    return {"x": list(places)}


class Case:
    """Cells on an axis x with known means, sentences about them, and whether each is true (None: neither, so any is wrong)."""

    def __init__(self, claims, means: Callable, truth: Callable, spreads=None, diverging=0.0):
        self.claims, self.means, self.truth, self.spreads, self.diverging = claims, means, truth, spreads, diverging

    def verdicts(self, rng, effect, n, noise):
        means = np.array(self.means(effect))
        spreads = np.ones(len(means)) if self.spreads is None else np.array(self.spreads(effect))
        values = 100 + means[:, None] + spreads[:, None] * draw(rng, noise, (len(means), n))
        values[rng.random(values.shape) < self.diverging] = math.inf
        # The published number of each cell is the scale that margins are stated in.
        printed = {"mse": PrintedNumber("100.0")}
        cells = [GridCell(str(i), {"x": i}, SimpleNamespace(x=i), printed) for i in range(len(means))]
        paired = seeds_move_together(list(values))
        experiment = SimpleNamespace(quoted=[], axes=["x"])

        def losses(variant, _):
            return values[variant.x]

        tests = {c.id: build_test(Comparer(experiment, c, losses, lambda *_: paired), cells) for c in self.claims}
        return {name: judgement.verdict for name, judgement in judge(tests).items()}


def sign(effect):
    return True if effect else None


def pair():
    return claim("better", {"this": at(0), "than": at(1)})


def within(margin):
    """True if a difference stays within a margin; on the margin, neither answer is right."""
    return lambda effect: None if effect == margin else effect < margin


CASES = {
    "A better than B": Case([pair()], lambda e: [0, e], sign),
    "the same, within a grid of 12 cells": Case([pair()], lambda e: [0, e, *[e] * 10], sign),
    "the same, in that grid B's spread is three times all others'": Case(
        [pair()], lambda e: [0, e, *[e] * 10], sign, lambda _: [1, 3, *[1] * 10]
    ),
    "A better than B, B's spread three times A's": Case([pair()], lambda e: [0, e], sign, lambda _: [1, 3]),
    "the same, a run in five diverges": Case([pair()], lambda e: [0, e], sign, diverging=0.2),
    "five sentences of one item (any wrong)": Case(
        [claim("better", {"this": at(0), "than": at(i)}, i) for i in range(1, 6)], lambda e: [0, *[e] * 5], sign
    ),
    "the best of 9 cells is one of two": Case([claim("optimum_in", at(0, 1))], lambda e: [0, 0, *[e] * 7], sign),
    "each of four steps improves": Case(
        [claim("improves_along", "x")], lambda e: [4 * e, 3 * e, 2 * e, e, 0], sign
    ),
    "as good as the best, within 1": Case(
        [claim("as_good_as_best", {"places": at(0), "margin": 1.0})], lambda e: [e, 0], within(1.0)
    ),
    "better by 2, within 1": Case(
        [claim("gains", {"this": at(0), "over": at(1), "by": 2.0, "margin": 1.0})],
        lambda e: [0, e],
        lambda e: None if e in (1, 3) else 1 < e < 3,
    ),
    "A's spread smaller (B's: 1 + effect)": Case(
        [claim("smaller_spread", {"this": at(0), "than": at(1)})], lambda _: [0, 0], sign, lambda e: [1, 1 + e]
    ),
}  # fmt: skip


def rates(task):
    """Shares of wrong and of right decisions."""
    name, effect, n, noise, trials = task
    case, wrong, right = CASES[name], 0, 0
    # Its own numbers for each task, the same every time.
    rng = np.random.default_rng([list(CASES).index(name), EFFECTS.index(effect), n, NOISES.index(noise)])
    truth = {True: "reproduced", False: "contradicted", None: None}[case.truth(effect)]
    for _ in range(trials):
        decided = {verdict for verdict in case.verdicts(rng, effect, n, noise).values() if verdict != "undecided"}
        wrong += bool(decided - {truth})
        right += decided == {truth}
    return wrong / trials, right / trials


def measure(trials, names=tuple(CASES), seeds=SEEDS, noises=NOISES, effects=EFFECTS, processes=2):
    tasks = [(name, e, n, noise, trials) for name in names for noise in noises for n in seeds for e in effects]
    with ProcessPoolExecutor(processes) as pool:
        return dict(zip(tasks, pool.map(rates, tasks, chunksize=1), strict=True))


def coverage(n, trials=20_000, resamples=1000):
    """How often an interval called 95 % holds the true mean of n normal numbers: Student's t, and the percentile bootstrap."""
    rng = np.random.default_rng(n)
    by_t = by_bootstrap = 0
    for _ in range(trials):
        values = rng.standard_normal(n)
        low, high = interval(values)
        by_t += low <= 0 <= high
        low, high = np.percentile(values[rng.integers(0, n, (resamples, n))].mean(1), [2.5, 97.5])
        by_bootstrap += low <= 0 <= high
    return by_t / trials, by_bootstrap / trials


def wrong_if_pooled(n, ratio, cells=12, trials=4000):
    """Return how often two equal cells are told apart by the grid's pooled spread if one of them is noisier than all others.

    Bartlett's test checks the spreads first. The suite does not pool, because of these rates.
    """
    rng = np.random.default_rng(n)
    wrong = 0
    for _ in range(trials):
        values = rng.standard_normal((cells, n))
        values[1] *= ratio
        a, b = values[:2]
        error, df = math.sqrt(2 * values.var(1, ddof=1).mean() / n), cells * (n - 1)
        if stats.bartlett(*values).pvalue >= 0.1:
            wrong += 2 * stats.t.sf(abs(a.mean() - b.mean()) / error, df) <= LEVEL
        else:
            wrong += stats.ttest_ind(a, b, equal_var=False).pvalue <= LEVEL
    return wrong / trials


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.analysis.verdicts.error_rates", description=__doc__)
    parser.add_argument("--trials", type=int, default=4000)
    parser.add_argument("--quick", action="store_true", help="200 trials")
    parser.add_argument("--coverage", action="store_true", help="instead, how often intervals hold the truth")
    parser.add_argument("--pooled", action="store_true", help="instead, what a spread pooled over the grid would do")
    options = parser.parse_args()
    if options.pooled:
        rows = [[ratio, *(f"{wrong_if_pooled(n, ratio):.1%}" for n in (3, 5, 10))] for ratio in (1, 2, 3)]
        print(tabulate(rows, ["spread", "n = 3", "n = 5", "n = 10"], tablefmt="github"))
        return
    if options.coverage:
        rows = [[n, *(f"{share:.1%}" for share in coverage(n))] for n in (3, 5, 10)]
        print(tabulate(rows, ["n", "t interval", "percentile bootstrap"], tablefmt="github"))
        return
    trials = 200 if options.quick else options.trials
    found = measure(trials)
    rows = []
    for name in CASES:
        for noise in NOISES:
            for n in SEEDS:
                cells = [found[name, e, n, noise, trials] for e in EFFECTS]
                shown = [f"{wrong:.1%} · {right:.0%}".replace("0.0%", "0") for wrong, right in cells]
                rows.append([name, noise, n, *shown])
    print(f"wrong · right decisions of {trials} trials, by the true effect in standard deviations\n")
    print(tabulate(rows, ["sentence", "noise", "n", *map(str, EFFECTS)], tablefmt="github"))
    worst = max(found.items(), key=lambda item: item[1][0])
    print(f"\nmost wrong: {worst[1][0]:.2%} at {worst[0][:4]}; standard error there {math.sqrt(worst[1][0] / trials):.2%}")


if __name__ == "__main__":
    main()
