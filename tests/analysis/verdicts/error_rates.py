"""How often a verdict is wrong: the real verdict code on numbers whose truth is known.

`python -m tests.analysis.verdicts.error_rates` prints the table of docs/statistics.md; `--quick` runs fewer trials.
"""

import argparse
import math
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
from pydantic import TypeAdapter
from scipy import stats
from tabulate import tabulate

from stlight.analysis.values import interval
from stlight.analysis.verdicts.comparisons import Comparer, build_test, looks_of
from stlight.analysis.verdicts.judging import LEVEL, Reading, judge
from stlight.analysis.verdicts.looks import shares
from stlight.experiments.claim_types import Claim
from stlight.experiments.field_types import PrintedNumber
from stlight.experiments.grid_cells import GridCell

EFFECTS = (0.0, 1.0, 2.0, 4.0)
LOOKS = (3, 5, 8, 12)
SEEDS = (1, 3, 5, LOOKS)
TABLE_SEEDS = (1, 3, LOOKS)
NOISES = ("normal", "heavy")


def draw(rng, noise, shape):
    """Numbers of mean 0; heavy tails: Student's t with three degrees of freedom. Standard deviation 1 in either case."""
    return rng.standard_normal(shape) if noise == "normal" else rng.standard_t(3, shape) / math.sqrt(3)


def claim(kind, terms, number=0, **more):
    content = {"id": f"claim{number}", "sentence": f"It is so {number}.", "metric": "mse", kind: terms}
    return TypeAdapter(Claim).validate_python(content | more)


def at(*places):
    return {"x": list(places)}


def judged(claims, cells, values, seeds, axes):
    """Verdicts by claim on values of shape (cells, seeds): all at once, or at the looks of a tuple, and after one if it can."""
    experiment: Any = SimpleNamespace(quoted=[], axes=axes)
    place = {cell.label: row for cell, row in zip(cells, values, strict=True)}

    def test(claim, n):
        return build_test(Comparer(experiment, claim, lambda variant, _: place[variant.label][:n]), cells)

    def reading(claim):
        looks = looks_of(experiment, claim, cells, seeds) if isinstance(seeds, tuple) else (seeds,)
        priced = zip(looks, shares(looks, LEVEL / len(claims)), strict=True)
        return Reading(claim.sentence, tuple((test(claim, n), share) for n, share in priced))

    readings = {c.id: reading(c) for c in claims}
    return judge(readings)


@dataclass
class Case:
    """Cells with known means, sentences about them, and whether each is true (None: on the border, either can be wrong)."""

    claims: list
    means: Any
    """Effect to the mean of each cell."""
    truth: Any = lambda effect: True if effect else None
    spreads: Any = None
    cells: list = field(default_factory=list)
    """Coordinates; those of an axis x if empty."""
    groups: Any = None
    """Coordinates to a seed group, whose cells share three quarters of the variance; None: all cells are independent."""
    diverging: float = 0.0
    logarithms: bool = False

    def verdicts(self, rng, effect, seeds, noise):
        means = np.array(self.means(effect), float)
        spreads = np.ones(len(means)) if self.spreads is None else np.array(self.spreads(effect), float)
        places = self.cells or [{"x": i} for i in range(len(means))]
        names = [str(self.groups(place)) if self.groups else str(i) for i, place in enumerate(places)]
        shape = (len(means), max(seeds) if isinstance(seeds, tuple) else seeds)
        noises = draw(rng, noise, shape)
        if self.groups:
            common = {name: draw(rng, noise, shape[1:]) for name in names}
            noises = math.sqrt(0.75) * np.array([common[name] for name in names]) + 0.5 * noises
        values = means[:, None] + spreads[:, None] * noises
        values = np.exp(0.05 * values) if self.logarithms else 100 + values
        values[rng.random(shape) < self.diverging] = math.inf
        # The published number of each cell is the scale that margins are stated in.
        printed = {"mse": PrintedNumber("100.0")}
        cells = [
            GridCell(str(i), {"model": "STLight", **place}, SimpleNamespace(label=str(i), seed_group=name), printed)
            for i, (place, name) in enumerate(zip(places, names, strict=True))
        ]
        return {name: j.verdict for name, j in judged(self.claims, cells, values, seeds, list(places[0])).items()}


def within(margin):
    """True if a difference stays within a margin; on the margin, either answer can be wrong."""
    return lambda effect: None if effect == margin else effect < margin


def grid(**axes):
    """Coordinates of all combinations."""
    places = [{}]
    for axis, values in axes.items():
        places = [place | {axis: value} for place in places for value in values]
    return places


KERNELS = grid(k1=(3, 5, 7, 9, 11), k2=(3, 5, 7, 9, 11))
SIZES = grid(size=range(11), decoder=("a", "b"))
RATES = grid(factor=(1, 2, 3), lr=(0.001, 0.003, 0.009, 0.027))
PAIR = claim("better", {"this": at(0), "than": at(1)})
BY_DECODER = {"this": {"decoder": "a"}, "than": {"decoder": "b"}}
NEAR = {"axis": "lr", "near": 0.003, "factor": 3}


def slope_k2(effect):
    return [effect * (place["k2"] - 3) / 4 + place["k1"] % 4 for place in KERNELS]


def parabola(effect):
    """A minimum at `effect` times the tolerance above the stated optimum; one step of the grid changes the error much."""
    return [2 * (math.log(place["lr"] / 0.003) / math.log(3) - effect) ** 2 for place in RATES]


CASES = {
    "A better than B": Case([PAIR], lambda e: [0, e]),
    "A better than B, B's spread three times A's": Case([PAIR], lambda e: [0, e], spreads=lambda _: [1, 3]),
    "A better than B, paired by seed": Case([PAIR], lambda e: [0, e], groups=lambda _: 0),
    "A better than B, a run in five diverges": Case([PAIR], lambda e: [0, e], diverging=0.2),
    "five sentences (any wrong)": Case(
        [claim("better", {"this": at(0), "than": at(i)}, i) for i in range(1, 6)], lambda e: [0, *[e] * 5]
    ),
    "five sentences, one of them plain (any wrong)": Case(
        [claim("better", {"this": at(i), "than": at(i + 1)}, i) for i in range(0, 10, 2)], lambda e: [0, 9, *[0, e] * 4],
        # At effect 0 the four others are taken to have a vanishing effect.
        lambda _: True,
    ),
    "on average over 11 sizes, paired": Case(
        [claim("better", BY_DECODER, on_average=["size"])],
        lambda e: [place["size"] + e / 2 * (place["decoder"] == "b") for place in SIZES],
        cells=SIZES, groups=lambda place: place["size"],
    ),
    "on average over 11 sizes, not paired, noise grows threefold with size": Case(
        [claim("better", BY_DECODER, on_average=["size"])],
        lambda e: [place["size"] + e / 2 * (place["decoder"] == "b") for place in SIZES],
        spreads=lambda _: [1 + place["size"] / 5 for place in SIZES], cells=SIZES,
    ),
    "on average over 3 factors that share seeds": Case(
        [claim("better", {"this": {"lr": 0.003}, "than": {"lr": 0.027}}, on_average=["factor"])],
        lambda e: [e * (place["lr"] == 0.027) for place in RATES],
        spreads=lambda _: [1 + 2 * (place["lr"] == 0.027) for place in RATES], cells=RATES, groups=lambda place: place["lr"],
    ),
    "trend along an axis of a 5 × 5 grid": Case([claim("trend", {"axis": "k2", "becomes": "worse"})], slope_k2, cells=KERNELS),
    "trend along an axis of a 5 × 5 grid, the last value three times as noisy": Case(
        [claim("trend", {"axis": "k2", "becomes": "worse"})], slope_k2,
        spreads=lambda _: [1 + 2 * (place["k2"] == 11) for place in KERNELS], cells=KERNELS,
    ),
    "trend along an axis of a 5 × 5 grid, a run in ten diverges": Case(
        [claim("trend", {"axis": "k2", "becomes": "worse"})], slope_k2, cells=KERNELS, diverging=0.1
    ),
    "optimum within a factor of 3 (off by effect × factor)": Case(
        [claim("optimum", NEAR, among={"factor": 1})], parabola, within(1.0),
        cells=RATES, groups=lambda place: place["lr"], logarithms=True,
    ),
    "optimum within a factor of 3, 3 lines, the last rate three times as noisy": Case(
        [claim("optimum", NEAR)], parabola, within(1.0), spreads=lambda _: [1 + 2 * (place["lr"] == 0.027) for place in RATES],
        cells=RATES, logarithms=True,
    ),
    "the best of 9 cells is one of two": Case([claim("optimum_in", at(0, 1))], lambda e: [0, 0, *[e] * 7]),
    "each of four steps improves": Case([claim("improves_along", "x")], lambda e: [4 * e, 3 * e, 2 * e, e, 0]),
    "as good as the best, within 1": Case(
        [claim("as_good_as_best", {"places": at(0), "margin": 1.0})], lambda e: [e, 0], within(1.0)
    ),
    "as good as the best, within 1, paired by seed": Case(
        [claim("as_good_as_best", {"places": at(0), "margin": 1.0})], lambda e: [e, 0], within(1.0), groups=lambda _: 0
    ),
    "better by 2, within 1": Case(
        [claim("gains", {"this": at(0), "over": at(1), "by": 2.0, "margin": 1.0})],
        lambda e: [0, e], lambda e: None if e in (1, 3) else 1 < e < 3,
    ),
    "A's spread smaller (B's: 1 + effect)": Case(
        [claim("smaller_spread", {"this": at(0), "than": at(1)})], lambda _: [0, 0], spreads=lambda e: [1, 1 + e]
    ),
}  # fmt: skip


def rates(task):
    """Shares of trials with a wrong decision, and of those with right ones only. On a border, the direction that errs more."""
    name, effect, seeds, noise, trials = task
    case, reproduced, contradicted, both = CASES[name], 0, 0, 0
    # Its own numbers for each task, the same every time.
    rng = np.random.default_rng([list(CASES).index(name), EFFECTS.index(effect), SEEDS.index(seeds), NOISES.index(noise)])
    for _ in range(trials):
        found = set(case.verdicts(rng, effect, seeds, noise).values())
        reproduced += "reproduced" in found
        contradicted += "contradicted" in found
        both += {"reproduced", "contradicted"} <= found
    right, wrong = (contradicted, reproduced) if case.truth(effect) is False else (reproduced, contradicted)
    if case.truth(effect) is None:
        return max(right, wrong) / trials, 0.0
    return wrong / trials, (right - both) / trials


def measure(trials, names=tuple(CASES), seeds=SEEDS, noises=NOISES, effects=EFFECTS, processes=2):
    return run_all(
        [(name, e, n, noise, trials) for name in names for noise in noises for n in seeds for e in effects], processes
    )


def run_all(tasks, processes=2):
    with ProcessPoolExecutor(processes) as pool:
        return dict(zip(tasks, pool.map(rates, tasks, chunksize=1), strict=True))


def trials_of(effect, noise, trials):
    """Most errors are made near a border, and with normal noise."""
    return (trials if effect <= 1 else trials // 4) // (1 if noise == "normal" else 2)


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
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--quick", action="store_true", help="500 trials")
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
    trials = 500 if options.quick else options.trials
    places = [(name, e, n, noise) for name in CASES for e in EFFECTS for n in TABLE_SEEDS for noise in NOISES]
    found = run_all([(*place, trials_of(place[1], place[3], trials)) for place in places])
    # The largest of many shares is large by chance, so that those above 5 % are measured again.
    found |= run_all([(*task[:4], 8 * trials) for task, (wrong, _) in found.items() if wrong > 0.05])
    by_place = {task[:4]: rate for task, rate in found.items()}

    def shown(shares):
        return " · ".join("–" if not share else f"{share:.1%}" if share < 0.1 else f"{share:.0%}" for share in shares)

    rows = []
    for name in CASES:
        wrong = [max(by_place[name, e, n, noise][0] for e in EFFECTS for noise in NOISES) for n in TABLE_SEEDS]
        right = [shown(by_place[name, e, n, "normal"][1] for n in TABLE_SEEDS) for e in EFFECTS]
        rows.append([name, shown(wrong), *right])
    print("with 1 · 3 · 3 to 12 seeds: wrong at the worst effect and noise; right by the true effect in standard deviations\n")
    print(tabulate(rows, ["sentence", "wrong", *(f"right at {effect:g}" for effect in EFFECTS)], tablefmt="github"))
    for (name, effect, n, noise, number), (wrong, _) in sorted(found.items(), key=lambda item: -item[1][0])[:5]:
        print(f"most wrong: {wrong:.2%} at {name}, {effect}, {n}, {noise}; standard error {math.sqrt(wrong / number):.2%}")


if __name__ == "__main__":
    main()
